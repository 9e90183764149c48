"""Metrics of steps and charts: each fact is counted once."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from localcloud import Fault
from tests.support.fakes import ScriptedProvider, chart_request
from tests.support.metric_counts import value
from worker_chart_export.charts.fallback import FallbackProvider
from worker_chart_export.errors import BackendRefused, BackendUnavailable, ChartApiLimitExceeded, Interrupted
from worker_chart_export.execution.outcome import OutcomeKind


class TestSteps:
    """Steps and charts are counted when they end."""

    def test_a_step_and_its_charts(self, bench, grown):
        """A step with one made and one failed chart is counted."""
        bench.put("ctpl_a", "missing", min_images=1)
        assert bench.run().kind is OutcomeKind.SUCCEEDED
        assert grown() == {
            "claims_total{won}": 1,
            "commits_total{landed}": 2,
            "finalizes_total{written}": 1,
            "steps_finished_total{succeeded,none}": 1,
            "step_duration_seconds_count{succeeded}": 1,
            "charts_total{mock,made}": 1,
            "chart_duration_seconds_count{mock}": 1,
            "chart_failures_total{VALIDATION_FAILED}": 1,
        }
        assert value("last_success_timestamp_seconds") > 1.7e9

    def test_pipelines_of_one_process_count_together(self, bench, grown):
        """Several pipelines of one process add to the same counters."""
        for _ in range(2):
            bench.put("ctpl_a")
            bench.run()
        assert grown()["steps_finished_total{succeeded,none}"] == 2

    def test_a_step_that_is_taken_over(self, bench, grown, fresh):
        """A take-over with a stored chart of an unknown provider is counted."""
        bench.put("ctpl_a")
        bench.run()
        (name,) = (name for name in bench.names() if name.endswith(".png"))
        blob = bench.objects.bucket("charts-unit").get_blob(name)
        blob.metadata = {"provider": "a-name-of-others"}
        blob.patch()
        bench.put("ctpl_a", status="RUNNING")
        bench.put_lease(started_at=_started_at(name))
        assert bench.run().kind is OutcomeKind.SUCCEEDED
        counts = grown()
        assert (counts["claims_total{taken_over}"], counts["charts_total{other,reused}"]) == (1, 1)
        known = {tuple(sample.labels.values()) for family in fresh for sample in family.samples}
        assert ("other", "reused") in known

    def test_a_step_that_ended_too_many_workers(self, bench, grown):
        """A step that ended too many workers is counted as finished by the claim."""
        bench.put("ctpl_a", status="RUNNING")
        bench.put_lease(attempt=5)
        assert bench.run().kind is OutcomeKind.CLAIM_LOST
        assert grown() == {
            "claims_total{crash_loop}": 1,
            "commits_total{landed}": 1,
            "steps_finished_total{failed,CRASH_LOOP}": 1,
        }

    @pytest.mark.parametrize(("place", "intent"), [(0, "claim"), (1, "finalize")])
    def test_a_race_that_is_lost(self, bench, place, intent, grown):
        """A lost race of a claim is counted by its cause."""
        bench.put("ctpl_a")
        bench.cloud.firestore.faults.add(Fault(method="Commit", contend=True, times=1, skip=place))
        assert bench.run().kind is OutcomeKind.SUCCEEDED
        counts = grown()
        assert counts[f"races_lost_total{{{intent}}}"] == counts["commits_total{lost_race}"] == 1

    def test_a_lost_race_of_a_release(self, bench, grown):
        """A lost race of a release is counted by its cause."""
        bench.put("ctpl_a")
        bench.provider.script = {"ctpl_a": _raising(Interrupted("stopped"))}
        lost = Fault(method="Commit", error="FAILED_PRECONDITION", times=1, skip=1)
        bench.cloud.firestore.faults.add(lost)
        with pytest.raises(Interrupted):
            bench.run()
        counts = grown()
        assert (counts["races_lost_total{release}"], counts["leases_released_total{shutdown}"]) == (1, 1)

    def test_a_lease_that_is_lost(self, bench, grown):
        """A lost lease is counted, and no finished step."""
        bench.put("ctpl_a")
        bench.provider.script = {"ctpl_a": lambda _request: _lose(bench)}
        assert bench.run().kind is OutcomeKind.FINALIZE_REFUSED
        counts = grown()
        assert (counts["leases_lost_total{}"], counts["finalizes_total{lease_lost}"]) == (1, 1)
        assert not any(name.startswith("steps_finished") for name in counts)

    def test_a_step_that_is_released(self, bench, grown):
        """A released step is counted by the reason."""
        errors = (
            BackendUnavailable("storage", "down"),
            Interrupted("stopped"),
            BackendRefused("firestore", "no"),
        )
        for error in errors:
            bench.put("ctpl_a")
            bench.provider.script = {"ctpl_a": _raising(error)}
            with pytest.raises(type(error)):
                bench.run()
        counts = grown()
        for cause in ("backend", "shutdown", "refusal"):
            assert counts[f"leases_released_total{{{cause}}}"] == 1

    def test_a_chart_of_the_fallback(self, grown):
        """A chart of the fallback is counted as made and as fallback."""
        first = ScriptedProvider({"ctpl_a": _raising(ChartApiLimitExceeded("none left"))})
        FallbackProvider(first=first, second=ScriptedProvider()).chart(chart_request())
        assert grown() == {"chart_fallbacks_total{}": 1}


def _raising(error):
    def raise_it(_request):
        raise error

    return raise_it


def _lose(bench):
    (held,) = bench.heartbeats.held()
    held.lose("the test says so")
    held.check()


def _started_at(png_name):
    """Return the time of the first claim from the name of the picture."""
    stamp = png_name.rpartition("/")[2].partition("_")[0]
    return datetime.strptime(stamp, "%Y%m%d-%H%M%S").replace(tzinfo=UTC)
