"""What is counted: by which names, from the start, and each fact once."""

from __future__ import annotations

import ast
import subprocess
import sys
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from google.api_core import exceptions as google_errors
from prometheus_client.parser import text_string_to_metric_families

from daemon.delivery import Delivery
from daemon.disposition import Ack, Defer, Nack, Reject
from daemon.drain import Drain
from daemon.intake import Intake
from daemon.rescue import Rescue
from daemon.settlement import Settlement
from daemon.sight import GONE, Sight
from localcloud import Fault
from tests.daemons import ROOT
from tests.unit.chart_img.material import account
from tests.unit.doubles import HandClock, ScriptedProvider, budget_of, chart_request
from worker_chart_export import metrics
from worker_chart_export.charts.chart_img.answers import Meaning
from worker_chart_export.charts.chart_img.quota import QuotaLedger
from worker_chart_export.charts.fallback import FallbackProvider
from worker_chart_export.conditional_commit import send
from worker_chart_export.errors import (
    BackendRefused,
    BackendUnavailable,
    ChartApiLimitExceeded,
    IndexMissing,
    WorkerError,
)
from worker_chart_export.ledger.decisions import Reason
from worker_chart_export.outcome import OutcomeKind

FRESH = "from worker_chart_export import metrics; print(metrics.exposition('')[0].decode())"
REJECT = Reject(reason="run_id_invalid", detail="runId: expected something else")


def _counts():
    """Each counter's series, written as `claims_total{won}`, and how far it has come."""
    return {
        f"{sample.name.removeprefix('chart_export_')}{{{','.join(sample.labels.values())}}}": sample.value
        for family in metrics.REGISTRY.collect()
        for sample in family.samples
        if sample.name.startswith("chart_export_") and sample.name.endswith(("_total", "_count"))
    }


def _value(name, **labels):
    return metrics.REGISTRY.get_sample_value(f"chart_export_{name}", labels)


@pytest.fixture
def grown():
    """Call it for every counter that has grown during the test, and by how much."""
    before = _counts()
    return lambda: {name: grown for name, now in _counts().items() if (grown := now - before.get(name, 0))}


@pytest.fixture(scope="module")
def fresh():
    """The metrics of a process that has just started."""
    done = subprocess.run([sys.executable, "-c", FRESH], cwd=ROOT, capture_output=True, text=True, check=True)
    return list(text_string_to_metric_families(done.stdout))


class TestNames:
    """By the field's habits."""

    def test_every_name_has_the_prefix(self, fresh):
        """But those that the client itself gives to what it finds out about any process."""
        others = {"process", "python"}
        assert {family.name.partition("_")[0] for family in fresh} == {"chart"} | others
        ours = [family for family in fresh if family.name.partition("_")[0] not in others]
        assert all(family.name.startswith("chart_export_") and family.documentation for family in ours)
        assert {"process_resident_memory_bytes", "python_info"} <= {family.name for family in fresh}

    def test_every_series_is_there_from_the_start_and_stands_at_zero(self, fresh):
        """A first failure is an increase; only accounts are not known yet."""
        ours = [family for family in fresh if family.name.startswith("chart_export_")]
        assert {family.name.removeprefix("chart_export_") for family in ours if not family.samples} == {
            "chart_img_calls",
            "chart_img_quota_used",
            "chart_img_quota_limit",
        }
        values = {sample.name: sample.value for family in ours for sample in family.samples}
        assert {name for name, value in values.items() if value} == {"chart_export_build_info"}

    def test_an_account_is_there_as_soon_as_it_is_known(self):
        """With every answer that it may ever get."""
        metrics.know_account("acc-new", daily_limit=44)
        answers = {
            answer: _value("chart_img_calls_total", account="acc-new", answer=answer)
            for answer in metrics.ANSWERS
        }
        assert set(answers.values()) == {0}
        assert (
            _value("chart_img_quota_used", account="acc-new"),
            _value("chart_img_quota_limit", account="acc-new"),
        ) == (0, 44)


def _literals(path, call, keyword):
    """The texts that calls of `call` in a file of the daemon are given, as `keyword` or first of all."""
    tree = ast.parse((ROOT / "daemon" / path).read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == call:
            given = [k.value for k in node.keywords if k.arg == keyword] + node.args[:1]
            yield from (one.value for one in given[:1] if isinstance(one, ast.Constant))


class TestLabels:
    """What they may hold is known beforehand; here it is held against what the code says."""

    def test_every_reason_of_a_claim_or_a_finalize_is_known(self):
        """None besides."""
        known = {*metrics.CLAIM_RESULTS, *metrics.FINALIZE_RESULTS} - {"won", "taken_over", "written"}
        assert known == {reason.value for reason in Reason} - {"unknown"}  # which is a release's

    def test_every_rejection_is_known(self):
        """Those of the parser and those of the handler."""
        found = {
            *_literals("messages.py", "MessageRejected", ""),
            *_literals("handler.py", "Reject", "reason"),
        }
        assert found == set(metrics.REJECTIONS)

    @pytest.mark.parametrize(
        ("call", "disposition"),
        [("Ack", "ack"), ("Nack", "nack"), ("Defer", "defer"), ("self._defer", "defer")],
    )
    def test_every_written_reason_of_a_disposition_is_known(self, call, disposition):
        """Whoever writes a new one notes it among the known ones."""
        found = {text for path in ("handler.py", "settlement.py") for text in _literals(path, call, "reason")}
        assert found
        assert found <= set(metrics.DISPOSITIONS[disposition])

    def test_every_sight_is_known_as_a_reason(self):
        """An ack or a deferral gives what was seen as its reason."""
        known = {reason for reasons in metrics.DISPOSITIONS.values() for reason in reasons}
        worked = {Sight.READY, Sight.LEASE_OVER, Sight.OTHER_TYPE}  # which are none
        assert {sight.value for sight in Sight if sight not in worked} <= known
        assert {reason.value for reason in GONE} <= set(metrics.DISPOSITIONS["ack"])

    def test_every_answer_and_outcome_is_known(self):
        """By their enumerations."""
        assert {meaning.value for meaning in Meaning} <= set(metrics.ANSWERS)
        assert {kind.value for kind in OutcomeKind} == {labels for (labels,) in metrics.RESCUES._metrics}


class TestSteps:
    """Counted where they end."""

    def test_a_step_and_its_charts(self, bench, grown):
        """One chart of two can't be had."""
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
        assert _value("last_success_timestamp_seconds") > 1.7e9

    def test_pipelines_of_one_process_count_together(self, bench, grown):
        """Each is a worker of its own, and none is in the other's way."""
        for _ in range(2):
            bench.put("ctpl_a")
            bench.run()
        assert grown()["steps_finished_total{succeeded,none}"] == 2

    def test_a_step_that_is_taken_over(self, bench, grown):
        """Its chart is there already, from a provider that nobody knows."""
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

    def test_a_step_that_ended_too_many_workers(self, bench, grown):
        """It is finished by the claim."""
        bench.put("ctpl_a", status="RUNNING")
        bench.put_lease(attempt=5)
        assert bench.run().kind is OutcomeKind.CLAIM_LOST
        assert grown() == {
            "claims_total{crash_loop}": 1,
            "commits_total{landed}": 1,
            "steps_finished_total{failed,CRASH_LOOP}": 1,
        }

    def test_a_lease_that_is_lost(self, bench, grown):
        """The result of the work is refused, and no step is finished."""
        bench.put("ctpl_a")
        bench.provider.script = {"ctpl_a": lambda _request: _lose(bench)}
        assert bench.run().kind is OutcomeKind.FINALIZE_REFUSED
        counts = grown()
        assert (counts["leases_lost_total{}"], counts["finalizes_total{lease_lost}"]) == (1, 1)
        assert not any(name.startswith("steps_finished") for name in counts)

    def test_a_step_that_is_given_back(self, bench, grown):
        """By why it was."""
        for error in (BackendUnavailable("storage", "away"), WorkerError("told to stop")):
            bench.put("ctpl_a")
            bench.provider.script = {"ctpl_a": _raising(error)}
            with pytest.raises(type(error)):
                bench.run()
        counts = grown()
        assert counts["leases_released_total{backend}"] == 1
        assert counts["leases_released_total{shutdown}"] == 1

    def test_a_chart_of_the_fallback(self, grown):
        """Beside its being counted as made."""
        first = ScriptedProvider({"ctpl_a": _raising(ChartApiLimitExceeded("none left"))})
        FallbackProvider(first=first, second=ScriptedProvider()).chart(chart_request())
        assert grown() == {"chart_fallbacks_total{}": 1}


def _raising(error):
    def raise_it(_request):
        raise error

    return raise_it


def _lose(bench):
    (held,) = bench.heart_beats.held()
    held.lose("the test says so")
    held.check()


def _started_at(png_name):
    """When the step was first claimed, by the name of its picture."""
    stamp = png_name.rpartition("/")[2].partition("_")[0]
    return datetime.strptime(stamp, "%Y%m%d-%H%M%S").replace(tzinfo=UTC)


def _message(attempt=None):
    def nothing(*_given):
        """Done."""

    return SimpleNamespace(
        message_id="m1",
        data=b"{}",
        attributes={},
        publish_time=None,
        delivery_attempt=attempt,
        ack=nothing,
        nack=nothing,
        drop=nothing,
        modify_ack_deadline=nothing,
    )


class TestMessages:
    """Counted where they are settled."""

    @pytest.mark.parametrize(
        ("disposition", "series"),
        [
            (Ack(reason="succeeded"), "ack,succeeded"),
            (Nack(reason="shutdown"), "nack,shutdown"),
            (Defer(delay_seconds=3, reason="pending"), "defer,pending"),
        ],
    )
    def test_each_disposition_by_its_reason(self, disposition, series, grown):
        """Once."""
        Settlement(None).settle(_message(), disposition)
        assert grown() == {f"messages_settled_total{{{series}}}": 1}

    @pytest.mark.parametrize(("attempt", "disposition"), [(None, "ack"), (3, "nack")])
    def test_a_rejection_is_counted_by_its_reason(self, attempt, disposition, grown):
        """Whoever takes it in the end."""
        Settlement(None).settle(_message(attempt), REJECT)
        assert grown() == {
            f"messages_settled_total{{{disposition},rejected}}": 1,
            "messages_rejected_total{run_id_invalid}": 1,
        }

    def test_a_rejection_that_comes_back_is_none_yet(self, grown):
        """The quarantine topic is away."""

        def publish(**_message):
            raise google_errors.ServiceUnavailable("away")

        Settlement(SimpleNamespace(publish=publish)).settle(_message(), REJECT)
        assert grown() == {
            "messages_settled_total{defer,quarantine_unavailable}": 1,
            "backend_failures_total{pubsub,unavailable}": 1,
        }

    def test_a_message_that_is_left_to_its_deadline(self, grown):
        """Our own mistake while settling it."""

        def fail(*_given):
            raise RuntimeError("mistake")

        handler, settlement = SimpleNamespace(handle=lambda _m: None), SimpleNamespace(settle=fail)
        Delivery(handler=handler, settlement=settlement, drain=Drain())(_message())
        assert grown() == {"messages_received_total{}": 1, "messages_settled_total{drop,internal_error}": 1}


class TestBackends:
    """Counted where their errors are told apart."""

    @pytest.mark.parametrize(
        ("error", "kind", "expected"),
        [
            ("RESOURCE_EXHAUSTED", "unavailable", BackendUnavailable),
            ("PERMISSION_DENIED", "refused", BackendRefused),
        ],
    )
    def test_a_firestore_that_fails(self, bench, error, kind, expected, grown):
        """By whether waiting helps."""
        bench.cloud.firestore.faults.add(Fault(method="BatchGetDocuments", error=error))
        with pytest.raises(expected):
            bench.pipeline()._ledger.probe()
        assert grown() == {f"backend_failures_total{{firestore,{kind}}}": 1}

    def test_a_storage_that_is_away_for_a_moment(self, bench, grown):
        """The call that failed, though the next one did not."""
        bench.cloud.storage.faults.add(Fault(method="objects.insert", error=503, times=1))
        bench.put("ctpl_a")
        assert bench.run().kind is OutcomeKind.SUCCEEDED
        assert grown()["backend_failures_total{storage,unavailable}"] == 1

    def test_a_storage_that_refuses(self, bench, grown):
        """The picture, for good."""
        bench.cloud.storage.faults.add(Fault(method="objects.insert", match="ctpl_a", error=403, times=1))
        bench.put("ctpl_a", min_images=0)
        assert bench.run().kind is OutcomeKind.SUCCEEDED
        counts = grown()
        assert counts["backend_failures_total{storage,refused}"] == 1
        assert counts["chart_failures_total{GCS_WRITE_FAILED}"] == 1

    @pytest.mark.parametrize(
        ("error", "result"),
        [
            (google_errors.FailedPrecondition("stale"), "lost_race"),
            (google_errors.DeadlineExceeded("slow"), "unknown"),
            (google_errors.InvalidArgument("bad"), "unacceptable"),
            (google_errors.PermissionDenied("no"), "refused"),
            (None, "landed"),
        ],
    )
    def test_a_commit_by_how_it_ended(self, error, result, grown):
        """Each is counted once."""

        def commit(**_how):
            if error is not None:
                raise error
            return []

        try:
            send(SimpleNamespace(commit=commit))
        except WorkerError:
            assert error is not None
        assert grown()[f"commits_total{{{result}}}"] == 1

    def test_the_quota_as_last_seen(self, documents):
        """The document's own numbers, also when there is nothing left."""
        quota, mine = QuotaLedger(documents), account("acc-quota", daily_limit=2)
        for used in (1, 2, 2):
            quota.count(mine, budget_of())
            assert _value("chart_img_quota_used", account="acc-quota") == used
        assert _value("chart_img_quota_limit", account="acc-quota") == 2

    @pytest.mark.parametrize(
        ("error", "result"),
        [(None, "done"), (IndexMissing("none"), "index_missing"), (WorkerError("x"), "failed")],
    )
    def test_a_look_of_the_rescue(self, error, result, grown):
        """By whether it could look."""

        def expired_leases(*, before):
            assert before
            if error is not None:
                raise error
            return []

        Rescue(
            ledger=SimpleNamespace(expired_leases=expired_leases),
            pipeline=None,
            intake=Intake(probes={}),
            drain=Drain(),
            clock=HandClock(),
            interval_seconds=1,
        )._look_safely()
        assert grown() == {f"rescue_looks_total{{{result}}}": 1}
