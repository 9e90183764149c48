"""Report what the embedded cloud refuses as not served: some clients hide the text of such an answer."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

# Together less than a pipe holds (64 KiB): a caller that does not read the lines must not stop the services.
_MAX_LINES = 100
_MAX_LINE_CHARACTERS = 500


class Refusals:
    """Report each kind of refusal in one line. Thread-safe.

    Refusals of one service and method with the same message are of one kind. A kind is reported at its first,
    tenth, hundredth, ... time. After 100 lines nothing more is reported.

    Args:
        report: Takes one line without its end. None = nobody is told.
    """

    def __init__(self, report: Callable[[str], None] | None = None) -> None:
        self._report = report
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, str, str]] = Counter()
        self._lines = 0

    def add(self, service: str, method: str, message: str, *, call: str = "") -> None:
        """Count one refusal, and report it if it is due.

        Args:
            service: The name of the service.
            method: The method or the RPC, as counted in its `calls`.
            message: What is not served, and what to use instead.
            call: How the line names the call; by default the method.
        """
        if self._report is None:
            return
        line = self._due_line(service, method, message, call or method)
        if line:
            with contextlib.suppress(OSError, ValueError):  # the reader has gone: no reason to fail the call
                self._report(line)

    def _due_line(self, service: str, method: str, message: str, call: str) -> str:
        """Return the line to report now; empty for none."""
        kind = (service, method, message)
        with self._lock:
            if self._lines >= _MAX_LINES:
                return ""
            self._counts[kind] += 1
            count = self._counts[kind]
            if str(count).strip("0") != "1":  # neither 1 nor 10, 100, ...
                return ""
            self._lines += 1
            is_last = self._lines == _MAX_LINES
        times = f" ({count} times)" if count > 1 else ""
        end = "; further refusals are not shown" if is_last else ""
        text = f"{service}: {call} refused: {message}"
        shown = text if len(text) <= _MAX_LINE_CHARACTERS else f"{text[: _MAX_LINE_CHARACTERS - 3]}..."
        # What comes from a client could otherwise end the line or control the terminal.
        return "".join(one if one.isprintable() else "?" for one in f"{shown}{times}{end}")
