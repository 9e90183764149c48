"""`mock` mode: charts from files, without any network.

A chart is `<SYMBOL>__<timeframe>__<chartTemplateId>.png` in the fixtures folder. SYMBOL is the request body's
symbol with `:` as `_`. An error is `<the same>__<status>_<NAME>.json`; its content is the API's answer.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TYPE_CHECKING

from worker_chart_export.charts.base import ChartImage
from worker_chart_export.errors import ChartApiFailed, ChartApiLimitExceeded, ChartApiMockMissing

if TYPE_CHECKING:
    from pathlib import Path

    from worker_chart_export.charts.base import ChartRequest
    from worker_chart_export.errors import RequestError

ERROR_FIXTURE = re.compile(r"__(?P<status>[0-9]{3})_(?P<name>[A-Za-z0-9_-]+)\.json")
MAX_BODY_CHARS = 500


def fixture_stem(request: ChartRequest) -> str:
    """Return the start of the names of the request's fixture files."""
    symbol = re.sub(r"[:/\x00]", "_", str(request.payload["symbol"]))  # a formula of symbols may hold a slash
    return f"{symbol}__{request.timeframe}__{request.template_id}"


class FixtureProvider:
    """Answer with the files of a folder.

    Args:
        folder: `CHARTS_FIXTURES_DIR`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def known_failure(self, request: ChartRequest) -> RequestError | None:  # noqa: ARG002 - a provider's
        """Return None: a fixture costs nothing."""
        return None

    def chart(self, request: ChartRequest) -> ChartImage:
        """Return the fixture picture, or raise the fixture error.

        Raises:
            ChartApiMockMissing: There is no fixture that can be read.
            ChartApiFailed: There is an error fixture.
            ChartApiLimitExceeded: There is an error fixture of status 429.
        """
        stem = fixture_stem(request)
        picture = f"{stem}.png"
        try:
            if (self.folder / picture).is_file():
                png = (self.folder / picture).read_bytes()
                return ChartImage(png=png, provider="mock", meta={"fixture": picture})
            self._raise_error_fixture(stem)
        except OSError as error:  # not readable, or a name longer than the file system allows
            raise ChartApiMockMissing(
                f"The fixture {picture} can't be read: {error.strerror}.", fixture=picture
            ) from error
        raise ChartApiMockMissing(f"No fixture {picture} in the fixtures folder.", fixture=picture)

    def _raise_error_fixture(self, stem: str) -> None:
        for path in sorted(self.folder.glob("*.json")):
            is_of_request = path.name.startswith(stem)
            match = ERROR_FIXTURE.fullmatch(path.name.removeprefix(stem)) if is_of_request else None
            if match is not None:
                status = int(match["status"])
                is_limit = status == HTTPStatus.TOO_MANY_REQUESTS
                error = ChartApiLimitExceeded if is_limit else ChartApiFailed
                raise error(
                    f"Chart-IMG answered {status} {match['name']} (fixture {path.name}).",
                    httpStatus=status,
                    body=path.read_text(encoding="utf-8", errors="replace")[:MAX_BODY_CHARS],
                )
