"""Log lines are JSON for Google Cloud Logging, and all output goes through one logger."""

from __future__ import annotations

import gc
import io
import json
import logging
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from worker_chart_export.observability import logs
from worker_chart_export.observability.logs import Event, bind, bound, log

CONTRACT_EVENTS = {
    "daemon_started",
    "message_received",
    "message_rejected",
    "message_ignored",
    "message_settled",
    "step_noop",
    "step_not_ready",
    "depends_on_blocked",
    "claim_attempt",
    "chart_api_call_finished",
    "chart_api_limit_exceeded",
    "manifest_written",
    "step_completed",
    "finalize_refused",
    "drain_started",
    "daemon_stopped",
}


def test_lines_of_a_library_s_user_go_to_the_user_s_logger(log_lines, caplog):
    """In a context with a logger of the standard library its records hold message, event and fields."""
    logger = logging.getLogger("reports")
    with caplog.at_level(logging.INFO, "reports"), logs.logged_to(logger), bound(runId="r", stepId=None):
        log.info(Event.CLAIM_ATTEMPT, "Claimed %s", attempt=1, reason=None)
        log.debug(Event.CLAIM_ATTEMPT, "too detailed")
        log.error(Event.INTERNAL_ERROR, "Broken", exc_info=KeyError("x"))
    info, error = caplog.records
    assert (info.name, info.levelname) == ("reports", "INFO")
    assert info.getMessage() == "Claimed %s (runId=r attempt=1)"
    assert (info.event, info.fields) == ("claim_attempt", {"runId": "r", "attempt": 1})
    assert error.exc_info[0] is KeyError
    log.info(Event.CLAIM_ATTEMPT, "Claimed")
    assert [line["message"] for line in log_lines()][-1] == "Claimed"
    assert len(caplog.records) == 2


@pytest.mark.parametrize("name", sorted(CONTRACT_EVENTS))
def test_events_have_the_contract_s_names(name):
    """The events have the contract's names, because dashboards use them."""
    assert name in set(Event)


@pytest.mark.parametrize(
    ("method", "severity"), [("info", "INFO"), ("warning", "WARNING"), ("error", "ERROR")]
)
def test_a_line_has_the_fields_of_cloud_logging(log_lines, method, severity):
    """A line has severity, message, UTC time, event and the given fields."""
    getattr(log, method)(Event.STEP_NOOP, "a sentence", reason="final", nothing=None, runId=None)
    (line,) = log_lines()
    assert datetime.fromisoformat(line.pop("time")).tzinfo == UTC
    assert line == {"severity": severity, "message": "a sentence", "event": "step_noop", "reason": "final"}


def test_names_that_become_known_end_with_the_work_they_are_of(log_lines):
    """Ids bound during a task are removed after it, because its thread is reused."""
    with bound(owner="me"):
        with bound(messageId="1", owner=None):
            bind(runId="a", stepId=None)
            log.info(Event.STEP_NOOP, "inside")
        log.info(Event.STEP_NOOP, "after")
    inside, after = log_lines()
    names = {"owner", "messageId", "runId", "stepId"}
    assert {name: inside[name] for name in names & set(inside)} == {
        "owner": "me",
        "messageId": "1",
        "runId": "a",
    }
    assert {name: after[name] for name in names & set(after)} == {"owner": "me"}


def test_debug_lines_are_left_out_at_info(log_lines):
    """At level INFO no debug line is written."""
    log.debug(Event.STREAM_OPENING, "detail")
    assert log_lines() == []


def test_bound_context_is_on_every_line_of_the_block(log_lines):
    """Bound context is on every line of its block; inner values replace outer ones, None adds nothing."""
    with bound(messageId="m", runId="r", stepId=None):
        log.info(Event.STEP_NOOP, "one")
        with bound(runId="inner"):
            log.info(Event.STEP_NOOP, "two")
        log.info(Event.STEP_NOOP, "three")
    log.info(Event.STEP_NOOP, "four")
    seen = [(line.get("messageId"), line.get("runId"), line.get("stepId")) for line in log_lines()]
    assert seen == [("m", "r", None), ("m", "inner", None), ("m", "r", None), (None, None, None)]


def test_bound_context_is_a_thread_s_own(log_lines):
    """Bound context belongs to one thread."""
    both = threading.Barrier(2)

    def work(name: str) -> None:
        with bound(messageId=name):
            both.wait(5)
            log.info(Event.STEP_NOOP, name)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work, ["a", "b"]))
    assert sorted((line["message"], line["messageId"]) for line in log_lines()) == [("a", "a"), ("b", "b")]


def test_an_error_brings_its_trace_in_the_line(log_lines):
    """An error's trace is in its line, as text on one line."""
    log.error(Event.INTERNAL_ERROR, "it failed", exc_info=RuntimeError("deep"))
    (line,) = log_lines()
    assert "RuntimeError: deep" in line["exception"]


@pytest.mark.parametrize(
    "value", [{1, 2}, b"\xff", datetime(2025, 1, 1, tzinfo=UTC), object(), "\ud800", 10**400]
)
def test_any_value_can_be_logged(log_lines, value):
    """Any value is logged as valid JSON, as text if necessary."""
    log.info(Event.STEP_NOOP, "a sentence", value=value)
    assert "value" in log_lines()[0]


def test_a_line_that_can_t_be_written_raises_nothing(log_lines, capfd):
    """When a line can't be written, a line about this error is written, and no exception is raised."""

    class Mute:
        def __str__(self):
            raise RuntimeError("no text")

    log.info(Event.STEP_NOOP, "a sentence", value=Mute())
    (line,) = log_lines()
    assert line["message"].startswith("A line of worker_chart_export can't be written: RuntimeError")
    assert capfd.readouterr().err == ""


def test_a_library_s_warning_is_logged(log_lines):
    """A library's warning is logged with its severity as the event `library`."""
    logging.getLogger("google.cloud.pubsub_v1").warning("lost %s", "something")
    (line,) = log_lines()
    assert (line["severity"], line["event"], line["message"]) == ("WARNING", "library", "lost something")


def test_google_s_loggers_are_joined_to_the_root_again(log_lines, capfd):
    """Google's loggers, which its clients detach on import, are attached to the root logger again."""
    stream = io.StringIO()
    logging.getLogger("google").propagate = False
    logs.configure(level="INFO", log_format="json", stream=stream)
    logging.getLogger("google.cloud.pubsub_v1").warning("lost")
    assert json.loads(stream.getvalue())["message"] == "lost"
    assert (capfd.readouterr().err, log_lines()) == ("", [])


def test_a_library_s_trace_is_logged(log_lines):
    """A library's trace is logged in the same field as ours."""
    logging.getLogger("grpc").error("failed", exc_info=OSError("wire"))
    (line,) = log_lines()
    assert (line["severity"], "OSError: wire" in line["exception"]) == ("ERROR", True)


def test_a_library_s_info_lines_are_left_out(log_lines):
    """Messages of libraries below WARNING are left out at level INFO."""
    for name in ("google.auth", "urllib3.connectionpool", "grpc"):
        logging.getLogger(name).info("chat")
    assert log_lines() == []


def test_a_python_warning_is_logged(log_lines):
    """A Python warning is logged and not printed to stderr."""
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=True)
        warnings.warn("old thing", DeprecationWarning, stacklevel=1)
    (line,) = log_lines()
    assert (line["severity"], "old thing" in line["message"]) == ("WARNING", True)


def test_a_library_s_broken_log_call_is_logged(log_lines, capfd):
    """A library's log call with wrong arguments is logged and prints no traceback to stderr."""
    (door,) = [handler for handler in logging.getLogger().handlers if isinstance(handler, logs._LineHandler)]
    door.handle(logging.LogRecord("google.cloud", logging.WARNING, "", 0, "%s and %s", ("one",), None))
    (line,) = log_lines()
    assert line["message"].startswith("A line of google.cloud can't be written: TypeError")
    assert capfd.readouterr().err == ""


def test_an_error_that_ends_a_thread_is_logged(log_lines, capfd):
    """An error that ends a thread is logged with its trace."""
    thread = threading.Thread(target=lambda: {}["missing"])
    thread.start()
    thread.join()
    (line,) = log_lines()
    assert (line["event"], line["message"]) == ("internal_error", "Uncaught KeyError")
    assert capfd.readouterr().err == ""


def test_a_thread_that_exits_is_no_error(log_lines):
    """A thread that ends with `SystemExit` logs no error."""

    def exit_now() -> None:
        raise SystemExit

    thread = threading.Thread(target=exit_now)
    thread.start()
    thread.join()
    assert log_lines() == []


def test_an_error_in_a_destructor_is_logged(log_lines, capfd):
    """An error in a destructor is logged and not printed."""

    class Fragile:
        def __del__(self):
            raise RuntimeError("in passing")

    Fragile()
    gc.collect()
    (line,) = log_lines()
    assert "RuntimeError: in passing" in line["exception"]
    assert capfd.readouterr().err == ""


@pytest.mark.usefixtures("log_lines")
@pytest.mark.parametrize(
    "say", [lambda: log.info(Event.STEP_NOOP, "x"), lambda: logging.getLogger("google").error("x")]
)
def test_a_closed_stream_causes_no_endless_loop(capfd, say):
    """When the output stream is closed, logging does not loop."""

    class Gone(io.StringIO):
        def write(self, _text):
            raise BrokenPipeError("gone")

    logs.configure(level="INFO", log_format="json", stream=Gone())
    say()
    assert capfd.readouterr().err == ""


@pytest.mark.usefixtures("log_lines")
@pytest.mark.parametrize(
    "say", [lambda: log.info(Event.STEP_NOOP, "x"), lambda: logging.getLogger("g").error("x")]
)
def test_a_line_logged_during_another_does_not_deadlock(say):
    """A destructor that logs during another log call in the same thread does not deadlock."""
    inner = iter([lambda: log.info(Event.STEP_NOOP, "inner"), lambda: logging.getLogger("g").error("inner")])

    class Interrupted(io.StringIO):
        def write(self, text):
            for log_inner in inner:
                log_inner()
            return super().write(text)

    stream = Interrupted()
    logs.configure(level="INFO", log_format="json", stream=stream)
    thread = threading.Thread(target=say, daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()
    assert sorted(json.loads(line)["message"] for line in stream.getvalue().splitlines()) == [
        "inner",
        "inner",
        "x",
    ]


def test_the_console_format_is_for_people(log_lines):
    """The console format has the event, the message and the fields."""
    stream = io.StringIO()
    logs.configure(level="INFO", log_format="console", stream=stream)
    log.info(Event.STEP_NOOP, "a sentence", reason="final")
    assert stream.getvalue().endswith("Z INFO     step_noop          a sentence reason=final\n")
    assert log_lines() == []


@pytest.mark.usefixtures("log_lines")
@pytest.mark.parametrize("char", ["\x1b", "\x07", "\x9b", "\u202e", "\u2028", "\n", "\r", "\ud800"])
def test_the_console_shows_no_character_that_controls_it(char):
    """Characters that a server or a run brings are escaped, in tracebacks and in lines of libraries too."""
    stream = io.StringIO()
    logs.configure(level="INFO", log_format="console", stream=stream)
    log.info(Event.STEP_NOOP, f"one{char}two", reason=f"{char}one{char}two", more=[f"one{char}two"])
    logging.getLogger("grpc").error("one%stwo", char)
    lines = len(stream.getvalue().splitlines())
    log.error(Event.INTERNAL_ERROR, "it failed", exc_info=RuntimeError(f"one{char}two"))
    written = stream.getvalue()
    assert lines == 2
    assert written.count("one\\") == 5 or char == "\n"
    assert [c for c in written if not c.isprintable() and c != "\n"] == []


def test_every_line_is_one_line(log_lines):
    """Every record is one line, whatever it contains."""
    log.info(Event.STEP_NOOP, "a\nb\r\nc\u2028d", other="x\ny")
    assert json.dumps(log_lines()[0]["message"]) == r'"a\nb\r\nc\u2028d"'
