"""Observers see each stage once, in order and nested. Their failures do not disturb the work."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from contextvars import ContextVar

import pytest

from tests.support.deliveries import a_message, deliver
from tests.support.fakes import BUCKET, RUN_ID, STEP_ID, png_bytes
from tests.support.pipeline_bench import MANIFEST_URI
from worker_chart_export.errors import ChartApiFailed, Interrupted
from worker_chart_export.execution.outcome import OutcomeKind
from worker_chart_export.observability.observers import (
    Observer,
    Stage,
    annotate,
    notify_call,
    notify_chart,
    notify_step_ended,
    stage,
    watched_by,
)

STEP = {"runId": RUN_ID, "stepId": STEP_ID, "messageId": "", "symbol": ""}


class Notes(Observer):
    """An observer that notes each call under the path of the stages around it."""

    def __init__(self):
        self.begun, self.ended, self.charts, self.outcomes, self.more = [], [], [], [], []
        self.carriers = {}
        self._path = ContextVar("path", default=())

    @contextmanager
    def stage(self, which, about, carrier):
        """Note the begin and the end."""
        token = self._path.set((*self._path.get(), which.value))
        path = " ".join(self._path.get())
        self.begun.append((path, dict(about)))
        self.carriers[path] = dict(carrier)
        error = None
        try:
            yield
        except BaseException as raised:
            error = raised
            raise
        finally:
            self.ended.append((path, type(error).__name__ if error else None))
            self._path.reset(token)

    def annotated(self, about):
        """Note the call."""
        self.more.append((" ".join(self._path.get()), dict(about)))

    def chart_stored(self, chart):
        """Note the call."""
        self.charts.append((" ".join(self._path.get()), chart))

    def step_ended(self, outcome, seconds):
        """Note the call."""
        self.outcomes.append((" ".join(self._path.get()), outcome, seconds))


@pytest.fixture
def notes():
    """Register an observer during the test."""
    observer = Notes()
    with watched_by(observer):
        yield observer


class TestNotifications:
    """Calls of observers during real work on the embedded cloud."""

    def test_a_delivery_from_its_message_to_its_end(self, bench, notes):
        """A delivery calls each stage once, in order and nested, with the message's attributes."""
        bench.put("ctpl_a")
        message, _ = a_message({"runId": RUN_ID, "stepId": STEP_ID}, googclient_traceparent="00-1-2-01")
        deliver(bench, message)
        step = {**STEP, "messageId": "m1", "symbol": "IBM"}
        assert notes.begun == [
            ("delivery", {"messageId": "m1"}),
            ("delivery read", {"runId": RUN_ID}),
            ("delivery step", step),
            ("delivery step claim", {}),
            ("delivery step chart", {"chartTemplateId": "ctpl_a", "attempt": 1, "requested": 1}),
            (
                "delivery step chart call",
                {"chartTemplateId": "ctpl_a", "symbol": "IBM", "timeframe": "1d"},
            ),
            (
                "delivery step chart upload",
                {"chartTemplateId": "ctpl_a", "provider": "mock", "sizeBytes": len(png_bytes())},
            ),
            ("delivery step manifest", {"attempt": 1}),
            ("delivery step finalize", {"attempt": 1, "status": "SUCCEEDED"}),
        ]
        assert notes.ended == [
            ("delivery read", None),
            ("delivery step claim", None),
            ("delivery step chart call", None),
            ("delivery step chart upload", None),
            ("delivery step chart", None),
            ("delivery step manifest", None),
            ("delivery step finalize", None),
            ("delivery step", None),
            ("delivery", None),
        ]
        assert notes.more == [
            ("delivery", {"runId": RUN_ID, "stepId": STEP_ID}),
            ("delivery step claim", {"result": "won", "attempt": 1}),
            ("delivery step", {"attempt": 1, "takenOver": False}),
            ("delivery", {"disposition": "ack", "reason": "succeeded"}),
        ]
        assert notes.carriers["delivery"] == {"googclient_traceparent": "00-1-2-01"}
        assert notes.carriers["delivery step"] == {}

    def test_an_invalid_message_is_a_delivery_too(self, bench, notes):
        """An invalid message is a delivery without reads."""
        deliver(bench, a_message({"runId": "../.."})[0])
        assert notes.begun == [("delivery", {"messageId": "m1"})]
        assert notes.ended == [("delivery", None)]
        ((path, facts),) = notes.more
        assert (path, facts["reason"], facts["rejected"]) == ("delivery", "run_id_invalid", True)
        assert facts["detail"].startswith("runId: expected ")

    def test_charts_are_observed_in_their_own_threads(self, bench, notes):
        """A chart's stages run in its own thread and belong to its step."""
        bench.put("ctpl_a", "ctpl_b", "ctpl_c")
        bench.run()
        assert [path for path, _ in notes.begun].count("step chart") == 3
        assert {path for path, _ in notes.charts} == {"step chart"}
        stored = {chart.template_id: chart for _, chart in notes.charts}
        assert stored.keys() == {"ctpl_a", "ctpl_b", "ctpl_c"}
        assert (stored["ctpl_a"].provider, stored["ctpl_a"].png) == ("mock", png_bytes())
        assert stored["ctpl_a"].uri.startswith(f"gs://{BUCKET}/charts/{RUN_ID}/{STEP_ID}/")

    def test_the_end_is_observed_inside_the_step(self, bench, notes):
        """`step_ended` is called inside the step's stage with the outcome and the duration."""
        bench.put("ctpl_a")
        bench.run()
        ((path, outcome, seconds),) = notes.outcomes
        assert (path, outcome.kind, outcome.manifest_uri) == ("step", OutcomeKind.SUCCEEDED, MANIFEST_URI)
        assert 0 < seconds < 10

    def test_a_chart_that_fails_ends_its_stages_in_the_error(self, bench, notes):
        """A failing chart ends its stages with the error, and the step's outcome is FAILED."""

        def refuse(_request):
            raise ChartApiFailed("It refuses.")

        bench.provider.script["ctpl_a"] = refuse
        bench.put("ctpl_a")
        bench.run()
        assert ("step chart call", "ChartApiFailed") in notes.ended
        assert ("step chart", "ChartApiFailed") in notes.ended
        assert notes.begun[-1] == ("step finalize", {"attempt": 1, "status": "FAILED"})
        ((_, outcome, _),) = notes.outcomes
        assert outcome.error.code == "CHART_API_FAILED"

    def test_a_chart_of_an_earlier_attempt_comes_without_bytes(self, bench, notes):
        """A reused chart is observed without bytes, because another process stored it."""

        def stop(request):
            request.call_scope.stop(Interrupted("enough"))
            return png_bytes()

        bench.provider.script["ctpl_b"] = stop
        bench.put("ctpl_a", "ctpl_b")
        with pytest.raises(Interrupted):
            bench.run(concurrency=1)
        assert notes.begun[-1] == ("step release", {"attempt": 1})
        assert notes.ended[-1] == ("step", "Interrupted")
        assert [outcome.kind for _, outcome, _ in notes.outcomes] == [OutcomeKind.RELEASED]
        del bench.provider.script["ctpl_b"]
        bench.expire_lease()
        notes.charts.clear()
        bench.run()
        assert {chart.template_id: chart.png for _, chart in notes.charts} == {
            "ctpl_a": None,
            "ctpl_b": png_bytes(),
        }

    def test_a_lost_claim_is_a_step_without_an_end(self, bench, notes):
        """After a lost claim there is a step stage without `step_ended`."""
        bench.put("ctpl_a", status="SUCCEEDED")
        assert bench.run().kind is OutcomeKind.CLAIM_LOST
        assert [path for path, _ in notes.ended] == ["step claim", "step"]
        assert notes.outcomes == []

    def test_an_observer_may_leave_methods_out(self, bench, log_lines):
        """An observer can leave methods out; the base class does nothing."""
        bench.put("ctpl_a")
        with watched_by(Observer()):
            assert bench.run().kind is OutcomeKind.SUCCEEDED
            notify_call(accountId="a")
        assert not [line for line in log_lines() if line["event"] == "internal_error"]


class Careless(Observer):
    """An observer that fails in the named methods."""

    def __init__(self, *where: str):
        self._where = where

    @contextmanager
    def stage(self, which, about, carrier):  # noqa: ARG002 - an observer's signature
        """Fail at the begin or at the end."""
        self._fail("begin")
        yield
        self._fail("end")

    def chart_stored(self, chart):  # noqa: ARG002 - as above
        """Fail."""
        self._fail("chart")

    def step_ended(self, outcome, seconds):  # noqa: ARG002 - as above
        """Fail."""
        self._fail("outcome")

    def _fail(self, where):
        if where in self._where:
            raise RuntimeError(f"careless at the {where}")


class TestObserversThatFail:
    """A failing observer does not disturb the step."""

    @pytest.mark.parametrize("where", ["begin", "end", "chart", "outcome"])
    def test_the_step_succeeds_and_the_others_are_called(self, bench, notes, log_lines, where):
        """The step succeeds, the other observers are called, and the failure is logged."""
        bench.put("ctpl_a")
        later = Notes()
        with watched_by(Careless(where)), watched_by(later):
            assert bench.run().kind is OutcomeKind.SUCCEEDED
        assert later.ended == notes.ended
        assert later.charts == notes.charts
        assert len(later.outcomes) == len(notes.outcomes) == 1
        lines = [line for line in log_lines() if line["event"] == "internal_error"]
        assert lines
        assert f"The observer Careless failed: RuntimeError('careless at the {where}')" in lines[0]["message"]

    def test_the_work_s_own_error_passes_unchanged(self, log_lines):
        """The work's own error is raised unchanged, and an observer can't suppress it."""

        class Greedy(Notes):
            @contextmanager
            def stage(self, which, about, carrier):  # noqa: ARG002 - an observer's signature
                with pytest.raises(KeyError):
                    yield

        with watched_by(Careless("end")), watched_by(Greedy()), pytest.raises(KeyError), stage(Stage.CALL):
            raise KeyError("own")
        assert log_lines() == []  # the careless one failed with the work's own error, which is no failure


class TestRegistration:
    """When observers are called."""

    def test_no_observer_is_called_after_its_block(self, bench):
        """After its block an observer is not called, also when the block raised."""
        observer = Notes()
        with pytest.raises(KeyError), watched_by(observer):
            raise KeyError
        bench.put("ctpl_a")
        bench.run()
        assert (observer.begun, observer.charts, observer.outcomes) == ([], [], [])

    def test_an_observer_ends_each_stage_that_it_began(self):
        """An observer that began a stage ends it, even when it is removed; a new one does not see the end."""
        first, second = Notes(), Notes()
        with watched_by(first):
            begun = stage(Stage.STEP)
            begun.__enter__()
        with watched_by(second):
            begun.__exit__(None, None, None)
        assert first.ended == [("step", None)]
        assert second.ended == []

    def test_observers_come_and_go_from_many_threads(self):
        """Concurrent registration from many threads loses and leaves no observer."""
        failed = []

        def come_and_go():
            for _ in range(200):
                observer = Notes()
                with watched_by(observer), stage(Stage.CLAIM):
                    pass
                if ("claim", None) not in observer.ended:
                    failed.append(observer)

        threads = [threading.Thread(target=come_and_go) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failed == []
        assert stage(Stage.STEP) is stage(Stage.CLAIM)

    def test_without_observers_nothing_is_made(self):
        """Without observers all stages share one context object."""
        notify_chart(template_id="t", provider="mock", uri="gs://b/n", png=None)
        annotate(attempt=1)
        notify_call(accountId="a")
        notify_step_ended(None, 0.0)  # type: ignore[arg-type]  # no observer reads it
        assert stage(Stage.CHART, chartTemplateId="t", attempt=1) is stage(Stage.CLAIM)
