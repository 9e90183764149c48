"""`record` mode: a fixture if there is one, else the real chart, saved as a fixture.

Errors are recorded too: what the API refused once, `mock` mode answers from then on.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from worker_chart_export.charts.fixtures import fixture_stem
from worker_chart_export.errors import ChartApiFailed, ChartApiMockMissing
from worker_chart_export.observability.logs import Event, log

if TYPE_CHECKING:
    from worker_chart_export.charts.base import ChartImage, ChartProvider, ChartRequest
    from worker_chart_export.charts.fixtures import FixtureProvider

MAX_NAME_CHARS = 40
MIN_ERROR = 400
#: As of any file that a person puts there.
FILE_MODE = 0o644


class RecordingProvider:
    """Answers from fixtures and adds what is missing there.

    Args:
        folder: `CHARTS_FIXTURES_DIR`.
        fixtures: Reads it.
        real: Makes what it lacks.
    """

    def __init__(self, *, folder: Path, fixtures: FixtureProvider, real: ChartProvider) -> None:
        self._folder = folder
        self._fixtures = fixtures
        self._real = real

    def chart(self, request: ChartRequest) -> ChartImage:
        """The chart.

        Raises:
            RequestError: As the fixtures' or the real provider's.
            WorkerError: As the real provider's.
        """
        try:
            return self._fixtures.chart(request)
        except ChartApiMockMissing as missing:
            self._check_folder(missing)
        try:
            image = self._real.chart(request)
        except ChartApiFailed as error:
            self._save_error(request, error)
            raise
        self._save(f"{fixture_stem(request)}.png", image.png)
        return image

    def _check_folder(self, missing: ChartApiMockMissing) -> None:
        """Nothing is paid for that could not be kept."""
        try:
            tempfile.TemporaryFile(dir=self._folder).close()
        except OSError as error:
            raise ChartApiMockMissing(
                f"{missing.message} None can be recorded there: {error.strerror}.", **missing.details
            ) from error

    def _save_error(self, request: ChartRequest, error: ChartApiFailed) -> None:
        """Only what the API answered: a broken connection or picture says nothing about the request."""
        status = error.details.get("httpStatus")
        if not isinstance(status, int) or status < MIN_ERROR or not error.details.get("apiMessage"):
            return
        words = str(error.details["apiMessage"])
        name = re.sub(r"[^A-Z0-9]+", "_", words.upper()).strip("_")[:MAX_NAME_CHARS] or "ERROR"
        body = {
            "message": words,
            **({"params": error.details["params"]} if "params" in error.details else {}),
        }
        self._save(f"{fixture_stem(request)}__{status}_{name}.json", json.dumps(body).encode())

    def _save(self, name: str, content: bytes) -> None:
        """Write the file whole or not at all: another process may be reading it."""
        try:
            self._write(name, content)
        except OSError as error:
            log.error(Event.FIXTURE_NOT_SAVED, f"The fixture {name} was not saved: {error.strerror}")
            return
        log.info(Event.FIXTURE_SAVED, f"Saved the fixture {name}", sizeBytes=len(content))

    def _write(self, name: str, content: bytes) -> None:
        descriptor, unfinished = tempfile.mkstemp(dir=self._folder, prefix=".recording-")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            Path(unfinished).chmod(FILE_MODE)
            Path(unfinished).replace(self._folder / name)
        except OSError:
            Path(unfinished).unlink(missing_ok=True)
            raise
