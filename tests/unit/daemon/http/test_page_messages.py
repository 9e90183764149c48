"""The messages that the page shows: rejected and deferred ones, with their reasons."""

from __future__ import annotations

import pytest

from daemon.http.page.messages import FORGET_SECONDS, MAX_MESSAGES, Fate, Messages
from localcloud.faults import Fault
from tests.support.deliveries import a_message, deliver
from tests.support.fakes import RUN_ID, STEP_ID
from tests.support.page.page_server import settle_message
from worker_chart_export.observability.observers import Stage, annotate, stage, watched_by


class Clock:
    """A clock that the test sets."""

    now = 1_765_800_000.0

    def __call__(self):
        """Return seconds since 1970."""
        return self.now


@pytest.fixture
def clock():
    """Return a clock that stands still."""
    return Clock()


@pytest.fixture
def messages(clock):
    """Register the observer during the test."""
    observer = Messages(clock=clock)
    with watched_by(observer):
        yield observer


class TestWithTheRealHandler:
    """Real deliveries on the embedded cloud."""

    def test_a_rejected_message_has_its_reason_as_a_sentence(self, bench, messages, clock):
        """A rejected message is noted with the code and the sentence that the log and the quarantine have."""
        deliver(bench, a_message({"runId": "../.."})[0])
        (note,) = messages.snapshot()
        assert (note.fate, note.reason, note.run_id, note.at) == (
            Fate.REJECTED,
            "run_id_invalid",
            "",
            clock.now,
        )
        assert note.detail.startswith("runId: expected ")

    def test_a_deferred_message_is_forgotten_when_it_is_done(self, bench, messages, clock):
        """A deferred message names its step and when it comes again; later it is worked, and not shown."""
        body = {"runId": RUN_ID, "stepId": STEP_ID}
        for count in (1, 2):
            deliver(bench, a_message(body)[0])
            (note,) = messages.snapshot()
            assert (note.fate, note.reason, note.detail) == (
                Fate.DEFERRED,
                "missing",
                "the run does not exist",
            )
            assert (note.run_id, note.step_id, note.deliveries) == (RUN_ID, STEP_ID, count)
            assert 10 <= note.again_at - clock.now <= 300
        bench.put("ctpl_a")
        deliver(bench, a_message(body)[0])
        assert messages.snapshot() == []

    def test_a_message_waits_for_a_backend_with_the_words_of_the_log(self, bench, messages, log_lines):
        """The sentence of a deferral for an outage is the one of the log. Pub/Sub's count is shown."""
        bench.put("ctpl_a")
        bench.cloud.firestore.faults.add(Fault(method="BatchGetDocuments", error="RESOURCE_EXHAUSTED"))
        deliver(bench, a_message({"runId": RUN_ID}, delivery_attempt=7)[0])
        (note,) = messages.snapshot()
        assert (note.reason, note.step_id, note.deliveries) == ("firestore_unavailable", "", 7)
        assert note.detail in {
            line["message"] for line in log_lines() if line["event"] == "backend_unavailable"
        }


class TestMemory:
    """What is remembered, and for how long."""

    def test_10_000_messages_are_the_last_50_of_each_fate(self, messages):
        """Many deferrals do not displace a rejection."""
        settle_message("bad", "ack", "x", rejected=True, detail="It is bad.")
        for number in range(10_000):
            settle_message(f"m{number}", "defer", "x", detail="Later.", delaySeconds=10)
        notes = messages.snapshot()
        assert len(notes) == MAX_MESSAGES + 1
        assert {note.message_id for note in notes} == {"bad", *(f"m{n}" for n in range(9_950, 10_000))}

    def test_a_deferral_is_forgotten_after_a_while(self, messages, clock):
        """A message that went to another worker does not stay; a rejection does."""
        settle_message("bad", "nack", "x", rejected=True, detail="It is bad.")
        settle_message("late", "defer", "x", detail="Later.", delaySeconds=60)
        clock.now += 60 + FORGET_SECONDS
        assert len(messages.snapshot()) == 2
        clock.now += 1
        assert [note.message_id for note in messages.snapshot()] == ["bad"]

    def test_a_message_that_is_given_back_stays_as_it_was(self, messages):
        """A nack because of a shutdown says nothing new of a message, and nothing of an unknown one."""
        settle_message("m1", "defer", "x", detail="Later.", delaySeconds=60)
        settle_message("m1", "nack", "shutdown")
        settle_message("m2", "nack", "shutdown")
        assert [note.message_id for note in messages.snapshot()] == ["m1"]

    def test_facts_of_a_step_are_not_those_of_its_message(self, messages):
        """What is noted of a step inside a delivery changes nothing, and long sentences are cut."""
        with stage(Stage.DELIVERY, messageId="m1"):
            with stage(Stage.STEP, runId="r", stepId="s", messageId="m1", symbol="IBM"):
                annotate(result="claim_lost", reason="step_running")
            annotate(disposition="defer", reason="contended", detail="x" * 2000, delaySeconds=1)
        (note,) = messages.snapshot()
        assert (note.reason, len(note.detail)) == ("contended", 300)
