"""Check chart templates before steps use them. Pure, except that `review_file` reads a file."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from daemon.cli.output import why_not_json
from daemon.reports.wording import plural
from worker_chart_export.charts.chart_img.accounts import PLANS, Demand, why_not_on_plan
from worker_chart_export.errors import ValidationFailed, shown
from worker_chart_export.inputs.flow_run import TEMPLATE_ID, is_template_id
from worker_chart_export.inputs.template import parse_template

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from worker_chart_export.charts.chart_img.accounts import Account

FITS = "fits"
NOT_KNOWN = "not known: its settings name no plan"
SIZE_NOT_KNOWN = f"{NOT_KNOWN}, and not every plan allows this picture size"


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """The result of checking one template.

    Attributes:
        template_id: The template's id, or the file's name if it has none.
        document: The template's document.
        problems: Why `validate` refuses the template, one sentence each. Unknown keys are problems too.
        demand: What the chart needs from an account's plan; None if the template is invalid.
        accounts: Account id -> `fits`, `not known: ...`, or why the account's plan does not allow the chart.
    """

    template_id: str
    document: Mapping[str, Any]
    problems: tuple[str, ...]
    demand: Demand | None = None
    accounts: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_good(self) -> bool:
        """Whether steps can use the template: no problems, and no lack of a fitting account."""
        verdicts = self.accounts.values()
        fits_one = any(verdict in (FITS, NOT_KNOWN, SIZE_NOT_KNOWN) for verdict in verdicts)
        return not self.problems and (fits_one or not verdicts)

    @property
    def state(self) -> str:
        """What it draws, in a few words: `800x600, 3 parameters`."""
        if self.demand is None:
            return "invalid"
        return f"{self.demand.width}x{self.demand.height}, {plural(self.demand.parameters, 'parameter')}"

    def summary(self) -> dict[str, Any]:
        """Return the object of `templates list --output json`."""
        request = self.document.get("request") if self.demand else None
        entries = [*request.get("studies", []), *request.get("drawings", [])] if request else []
        return {
            "id": self.template_id,
            "description": str(self.document.get("description", "")),
            "draws": [entry["name"] for entry in entries],
            "valid": self.demand is not None,
        }


def review(template_id: str, document: Mapping[str, Any], accounts: Sequence[Account] = ()) -> Review:
    """Check a template, and find the accounts that can make its chart.

    Args:
        template_id: The id under which the template is stored, or would be stored.
        document: The template's document.
        accounts: The configured Chart-IMG accounts.
    """
    try:
        template = parse_template(template_id, document)
    except ValidationFailed as error:
        problem = str(error).removeprefix(f"Template {template_id}: ")
        return Review(template_id=template_id, document=document, problems=(problem,))
    problems = list(template.warnings)
    # Steps find a template by its document's name. A different id inside the document is misleading.
    if not is_template_id(template_id):
        problems.insert(0, f"stored under an id that no step can name; expected {TEMPLATE_ID.pattern}")
    elif (inside := document.get("id", template_id)) != template_id:
        problems.insert(0, f"id: expected {template_id}, got {shown(inside)}")
    demand = Demand.of(template.request)
    return Review(
        template_id=template_id,
        document=document,
        problems=tuple(problems),
        demand=demand,
        accounts={account.id: _account_verdict(account, demand) for account in accounts},
    )


def review_file(path: Path, accounts: Sequence[Account] = ()) -> Review:
    """Check a file that holds one template; the `id` in it is the id under which it would be stored.

    Raises:
        OSError: The file can't be read.
    """
    try:
        document = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        return Review(template_id=path.name, document={}, problems=(why_not_json(error),))
    if not isinstance(document, dict):
        problem = f"expected an object, got {shown(document)}"
        return Review(template_id=path.name, document={}, problems=(problem,))
    template_id = document.get("id")
    if not isinstance(template_id, str) or not is_template_id(template_id):
        problem = f"id: expected {TEMPLATE_ID.pattern}, got {shown(template_id)}"
        return Review(template_id=path.name, document=document, problems=(problem,))
    return review(template_id, document, accounts)


def _account_verdict(account: Account, demand: Demand) -> str:
    if account.plan is None and account.max_parameters is None:
        return NOT_KNOWN
    if (why := why_not_on_plan(account, demand)) is not None:
        return why
    _, width, height = PLANS["BASIC"]
    fits_every_plan = demand.width <= width and demand.height <= height
    return FITS if account.plan is not None or fits_every_plan else SIZE_NOT_KNOWN
