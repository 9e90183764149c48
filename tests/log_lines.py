"""Log lines as the daemon writes them, for tests that go by them."""

from __future__ import annotations

import io
import json
import logging
import sys
import threading
import warnings
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from worker_chart_export import logs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def log_lines() -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """Configures logging as the daemon does; call it for the lines so far, parsed. Undone afterwards."""
    root = logging.getLogger()
    before = (root.handlers[:], root.level, sys.excepthook, sys.unraisablehook, threading.excepthook)
    show_warning, before_google = warnings.showwarning, logging.getLogger("google").propagate
    stream = io.StringIO()
    logs.configure(level="INFO", log_format="json", stream=stream)
    with logs.logging_of():
        structlog.contextvars.clear_contextvars()  # what an earlier test of this thread has bound
        yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    structlog.reset_defaults()
    logging.captureWarnings(capture=False)
    warnings.showwarning = show_warning
    root.handlers[:], level, sys.excepthook, sys.unraisablehook, threading.excepthook = before
    root.setLevel(level)
    logging.getLogger("google").propagate = before_google
