"""Check that there are chart templates, and that steps can use each of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from daemon.cli.doctor.checks.firestore import firestore_fixes, open_firestore
from daemon.cli.doctor.results import backend_failure, failure, ok, warning
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
PUSH_FIX = "correct FIRESTORE_DB, or: worker-chart-export templates push FILE..."


def check_templates(
    settings: FirestoreSettings, emulator: str | None, accounts: Sequence[Account]
) -> list[CheckResult]:
    """Read all stored templates and check each."""
    with open_firestore(settings) as client:
        try:
            documents = TemplateCatalog(client).documents()
        except (BackendRefused, BackendUnavailable) as error:
            return [backend_failure(CHECK, error, firestore_fixes(settings, emulator))]
    return template_verdicts([review(name, document, accounts) for name, document in documents.items()])


def template_verdicts(reviews: Sequence[Review]) -> list[CheckResult]:
    """Return one result for all templates, and one more for each that is not good. Pure."""
    if not reviews:
        return [failure(CHECK, "there are none in chart_templates: every chart would fail", PUSH_FIX)]
    usable = sum(found.demand is not None for found in reviews)
    summary = f"{usable} of {len(reviews)} can be used"
    overall = ok(CHECK, summary) if usable else failure(CHECK, summary, PUSH_FIX)
    return [overall, *(_verdict(found) for found in reviews if not found.is_good)]


def _verdict(found: Review) -> CheckResult:
    check = f"{CHECK}.{found.template_id}"
    fix = f"correct it, then: {PUSH_FIX}"
    if found.demand is None:
        return failure(check, "; ".join(found.problems), fix)
    if found.problems:
        return warning(check, "; ".join(found.problems), fix)
    why = "; ".join(f"{account}: {verdict}" for account, verdict in found.accounts.items())
    return warning(check, f"fits no account: {why}", "add an account with a larger plan, or simplify it")
