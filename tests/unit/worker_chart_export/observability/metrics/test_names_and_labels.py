"""What there is to be counted: by which names, with which labels, and all of it from the start."""

from __future__ import annotations

import ast

import pytest

from daemon.handling.handler import GONE
from daemon.handling.step_state import StepState
from tests.support.metric_counts import value
from tests.support.process.daemons import ROOT
from worker_chart_export.charts.chart_img.answers import Meaning
from worker_chart_export.execution.outcome import OutcomeKind
from worker_chart_export.ledger.decisions import Reason
from worker_chart_export.observability import metrics


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
            answer: value("chart_img_calls_total", account="acc-new", answer=answer)
            for answer in metrics.ANSWERS
        }
        assert set(answers.values()) == {0}
        assert (
            value("chart_img_quota_used", account="acc-new"),
            value("chart_img_quota_limit", account="acc-new"),
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
        """Those of the parser and those of the handler's ends."""
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
        """Whoever writes a new one notes it among the known ones."""
        paths = ("handling/handler.py", "handling/disposition.py", "subscription/settlement.py")
        found = {text for path in paths for text in _literals(path, call, "reason")}
        assert found
        assert found <= set(metrics.DISPOSITIONS[disposition])

    def test_every_step_state_is_known_as_a_reason(self):
        """An ack or a deferral has the state of the step as its reason."""
        known = {reason for reasons in metrics.DISPOSITIONS.values() for reason in reasons}
        worked = {StepState.READY, StepState.LEASE_EXPIRED, StepState.OTHER_TYPE}  # which are none
        assert {state.value for state in StepState if state not in worked} <= known
        assert {reason.value for reason in GONE} <= set(metrics.DISPOSITIONS["ack"])

    def test_every_answer_and_outcome_is_known(self):
        """By their enumerations."""
        assert {meaning.value for meaning in Meaning} <= set(metrics.ANSWERS)
        of_observers = {OutcomeKind.RELEASED, OutcomeKind.NOT_RELEASED}
        assert {kind.value for kind in OutcomeKind} - of_observers == {
            labels for (labels,) in metrics.RESCUES._metrics
        }
