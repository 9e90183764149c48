"""`mock` mode: charts from files, without any network.

A chart is `<SYMBOL>__<timeframe>__<chartTemplateId>.png` in the fixtures folder, where SYMBOL is the request
body's symbol with `:` as `_`. An error is `<the same>__<status>_<NAME>.json`, its content what the API said.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from worker_chart_export.charts.base import ChartImage
from worker_chart_export.errors import ChartApiFailed, ChartApiLimitExceeded, ChartApiMockMissing

if TYPE_CHECKING:
    from pathlib import Path

    from worker_chart_export.charts.base import ChartRequest
    from worker_chart_export.errors import RequestError

ERROR_FIXTURE = re.compile(r"__(?P<status>[0-9]{3})_(?P<name>[A-Za-z0-9_-]+)\.json")
TOO_MANY_REQUESTS = 429


def fixture_stem(request: ChartRequest) -> str:
    """The beginning of the request's fixture file names."""
    symbol = re.sub(r"[:/\x00]", "_", str(request.payload["symbol"]))  # a formula of symbols may hold a slash
    return f"{symbol}__{request.timeframe}__{request.template_id}"


class FixtureProvider:
    """Answers with files of one folder.

    Args:
        folder: `CHARTS_FIXTURES_DIR`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def chart(self, request: ChartRequest) -> ChartImage:
        """The fixture picture, or the fixture error.

        Raises:
            ChartApiMockMissing: There is neither that can be read.
            ChartApiFailed: There is an error fixture.
            ChartApiLimitExceeded: There is an error fixture of status 429.
        """
        stem = fixture_stem(request)
        try:
            return self._answer(stem)
        except OSError as error:  # not readable, or a name longer than the file system takes
            raise ChartApiMockMissing(
                f"The fixture {stem}.png can't be read: {error.strerror}.", fixture=f"{stem}.png"
            ) from error

    def _answer(self, stem: str) -> ChartImage:
        picture = self.folder / f"{stem}.png"
        if picture.is_file():
            return ChartImage(png=picture.read_bytes(), provider="mock", meta={"fixture": picture.name})
        raise self._error(stem) or ChartApiMockMissing(
            f"No fixture {stem}.png in the fixtures folder.", fixture=f"{stem}.png"
        )

    def _error(self, stem: str) -> RequestError | None:
        for path in sorted(self.folder.glob("*.json")):
            match = (
                ERROR_FIXTURE.fullmatch(path.name.removeprefix(stem)) if path.name.startswith(stem) else None
            )
            if match:
                status = int(match["status"])
                kind = ChartApiLimitExceeded if status == TOO_MANY_REQUESTS else ChartApiFailed
                return kind(
                    f"Chart-IMG answered {status} {match['name']} (fixture {path.name}).",
                    httpStatus=status,
                    body=path.read_text(encoding="utf-8", errors="replace")[:500],
                )
        return None
