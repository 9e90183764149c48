"""The daemon's log lines for tests."""

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

from worker_chart_export.observability import logs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(scope="session", autouse=True)
def _plain_log_lines() -> None:
    """Use plain tracebacks, because structlog's own ones take seconds."""
    console = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[logs.with_context, console])


@pytest.fixture
def log_lines() -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """Configure logging as the daemon does; return a function that returns the parsed lines so far."""
    root = logging.getLogger()
    before = (root.handlers[:], root.level, sys.excepthook, sys.unraisablehook, threading.excepthook)
    show_warning, before_google = warnings.showwarning, logging.getLogger("google").propagate
    before_structlog = structlog.get_config()
    stream = io.StringIO()
    logs.configure(level="INFO", log_format="json", stream=stream)
    before_names = logs.bound_names.set({})  # without the names that an earlier test of this thread has bound
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    logs.bound_names.reset(before_names)
    structlog.configure(**before_structlog)
    logs.log.logger = structlog.get_logger()
    logging.captureWarnings(capture=False)
    warnings.showwarning = show_warning
    root.handlers[:], level, sys.excepthook, sys.unraisablehook, threading.excepthook = before
    root.setLevel(level)
    logging.getLogger("google").propagate = before_google
