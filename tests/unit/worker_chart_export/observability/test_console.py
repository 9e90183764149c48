"""Log lines for people: columns, fields, colours."""

from __future__ import annotations

import io
import logging
import re
from datetime import UTC, datetime

import pytest

from worker_chart_export.observability import logs
from worker_chart_export.observability.console import wants_colours
from worker_chart_export.observability.logs import Event, bound, log

ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


class Screen(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self):
        """Return True."""
        return True


@pytest.fixture
def lines(log_lines, monkeypatch):
    """Return a function that configures the console format on a stream, and one that reads its lines."""
    del log_lines  # it restores the configuration

    def on(stream, **environment):
        for name in ("NO_COLOR", "FORCE_COLOR", "TERM"):
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        logs.configure(level="DEBUG", log_format="console", stream=stream)
        return lambda: stream.getvalue().splitlines()

    return on


def test_lines_are_in_columns(lines):
    """Level, event and message begin at the same place in all lines, those of libraries too."""
    read = lines(io.StringIO())
    log.info(Event.STEP_NOOP, "first")
    log.error(Event.MESSAGE_RECEIVED, "second")
    logging.getLogger("grpc").warning("third %s", 1)
    places = [
        [line.index(word) for word in words]
        for line, words in zip(
            read(),
            (
                ("INFO", "step_noop", "first"),
                ("ERROR", "message_received", "second"),
                ("WARNING", "library", "third 1"),
            ),
            strict=True,
        )
    ]
    assert places[0] == places[1] == places[2]
    assert read()[0][:25] == f"{datetime.now(UTC):%Y-%m-%d}T{read()[0][11:23]}Z "


def test_fields_are_short_and_those_of_the_step_come_last(lines):
    """None is left out, and what the message says; times, numbers and lists are written for people."""
    read = lines(io.StringIO())
    with bound(runId="r1", attempt=2, owner=None):
        log.info(
            Event.MANIFEST_WRITTEN,
            "Wrote two long words to gs://bucket/manifest.json",
            manifestUri="gs://bucket/manifest.json",
            what="two long words",
            code=None,
            publishTime=datetime(2025, 12, 15, 10, 25, tzinfo=UTC),
            delaySeconds=10.0,
            ok=True,
            names=["a", None],
            reason="two words",
            empty="",
        )
    assert read()[0].partition("manifest.json ")[2] == (
        'publishTime=2025-12-15T10:25:00.000000Z delaySeconds=10 ok=true names=["a", null] '
        'reason="two words" empty="" runId=r1 attempt=2'
    )


def test_ids_that_are_the_same_in_most_lines_are_left_out_of_ordinary_lines(lines):
    """At INFO a line of a run names run and step; a warning, and a line without a run, name everything."""
    read = lines(io.StringIO())
    with bound(messageId="m1", owner="host:1:ab"):
        log.info(Event.MESSAGE_RECEIVED, "first")
        with bound(runId="r1"):
            log.info(Event.CLAIM_ATTEMPT, "second")
            log.warning(Event.STEP_COMPLETED, "third")
    fields = [
        line.partition(word)[2] for line, word in zip(read(), ("first", "second", "third"), strict=True)
    ]
    assert fields == [
        " messageId=m1 owner=host:1:ab",
        " runId=r1",
        " runId=r1 messageId=m1 owner=host:1:ab",
    ]


def test_a_traceback_stands_below_its_line(lines):
    """The error has its usual traceback, without colours in a file."""
    read = lines(io.StringIO())
    try:
        int("it broke")
    except ValueError as error:
        log.error(Event.INTERNAL_ERROR, "The step failed", exc_info=error, details=None)
    assert read()[0].endswith("internal_error     The step failed")
    assert read()[1] == "Traceback (most recent call last):"
    assert read()[-1] == "ValueError: invalid literal for int() with base 10: 'it broke'"


def test_a_terminal_gets_colours_and_no_date(lines):
    """On a terminal the date is left out, and the text without its colours is that of a file."""
    read = lines(Screen())
    log.warning(Event.STEP_NOOP, "first", reason="final")
    (line,) = read()
    assert re.fullmatch(
        r"[0-9:]{8}\.[0-9]{3} WARNING  step_noop          first reason=final", ESCAPES.sub("", line)
    )
    assert line != ESCAPES.sub("", line)


@pytest.mark.parametrize(
    ("stream", "environment", "expected"),
    [
        (io.StringIO(), {}, False),
        (Screen(), {}, True),
        (Screen(), {"TERM": "dumb"}, False),
        (Screen(), {"NO_COLOR": "1"}, False),
        (Screen(), {"NO_COLOR": ""}, True),
        (io.StringIO(), {"FORCE_COLOR": "1"}, True),
        (io.StringIO(), {"FORCE_COLOR": "0"}, False),
        (io.StringIO(), {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
    ],
)
def test_colours_follow_the_terminal_and_the_two_variables(lines, stream, environment, expected):
    """NO_COLOR wins over FORCE_COLOR, and both over the terminal."""
    assert wants_colours(stream, environment) is expected
    read = lines(stream, **environment)
    log.info(Event.STEP_NOOP, "first")
    assert any("\x1b[" in line for line in read()) is expected
