"""Structured logs: the events, the names that are bound to lines, and the format of lines.

With the format `json` each line is one JSON object that Google Cloud Logging understands (`severity`,
`message`, `time`). Lines of other libraries, warnings and uncaught errors have the same format.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import structlog

from worker_chart_export.observability.console import ConsoleLines, wants_colours
from worker_chart_export.timing import rfc3339

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from structlog.typing import EventDict, Processor, WrappedLogger

#: A logger of the standard library. Users of the package as a library have one of their own.
StandardLogger = logging.Logger | logging.LoggerAdapter[Any]
#: Where lines go in place of the process's own log.
_standard_logger: ContextVar[StandardLogger | None] = ContextVar("standard_logger", default=None)
#: The names that are bound to lines. The mappings are shared and never changed.
bound_names: ContextVar[dict[str, str | int]] = ContextVar("log_context", default={})  # noqa: B039 - never changed
#: The names that are bound to the lines of a step. The console shows them last.
CONTEXT_NAMES = ("runId", "stepId", "attempt", "messageId", "owner", "flowKey")


class Event(StrEnum):
    """All events of the log. The names are stable, for dashboards and alerts."""

    DAEMON_STARTED = "daemon_started"
    """The first stream is open, and the daemon now receives messages. Field `healthPort` holds the port of
    the health server.
    """
    MESSAGE_RECEIVED = "message_received"
    """A message was delivered and names a run or a step."""
    MESSAGE_REJECTED = "message_rejected"
    """The message can't be understood, or its step did not become READY in time. Fields `reason` and
    `detail` say why.
    """
    MESSAGE_IGNORED = "message_ignored"
    """The message is valid but not meant for this worker, for example another type of event, document or
    step.
    """
    MESSAGE_SETTLED = "message_settled"
    """The delivery ended. Field `disposition` is `ack`, `nack` or `defer`, and `reason` says why."""
    STEP_NOOP = "step_noop"
    """There is nothing to do for the step. Field `reason` says why, for example `final` or `duplicate`."""
    STEP_NOT_READY = "step_not_ready"
    """The run or the step is missing, or the step is still PENDING."""
    DEPENDS_ON_BLOCKED = "depends_on_blocked"
    """The step is READY, but a step that it depends on has not SUCCEEDED yet."""
    STEP_UNLEASED = "step_unleased"
    """The step is RUNNING without a lease: another kind of worker claimed it, or its result was overwritten.
    With a manifest in the bucket the daemon finalizes it. If not, it adds a lease that expires after
    `UNLEASED_GRACE_SECONDS`.
    """
    CLAIM_ATTEMPT = "claim_attempt"
    """The worker tried to claim the step. Field `claimed` holds the result, and `reason` says why a claim
    was not made. `retriedBy` is the operator who made the step READY again.
    """
    LEASE_TAKEN_OVER = "lease_taken_over"
    """The worker took the step over, because the lease of its former owner expired or was released. Field
    `releasedBy` is the operator who released it, if one did.
    """
    LEASE_RELEASED = "lease_released"
    """The worker stopped before the step was finished and released its lease, so that another worker can
    continue.
    """
    LEASE_LOST = "lease_lost"
    """The worker stopped the step, because its lease expired, was taken over, or the step is no longer
    RUNNING.
    """
    LEASE_DELETED = "lease_deleted"
    """The rescue deleted the lease of a step that is not RUNNING any more."""
    LEASE_STRANDED = "lease_stranded"
    """The rescue failed on one expired lease. The next rescue tries it again."""
    INDEX_MISSING = "index_missing"
    """The Firestore index that finds expired leases is missing. Logged once for each process."""
    OPERATOR_ACTION = "operator_action"
    """A command has changed something. Fields `command` and `operator` (user@host) say what and who."""
    CHART_API_CALL_FINISHED = "chart_api_call_finished"
    """One HTTP call to Chart-IMG ended. Fields `httpStatus`, `outcome` and `durationMs` describe the answer.
    """
    CHART_API_LIMIT_EXCEEDED = "chart_api_limit_exceeded"
    """A Chart-IMG account has no calls left for today (UTC)."""
    CHART_API_KEY_REFUSED = "chart_api_key_refused"
    """Chart-IMG refused the key of an account, or the account is not paid (402). It is tried again with one
    call after `delaySeconds`: a minute at first, twice as long after each further refusal, at most an hour.
    """
    CHART_API_KEY_REPLACED = "chart_api_key_replaced"
    """The accounts file has a new key for an account whose key was refused. It is used from now on."""
    QUOTA_WINDOW_AHEAD = "quota_window_ahead"
    """The usage document of an account counts for a day in the future and must be corrected by hand."""
    CHART_FALLBACK = "chart_fallback"
    """No Chart-IMG account can make the chart, so the local renderer drew it."""
    RENDERER_ENDED = "renderer_ended"
    """A renderer process ended while it drew a chart or read candles, or took too long and was ended. The
    work is tried once more, in another process. Field `attempt` is 1, or 2 when it then fails.
    """
    FIXTURE_SAVED = "fixture_saved"
    """Mode `record` saved a new chart as a fixture."""
    FIXTURE_NOT_SAVED = "fixture_not_saved"
    """Mode `record` could not write a fixture to the disk."""
    CHART_STORED = "chart_stored"
    """A chart was made and uploaded."""
    CHART_REUSED = "chart_reused"
    """An earlier attempt already stored this chart, so it was not made again."""
    CHART_FAILED = "chart_failed"
    """A requested chart failed. Fields `code` and `details` say why."""
    CHARTS_NOT_MADE = "charts_not_made"
    """After other failures `minImages` is out of reach, so the remaining charts of the step were not made.
    Field `charts` is their number, `code` that of the first failure."""
    TEMPLATE_WARNING = "template_warning"
    """A chart template holds something unusual, for example an unknown key. The chart is made anyway."""
    MANIFEST_WRITTEN = "manifest_written"
    """The manifest of the step was written."""
    STEP_COMPLETED = "step_completed"
    """The step is final. Field `status` is `SUCCEEDED` or `FAILED`, and `code` holds the error code."""
    FINALIZE_REFUSED = "finalize_refused"
    """The result of the step was not written, because the step no longer belongs to this worker. Field
    `reason` says why.
    """
    BACKEND_UNAVAILABLE = "backend_unavailable"
    """A backend did not answer, or answered with an error that usually passes."""
    BACKEND_REFUSED = "backend_refused"
    """A backend refused a call, for example because of a missing role. Waiting does not help."""
    STREAM_OPENING = "stream_opening"
    """The daemon opens a stream to Pub/Sub."""
    STREAM_REOPENED = "stream_reopened"
    """A stream is open again after an earlier one ended."""
    STREAM_ENDED = "stream_ended"
    """The stream to Pub/Sub ended, was silent for too long, or was closed because of a long pause. The daemon
    opens a new one, after the pause, unless Pub/Sub refuses the subscription.
    """
    INTAKE_PAUSED = "intake_paused"
    """The worker starts no new work, for example because a backend failed several times in a row or an
    operator paused the fleet (field `backend` is `operator`). Field `reason` says why. Messages wait
    in Pub/Sub until the worker goes on.
    """
    INTAKE_RESUMED = "intake_resumed"
    """No reason for a pause is left, and the worker starts new work."""
    DRAIN_STARTED = "drain_started"
    """The daemon stops: it takes no new messages and lets running steps finish."""
    DAEMON_STOPPED = "daemon_stopped"
    """The daemon ends. Field `exitCode` holds its exit code."""
    LIVENESS_LOST = "liveness_lost"
    """A loop of the daemon does not respond, so the daemon sends no more keep-alives to systemd."""
    NOTIFY_FAILED = "notify_failed"
    """A notification to systemd could not be sent."""
    SETTINGS_INVALID = "settings_invalid"
    """A setting is missing or wrong. There is one line for each of them."""
    SETTING_MISSPELT = "setting_misspelt"
    """The name of a variable is nearly that of a setting. The variable has no effect."""
    LOG_LINES_DROPPED = "log_lines_dropped"
    """Log lines were dropped, because the reader of the output stalled. Field `lines` says how many."""
    INTERNAL_ERROR = "internal_error"
    """An error that the worker does not expect, with its traceback. Report it as a bug."""
    LIBRARY = "library"
    """A log line of another library."""


class Logger:
    """Logs events. `log.info(Event.X, "a sentence", key=value)`. Never raises.

    Attributes:
        logger: The logger of structlog. One that is bound is not bound anew for each line. It does not follow
            later changes of structlog's configuration.
    """

    def __init__(self) -> None:
        self.logger: structlog.typing.FilteringBoundLogger = structlog.get_logger()

    def debug(self, event: Event, message: str, **fields: Any) -> None:
        """Log a detail for debugging."""
        self._write(logging.DEBUG, event, message, fields)

    def info(self, event: Event, message: str, **fields: Any) -> None:
        """Log normal work."""
        self._write(logging.INFO, event, message, fields)

    def warning(self, event: Event, message: str, **fields: Any) -> None:
        """Log a state that an operator may want to look at."""
        self._write(logging.WARNING, event, message, fields)

    def error(self, event: Event, message: str, **fields: Any) -> None:
        """Log a state that an operator has to look at. Pass an exception as `exc_info`."""
        self._write(logging.ERROR, event, message, fields)

    def _write(self, level: int, event: Event, message: str, fields: dict[str, Any]) -> None:
        standard_logger = _standard_logger.get()
        try:
            if standard_logger is not None:
                _log_to(standard_logger, level, event, message, fields)
            else:
                self.logger.log(level, message, event_name=event.value, **fields)
        except Exception as error:  # noqa: BLE001 - a line that can't be written stops no work
            _log_unwritten("worker_chart_export", error)


log = Logger()
#: `json.dumps` with a default would make an encoder for each line.
_encode = json.JSONEncoder(default=str).encode


@contextmanager
def logged_to(logger: StandardLogger) -> Iterator[None]:
    """Send the lines of this context to a logger of the standard library until the block ends."""
    token = _standard_logger.set(logger)
    try:
        yield
    finally:
        _standard_logger.reset(token)


def _log_to(logger: StandardLogger, level: int, event: Event, message: str, fields: dict[str, Any]) -> None:
    """Log a line whose text holds all fields. Its record has them also as attributes `event` and `fields`."""
    if not logger.isEnabledFor(level):
        return
    exc_info = fields.pop("exc_info", None)
    fields = bound_names.get() | fields
    fields = {name: value for name, value in fields.items() if value is not None}
    text = " ".join(f"{name}={value}" for name, value in fields.items())
    extra = {"event": event.value, "fields": fields}
    logger.log(level, "%s (%s)", message, text, exc_info=exc_info, extra=extra)


@contextmanager
def bound(**context: str | int | None) -> Iterator[None]:
    """Add `runId`, `stepId`, `messageId` ... to each line that this thread logs inside the block.

    Values of None are left out. Names that `bind` adds inside the block end with the block too.
    """
    token = bound_names.set(bound_names.get())
    bind(**context)
    try:
        yield
    finally:
        bound_names.reset(token)


def bind(**context: str | int | None) -> None:
    """Add names to each line from now on, until the `bound` block around this call ends."""
    bound_names.set(bound_names.get() | {name: value for name, value in context.items() if value is not None})


def configure(*, level: str, log_format: str, stream: Any = None) -> None:
    """Set up logging for the whole process.

    Lines of the standard library's loggers, warnings and uncaught errors are written in the same format.

    Args:
        level: The name of a level of the standard library, e.g. `INFO`.
        log_format: `json` or `console`.
        stream: The stream for the lines; standard output when None.
    """
    output = stream or sys.stdout
    handler = _LineHandler(output)
    rendering: list[Processor] = [_google_line]
    if log_format != "json":
        console = ConsoleLines(
            last=CONTEXT_NAMES,
            has_colours=wants_colours(output, os.environ),
            on_terminal=output.isatty(),
        )
        rendering = [with_context, _console_fields, console]
    structlog.configure(
        processors=rendering,
        # Our lines go directly to the handler. The standard library's loggers would take twice as long.
        logger_factory=lambda *_names: handler,
        wrapper_class=structlog.make_filtering_bound_logger(level),
    )
    log.logger = structlog.get_logger().bind()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    _configure_libraries(level, handler)


class _LineHandler(logging.StreamHandler[Any]):
    """Writes all lines, those of structlog (`info` and so on) and those of the standard library.

    A record that can't be formatted becomes a line that says so. The base class would print a traceback.
    """

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        #: A lock that is held during a write makes all threads wait for each other. It is reentrant: a
        #: destructor may log while its thread writes.
        is_shared = getattr(stream, "is_shared_by_threads", False)
        self._write_lock: Any = nullcontext() if is_shared else self.lock

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the base class's name
        """Log why the record can't be written."""
        error = sys.exception()
        if record.name != __name__ and error is not None:
            _log_unwritten(record.name, error)

    def write(self, line: str) -> None:
        """Write a finished line."""
        with self._write_lock:
            self.stream.write(f"{line}\n")
            self.stream.flush()

    debug = info = warning = error = write


def _log_unwritten(logger: str, error: BaseException) -> None:
    """Log that a line was not written, unless the stream itself has failed."""
    if not isinstance(error, OSError):
        logging.getLogger(__name__).error("A line of %s can't be written: %r", logger, error)


def with_context(_logger: WrappedLogger, _method: str, fields: EventDict) -> EventDict:
    """Add the names that are bound."""
    return {**bound_names.get(), **fields}


def _google_line(logger: WrappedLogger, method: str, fields: EventDict) -> str:
    """Render a line with the names that Google Cloud Logging expects. Lines of libraries are `library`.

    It is one processor, because structlog calls each by itself, for each line.
    """
    if "exc_info" in fields:
        fields = structlog.processors.format_exc_info(logger, method, fields)
    line = {
        "severity": method.upper(),
        "message": fields.pop("event"),
        "time": rfc3339(datetime.now(UTC)),
        "event": fields.pop("event_name", Event.LIBRARY.value),
        **bound_names.get(),
        **fields,
    }
    return _encode({name: value for name, value in line.items() if value is not None})


def _console_fields(_logger: WrappedLogger, _method: str, fields: EventDict) -> EventDict:
    """Add the time. Give lines of libraries the event `library`."""
    fields.setdefault("event_name", Event.LIBRARY.value)
    fields["time"] = rfc3339(datetime.now(UTC))
    return fields


def _configure_libraries(level: str, handler: logging.Handler) -> None:
    """Send the lines of all libraries, warnings and uncaught errors to the handler."""
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # Google's clients would give the logger that this variable names a format and an output of its own.
    scope = os.environ.get("GOOGLE_SDK_PYTHON_LOGGING_SCOPE") or "google"
    for name in ("google", scope, "grpc", "urllib3", "PIL", "opentelemetry"):
        logging.getLogger(name).setLevel(logging.DEBUG if level == "DEBUG" else logging.WARNING)
    # These log header lines that they can't parse, or a publisher's `tracestate`: a key may be among them.
    for name in (
        *("urllib3.connection", "opentelemetry.trace.span", "opentelemetry.trace.propagation"),
        "opentelemetry.util.re",
    ):
        logging.getLogger(name).setLevel(logging.ERROR)
    # Google's clients disconnect this logger from the root when they are imported. Python would then print.
    logging.getLogger("google").propagate = True
    logging.captureWarnings(capture=True)
    sys.excepthook = _log_uncaught
    sys.unraisablehook = _log_hooked
    threading.excepthook = _log_hooked


def _log_hooked(args: threading.ExceptHookArgs | sys.UnraisableHookArgs) -> None:
    """Log an uncaught error of a thread or of a destructor. Python would print it."""
    _log_uncaught(args.exc_type, args.exc_value, args.exc_traceback)


def _log_uncaught(
    kind: type[BaseException], error: BaseException | None, traceback: TracebackType | None
) -> None:
    if not issubclass(kind, SystemExit):  # a normal way to end a thread
        exc_info = (kind, error or kind(), traceback)
        log.error(Event.INTERNAL_ERROR, f"Uncaught {kind.__name__}", exc_info=exc_info)
