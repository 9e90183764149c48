"""Log lines for people: time, level, event, message and fields, in columns, with colours on a terminal."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, TextIO

from structlog import dev

from worker_chart_export.errors import visible
from worker_chart_export.timing import rfc3339

if TYPE_CHECKING:
    from collections.abc import Collection

    from structlog.typing import EventDict, ExcInfo, WrappedLogger

#: The widths of columns. A longer event moves the rest of its line.
LEVEL_WIDTH, EVENT_WIDTH = 8, 18
LEVEL_STYLES = {"DEBUG": dev.DIM, "INFO": dev.GREEN, "WARNING": dev.YELLOW + dev.BRIGHT}
FAILURE_STYLE = dev.RED + dev.BRIGHT
#: A shorter text of a field is no repetition of the message, even if the message contains it.
LEAST_REPETITION = 12


#: Not shown at level INFO in lines that name a run: the same in most of its lines, and long.
LESS_NEEDED = {"messageId", "owner", "flowKey"}


class ConsoleLines:
    """A processor that makes a line of a record's fields.

    The fields `level`, `time`, `event_name` and `event` (the message) come first, then the others, at the end
    those that many lines share. Fields of None are left out, and so are texts that the message contains, and
    at level INFO what is the same in most lines of a run.

    Args:
        last: The names of the fields that come last.
        has_colours: Use colours.
        on_terminal: Show the time without its date.
    """

    def __init__(self, *, last: Collection[str], has_colours: bool, on_terminal: bool) -> None:
        self._last = last
        self._has_colours = has_colours
        self._on_terminal = on_terminal
        self._render = dev.ConsoleRenderer(
            columns=[
                dev.Column("time", self._column(dev.DIM)),
                dev.Column("level", self._level),
                dev.Column("event_name", self._column(dev.CYAN, width=EVENT_WIDTH)),
                dev.Column("event", self._column(dev.BRIGHT)),
                dev.Column("", self._column("", key_style=dev.DIM)),
            ],
            sort_keys=False,
            exception_formatter=_write_traceback,
        )

    def __call__(self, logger: WrappedLogger, method: str, fields: EventDict) -> str:
        """Return the line, with the traceback of an exception below it."""
        time = f"{str(fields.pop('time'))[:-4]}Z"  # milliseconds
        message = visible(fields.pop("event"))
        arranged: dict[str, Any] = {
            "time": time[11:-1] if self._on_terminal else time,
            "level": str(fields.pop("level", method)).upper(),
            "event_name": fields.pop("event_name"),
            "event": message,
        }
        kept = {name: fields.pop(name) for name in ("exc_info", "exception", "stack") if name in fields}
        shared = {name: fields.pop(name) for name in self._last if name in fields}
        if arranged["level"] == "INFO" and "runId" in shared:
            shared = {name: value for name, value in shared.items() if name not in LESS_NEEDED}
        own = {name: value_text(value) for name, value in fields.items() if not _is_in(message, value)}
        arranged |= {visible(name): text for name, text in own.items() if text}
        arranged |= {name: text for name, value in shared.items() if (text := value_text(value))}
        return self._render(logger, method, arranged | kept)

    def _column(
        self, value_style: str, *, key_style: str | None = None, width: int = 0
    ) -> dev.KeyValueColumnFormatter:
        def style(code: str) -> str:
            return code if self._has_colours else ""

        return dev.KeyValueColumnFormatter(
            key_style=None if key_style is None else style(key_style),
            value_style=style(value_style),
            reset_style=style(dev.RESET_ALL),
            value_repr=str,
            width=width,
        )

    def _level(self, key: str, value: object) -> str:
        style = LEVEL_STYLES.get(str(value), FAILURE_STYLE)
        return self._column(style, width=LEVEL_WIDTH)(key, value)


def wants_colours(stream: TextIO, environment: Mapping[str, str]) -> bool:
    """Return whether lines get colours: on a terminal, unless `NO_COLOR` or `FORCE_COLOR` says otherwise."""
    if environment.get("NO_COLOR"):
        return False
    if environment.get("FORCE_COLOR", "") not in ("", "0"):
        return True
    return stream.isatty() and environment.get("TERM") != "dumb"


def value_text(value: object) -> str:
    """Return a field's value in one line without control characters; empty for None."""
    match value:
        case None:
            return ""
        case str():
            text = value if value and not set(value) & set(' "=') else json.dumps(value, ensure_ascii=False)
        case float():
            text = f"{value:.3f}".rstrip("0").rstrip(".")
        case datetime():
            text = rfc3339(value)
        case bool() | Mapping() | list() | tuple():
            text = json.dumps(value, ensure_ascii=False, default=str)
        case _:
            text = str(value)
    return visible(text)


def _is_in(message: str, value: object) -> bool:
    """Return whether the message has the text of a field."""
    text = visible(value)
    return len(text) >= LEAST_REPETITION and text in message


def _write_traceback(output: TextIO, exc_info: ExcInfo) -> None:
    """Write a traceback. The default shows the local variables, keys among them."""
    text = io.StringIO()
    dev.plain_traceback(text, exc_info)
    output.write("\n".join(visible(line) for line in text.getvalue().split("\n")))
