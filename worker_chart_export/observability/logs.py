"""Structured logs: the list of events, the context that is bound to them, and how lines are written.

With the `json` format each line is one object that Google Cloud Logging understands (`severity`, `message`,
`time`), and everything else that would print (other libraries' loggers, warnings, uncaught errors of any
thread) goes through the same door.
"""

from __future__ import annotations

import logging
import sys
import threading
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import structlog

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from structlog.typing import EventDict, Processor, WrappedLogger

#: Names that every line may carry once they are known.
CONTEXT_NAMES = ("runId", "stepId", "attempt", "messageId", "owner")


class Event(StrEnum):
    """Every event the worker logs under a stable name; dashboards and alerts rely on these."""

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
    """The step is RUNNING without a lease, so another kind of worker claimed it. The daemon adds a lease
    that expires after `UNLEASED_GRACE_SECONDS`.
    """
    CLAIM_ATTEMPT = "claim_attempt"
    """The worker tried to claim the step. Field `claimed` holds the result, and `reason` says why a claim
    was not made.
    """
    LEASE_TAKEN_OVER = "lease_taken_over"
    """The worker took the step over, because the lease of its former owner expired or was released."""
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
    CHART_API_CALL_FINISHED = "chart_api_call_finished"
    """One HTTP call to Chart-IMG ended. Fields `httpStatus`, `outcome` and `durationMs` describe the answer.
    """
    CHART_API_LIMIT_EXCEEDED = "chart_api_limit_exceeded"
    """A Chart-IMG account has no calls left for today (UTC)."""
    CHART_API_KEY_REFUSED = "chart_api_key_refused"
    """Chart-IMG refused the key of an account. This process does not use the account any more."""
    QUOTA_WINDOW_AHEAD = "quota_window_ahead"
    """The usage document of an account counts for a day in the future and must be corrected by hand."""
    CHART_FALLBACK = "chart_fallback"
    """No Chart-IMG account can make the chart, so the local renderer drew it."""
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
    """The stream to Pub/Sub ended or was silent for too long. The daemon opens a new one, unless Pub/Sub
    refuses the subscription.
    """
    INTAKE_PAUSED = "intake_paused"
    """One backend failed several times in a row, so the worker starts no new work until it answers."""
    INTAKE_RESUMED = "intake_resumed"
    """All backends answer again, and the worker starts new work."""
    DRAIN_STARTED = "drain_started"
    """The daemon stops: it takes no new messages and lets running steps finish."""
    DAEMON_STOPPED = "daemon_stopped"
    """The daemon ends. Field `exitCode` holds its exit code."""
    LIVENESS_LOST = "liveness_lost"
    """A loop of the daemon does not respond, so the daemon no longer feeds the systemd watchdog."""
    NOTIFY_FAILED = "notify_failed"
    """A notification to systemd could not be sent."""
    SETTINGS_INVALID = "settings_invalid"
    """A setting is missing or wrong. There is one line for each of them."""
    INTERNAL_ERROR = "internal_error"
    """An error that the worker does not expect, with its traceback. Report it as a bug."""
    LIBRARY = "library"
    """A log line of another library."""


class Logger:
    """Logs events. `log.info(Event.X, "a sentence", key=value)`. Never raises."""

    def __init__(self) -> None:
        self._log: structlog.typing.FilteringBoundLogger = structlog.get_logger()

    def debug(self, event: Event, message: str, **fields: Any) -> None:
        """Of use when looking for something."""
        with _no_error():
            self._log.debug(message, event_name=event.value, **fields)

    def info(self, event: Event, message: str, **fields: Any) -> None:
        """What the worker does in the normal course of things."""
        with _no_error():
            self._log.info(message, event_name=event.value, **fields)

    def warning(self, event: Event, message: str, **fields: Any) -> None:
        """Something an operator may want to look at."""
        with _no_error():
            self._log.warning(message, event_name=event.value, **fields)

    def error(self, event: Event, message: str, *, exc_info: Any = None, **fields: Any) -> None:
        """Something an operator has to look at."""
        with _no_error():
            self._log.error(message, event_name=event.value, exc_info=exc_info, **fields)


class _no_error:  # noqa: N801 - reads as a word; a generator would cost as much as the line
    """What is wrong with a line of ours becomes a line."""

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> bool:
        if isinstance(error, Exception):
            _tell_of_unwritten("worker_chart_export", error)
        return isinstance(error, Exception)


log = Logger()


@contextmanager
def bound(**context: str | int | None) -> Iterator[None]:
    """Bind `runId`, `stepId`, `messageId` ... to every line this thread logs inside the block."""
    with structlog.contextvars.bound_contextvars(**{k: v for k, v in context.items() if v is not None}):
        yield


@contextmanager
def logging_of(**context: str | int | None) -> Iterator[None]:
    """The same for work whose names become known bit by bit: what `bind` adds ends with the block."""
    before = structlog.contextvars.get_contextvars()
    bind(**context)
    try:
        yield
    finally:
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(**before)


def bind(**context: str | int | None) -> None:
    """Bind names from now on, until the `logging_of` around ends."""
    structlog.contextvars.bind_contextvars(**{k: v for k, v in context.items() if v is not None})


def configure(*, level: str, log_format: str, stream: Any = None) -> None:
    """Set up logging for the whole process.

    Args:
        level: A name of the standard library's levels, e.g. `INFO`.
        log_format: `json` or `console`.
        stream: Where lines go; standard output when None.
    """
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        _name_the_event,
        structlog.processors.format_exc_info if log_format == "json" else _keep_exception,
    ]
    door, rendering = _OneDoor(stream or sys.stdout), _rendering(log_format)
    structlog.configure(
        processors=[structlog.processors.add_log_level, *shared, *rendering],
        # Straight through the door: the standard library's way takes as long again as all the rest of a line.
        logger_factory=lambda *_names: _Lines(door),
        wrapper_class=structlog.make_filtering_bound_logger(level),
    )
    _lead_libraries(level, door, shared, rendering)
    _catch_everything()


def _lead_libraries(
    level: str, door: _OneDoor, prepared: list[Processor], rendering: list[Processor]
) -> None:
    """The standard library's loggers write the same lines through the same door."""
    door.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=prepared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [door]
    root.setLevel(level)
    _quieten_libraries(level)


class _OneDoor(logging.StreamHandler[Any]):
    """Writes lines. One that can't be made becomes a line about that, where the base class would print."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the base class's name
        """Log what is wrong with the line."""
        error = sys.exception()
        if record.name != __name__ and error is not None:
            _tell_of_unwritten(record.name, error)

    def write(self, line: str) -> None:
        """Write a line that is made; under this lock a destructor's own line may be written in between."""
        self.acquire()
        try:
            self.stream.write(f"{line}\n")
            self.flush()
        finally:
            self.release()


class _Lines:
    """What structlog hands our lines to."""

    def __init__(self, door: _OneDoor) -> None:
        self.debug = self.info = self.warning = self.error = door.write


def _tell_of_unwritten(whose: str, error: BaseException) -> None:
    """Unless it is the stream that is gone."""
    if not isinstance(error, OSError):
        logging.getLogger(__name__).error("A line of %s can't be written: %r", whose, error)


def _rendering(log_format: str) -> list[Processor]:
    if log_format == "json":
        return [_google_fields, structlog.processors.JSONRenderer(default=str)]
    console = structlog.dev.ConsoleRenderer(
        colors=sys.stdout.isatty(),
        timestamp_key="time",
        # The default shows the local variables of every frame, keys among them.
        exception_formatter=structlog.dev.plain_traceback,
    )
    return [_console_fields, console]


def _name_the_event(_logger: WrappedLogger, _method: str, fields: EventDict) -> EventDict:
    """Our own lines carry `event` and `message`; a library's line becomes event `library`."""
    fields["message"] = fields.pop("event")
    fields["event"] = fields.pop("event_name", Event.LIBRARY.value)
    return fields


def _keep_exception(_logger: WrappedLogger, _method: str, fields: EventDict) -> EventDict:
    return fields


def _google_fields(_logger: WrappedLogger, method: str, fields: EventDict) -> EventDict:
    level = str(fields.pop("level", method)).upper()
    ours = {"severity": level, "message": fields.pop("message"), "time": fields.pop("time")}
    ours["event"] = fields.pop("event")
    known = {name: fields.pop(name) for name in CONTEXT_NAMES if name in fields}
    return ours | known | {name: value for name, value in fields.items() if value is not None}


def _console_fields(_logger: WrappedLogger, _method: str, fields: EventDict) -> EventDict:
    """The console renderer prints `event` first and wants the sentence there."""
    name = fields.pop("event")
    fields["event"] = f"{name}: {fields.pop('message')}"
    return fields


def _quieten_libraries(level: str) -> None:
    """Other libraries' debug and info lines are noise unless somebody asked for DEBUG."""
    floor = logging.DEBUG if level == "DEBUG" else logging.WARNING
    for name in ("google", "grpc", "urllib3", "PIL", "opentelemetry"):
        logging.getLogger(name).setLevel(floor)
    # It prints headers that can't be parsed, and a server may quote a key there.
    logging.getLogger("urllib3.connection").setLevel(logging.ERROR)
    # They quote what a publisher put into `tracestate`, and headers that can't be parsed, a token among them.
    for name in ("opentelemetry.trace.span", "opentelemetry.trace.propagation", "opentelemetry.util.re"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # Google's clients cut their loggers off the root when they are imported; Python would then print.
    logging.getLogger("google").propagate = True


def _catch_everything() -> None:
    """Warnings and uncaught errors, of this thread or another, become log lines."""
    logging.captureWarnings(capture=True)
    sys.excepthook = _log_uncaught
    sys.unraisablehook = _log_unraisable
    threading.excepthook = _log_uncaught_in_thread


def _log_uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    if not issubclass(args.exc_type, SystemExit):  # the way to end a thread
        _log_uncaught(args.exc_type, args.exc_value or args.exc_type(), args.exc_traceback)


def _log_unraisable(unraisable: sys.UnraisableHookArgs) -> None:
    """An error in a destructor, which Python would print."""
    kind = unraisable.exc_type
    _log_uncaught(kind, unraisable.exc_value or kind(), unraisable.exc_traceback)


def _log_uncaught(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    log.error(Event.INTERNAL_ERROR, f"Uncaught {kind.__name__}", exc_info=(kind, error, traceback))
