"""`record` mode: the fixture if there is one, else the real chart, which is saved as a fixture.

Errors of the API are saved too. `mock` mode then answers with them.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

from worker_chart_export.charts.fixtures import fixture_stem
from worker_chart_export.errors import ChartApiFailed, ChartApiMockMissing
from worker_chart_export.observability.logs import Event, log

if TYPE_CHECKING:
    from worker_chart_export.charts.base import ChartImage, ChartProvider, ChartRequest
    from worker_chart_export.charts.fixtures import FixtureProvider
    from worker_chart_export.errors import RequestError

MAX_NAME_CHARS = 40
#: The usual mode of a new file. `mkstemp` creates files that only their owner can read.
FILE_MODE = 0o644


class RecordingProvider:
    """Answer with fixtures, and save those that are missing.

    Args:
        folder: `CHARTS_FIXTURES_DIR`.
        fixtures: Reads the folder.
        real: Makes the charts that have no fixture.
    """

    def __init__(self, *, folder: Path, fixtures: FixtureProvider, real: ChartProvider) -> None:
        self._folder = folder
        self._fixtures = fixtures
        self._real = real

    def known_failure(self, request: ChartRequest) -> RequestError | None:  # noqa: ARG002 - a provider's
        """Return None: there may be a fixture."""
        return None

    def chart(self, request: ChartRequest) -> ChartImage:
        """Return the fixture, or make the chart and save it.

        Raises:
            ChartApiMockMissing: There is no fixture, and none can be saved. No call was made.
            RequestError: The error of the fixture or of the real provider.
            WorkerError: The error of the real provider.
        """
        try:
            return self._fixtures.chart(request)
        except ChartApiMockMissing as missing:
            try:  # so that no call is paid for whose answer can't be saved
                tempfile.TemporaryFile(dir=self._folder).close()
            except OSError as error:
                raise ChartApiMockMissing(
                    f"{missing.message} No fixture can be saved there: {error.strerror}.", **missing.details
                ) from error
        try:
            image = self._real.chart(request)
        except ChartApiFailed as error:
            self._save_error(request, error)
            raise
        self._save(f"{fixture_stem(request)}.png", image.png)
        return image

    def _save_error(self, request: ChartRequest, error: ChartApiFailed) -> None:
        """Save an answer of the API. A broken connection or picture says nothing about the request."""
        status, message = error.details.get("httpStatus"), error.details.get("apiMessage")
        if not isinstance(status, int) or status < HTTPStatus.BAD_REQUEST or not message:
            return
        name = re.sub(r"[^A-Z0-9]+", "_", str(message).upper()).strip("_")[:MAX_NAME_CHARS] or "ERROR"
        params = {"params": error.details["params"]} if "params" in error.details else {}
        body = json.dumps({"message": str(message), **params}).encode()
        self._save(f"{fixture_stem(request)}__{status}_{name}.json", body)

    def _save(self, name: str, content: bytes) -> None:
        """Write a whole file or none: another process may read the folder."""
        try:
            descriptor, unfinished = tempfile.mkstemp(dir=self._folder, prefix=".recording-")
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(content)
                Path(unfinished).chmod(FILE_MODE)
                Path(unfinished).replace(self._folder / name)
            except OSError:
                Path(unfinished).unlink(missing_ok=True)
                raise
        except OSError as error:
            log.error(Event.FIXTURE_NOT_SAVED, f"The fixture {name} was not saved: {error.strerror}")
        else:
            log.info(Event.FIXTURE_SAVED, f"Saved the fixture {name}", sizeBytes=len(content))
