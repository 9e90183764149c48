"""The metrics: their names, their labels, and that each exists from the start."""

from __future__ import annotations

import ast

import pytest

from daemon.handling.circuit_breaker import PAUSED, SHUTDOWN
from daemon.handling.disposition import GONE
from daemon.handling.step_state import StepState
from tests.support.metric_counts import value
from tests.support.process.daemons import ROOT
from worker_chart_export.charts.chart_img.answers import Meaning
from worker_chart_export.execution.outcome import OutcomeKind
from worker_chart_export.ledger.decisions import Reason
from worker_chart_export.observability import metrics


class TestNames:
    """Names that follow Prometheus' conventions."""

    def test_every_name_has_the_prefix(self, fresh):
        """Every name has the prefix, except those of the client library's own process metrics."""
        others = {"process", "python"}
        assert {family.name.partition("_")[0] for family in fresh} == {"chart"} | others
        ours = [family for family in fresh if family.name.partition("_")[0] not in others]
        assert all(family.name.startswith("chart_export_") and family.documentation for family in ours)
        assert {"process_resident_memory_bytes", "python_info"} <= {family.name for family in fresh}

    def test_every_series_is_zero_from_the_start(self, fresh):
        """Every series is 0 from the start, so that a first failure is an increase; accounts come later."""
        ours = [family for family in fresh if family.name.startswith("chart_export_")]
        assert {family.name.removeprefix("chart_export_") for family in ours if not family.samples} == {
            "chart_img_calls",
            "chart_img_account_usable",
            "chart_img_quota_used",
            "chart_img_quota_limit",
        }
        values = {sample.name: sample.value for family in ours for sample in family.samples}
        assert {name for name, value in values.items() if value} == {"chart_export_build_info"}

    def test_an_account_is_there_as_soon_as_it_is_known(self):
        """A known account has a series for every possible status."""
        metrics.know_account("acc-new", daily_limit=44)
        answers = {
            answer: value("chart_img_calls_total", account="acc-new", answer=answer)
            for answer in metrics.ANSWERS
        }
        assert set(answers.values()) == {0}
        assert (
            value("chart_img_quota_used", account="acc-new"),
            value("chart_img_quota_limit", account="acc-new"),
            value("chart_img_account_usable", account="acc-new"),
        ) == (0, 44, 1)


def _literals(path, call, keyword):
    """Return the texts that calls of `call` get as `keyword` or first argument, in a file of the daemon."""
    tree = ast.parse((ROOT / "daemon" / path).read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == call:
            given = [k.value for k in node.keywords if k.arg == keyword] + node.args[:1]
            yield from (one.value for one in given[:1] if isinstance(one, ast.Constant))


class TestLabels:
    """The known label values equal those in the code."""

    def test_every_reason_of_a_claim_or_a_finalize_is_known(self):
        """Every reason of a claim or finalize is a known label value."""
        known = {*metrics.CLAIM_RESULTS, *metrics.FINALIZE_RESULTS} - {"won", "taken_over", "written"}
        others = {"unknown", "released", "not_failed", "changed"}  # of releases and of an operator's commands
        assert known == {reason.value for reason in Reason} - others

    def test_every_rejection_is_known(self):
        """Every rejection reason of the parser and the handler is a known label value."""
        found = {
            *_literals("handling/messages.py", "MessageRejected", ""),
            *_literals("handling/handler.py", "Reject", "reason"),
            *_literals("handling/disposition.py", "Reject", "reason"),
        }
        assert found == set(metrics.REJECTIONS)

    @pytest.mark.parametrize(
        ("call", "disposition"),
        [("Ack", "ack"), ("Nack", "nack"), ("Defer", "defer"), ("self._defer", "defer")],
    )
    def test_every_written_reason_of_a_disposition_is_known(self, call, disposition):
        """Every reason of a disposition in the code is a known label value."""
        paths = ("handling/handler.py", "handling/disposition.py", "subscription/callback.py")
        found = {text for path in paths for text in _literals(path, call, "reason")}
        assert found
        assert found <= set(metrics.DISPOSITIONS[disposition])

    def test_every_reason_of_the_circuit_breaker_is_known(self):
        """Both reasons to give a waiting message back are known."""
        assert SHUTDOWN in metrics.DISPOSITIONS["nack"]
        assert PAUSED in metrics.DISPOSITIONS["defer"]

    def test_every_step_state_is_known_as_a_reason(self):
        """Every step state is a known reason of an ack or a deferral."""
        known = {reason for reasons in metrics.DISPOSITIONS.values() for reason in reasons}
        worked = {StepState.READY, StepState.LEASE_EXPIRED, StepState.OTHER_TYPE}  # which are none
        assert {state.value for state in StepState if state not in worked} <= known
        assert {reason.value for reason in GONE} <= set(metrics.DISPOSITIONS["ack"])

    def test_every_answer_and_outcome_is_known(self):
        """Every member of the answer and outcome enums is a known label value."""
        assert {meaning.value for meaning in Meaning} <= set(metrics.ANSWERS)
        of_observers = {OutcomeKind.RELEASED, OutcomeKind.NOT_RELEASED}
        assert {kind.value for kind in OutcomeKind} - of_observers == {
            labels for (labels,) in metrics.RESCUES._metrics
        }
