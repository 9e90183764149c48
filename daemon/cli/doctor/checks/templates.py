"""The chart templates: whether there are any, and whether steps can use each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from daemon.cli.doctor.checks.firestore import firestore_mends, open_firestore
from daemon.cli.doctor.refusals import refused
from daemon.cli.doctor.results import failure, ok, warning
from daemon.cli.template_check import review
from worker_chart_export.errors import BackendRefused, BackendUnavailable
from worker_chart_export.inputs.template import TemplateCatalog

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daemon.cli.doctor.results import CheckResult
    from daemon.cli.template_check import Review
    from daemon.settings import FirestoreSettings
    from worker_chart_export.charts.chart_img.accounts import Account

CHECK = "templates"
PUSH = "correct FIRESTORE_DB, or: worker-chart-export templates push FILE..."


def check_templates(
    settings: FirestoreSettings, emulator: str | None, accounts: Sequence[Account]
) -> list[CheckResult]:
    """Read all of them and judge each."""
    with open_firestore(settings) as client:
        try:
            documents = TemplateCatalog(client).documents()
        except (BackendRefused, BackendUnavailable) as error:
            return [refused(CHECK, error, firestore_mends(settings, emulator))]
    return template_verdicts([review(name, document, accounts) for name, document in documents.items()])


def template_verdicts(reviews: Sequence[Review]) -> list[CheckResult]:
    """One finding for all, one more for each that is not good. Pure."""
    if not reviews:
        return [failure(CHECK, "there are none in chart_templates: every chart would fail", PUSH)]
    usable = sum(found.demand is not None for found in reviews)
    summary = f"{usable} of {len(reviews)} can be used"
    whole = ok(CHECK, summary) if usable else failure(CHECK, summary, PUSH)
    return [whole, *(_verdict(found) for found in reviews if not found.is_good)]


def _verdict(found: Review) -> CheckResult:
    check = f"{CHECK}.{found.template_id}"
    mend = f"correct it, then: {PUSH}"
    if found.demand is None:
        return failure(check, "; ".join(found.problems), mend)
    if found.problems:
        return warning(check, "; ".join(found.problems), mend)
    why = "; ".join(f"{account}: {word}" for account, word in found.accounts.items())
    return warning(check, f"fits no account: {why}", "add an account of a larger plan, or ask for less")
