"""What is to be said of a chart template before a step asks for it. Pure, but for reading a file."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from worker_chart_export.charts.chart_img.accounts import PLANS, Demand, why_not_on_plan
from worker_chart_export.errors import ValidationFailed, shown
from worker_chart_export.inputs.identifiers import TEMPLATE_ID, is_template_id
from worker_chart_export.inputs.template import parse_template

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from worker_chart_export.charts.chart_img.accounts import Account

FITS = "fits"
NOT_KNOWN = "not known: its settings name no plan"
SIZE_NOT_KNOWN = f"{NOT_KNOWN}, and not every plan allows its picture size"


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """What was found about one template.

    Attributes:
        template_id: Its id, as far as it has one.
        document: The template as it was given.
        problems: Why `validate` refuses it, one sentence each; unknown keys among them.
        demand: What it asks of an account's plan; None when it is invalid.
        accounts: Account id -> `fits`, `not known: ...`, or why its plan does not allow the chart.
    """

    template_id: str
    document: Mapping[str, Any]
    problems: tuple[str, ...]
    demand: Demand | None = None
    accounts: Mapping[str, str] = field(default_factory=dict)

    @property
    def fits_no_account(self) -> bool:
        """There are accounts, and none of them can make it."""
        words = self.accounts.values()
        return bool(words) and not any(word in (FITS, NOT_KNOWN, SIZE_NOT_KNOWN) for word in words)

    @property
    def is_good(self) -> bool:
        """Whether steps can use it."""
        return not self.problems and not self.fits_no_account


def review(template_id: str, document: Mapping[str, Any], accounts: Sequence[Account] = ()) -> Review:
    """Check a template and see which accounts could make its chart.

    Args:
        template_id: The id it has, or would be stored under.
        document: Its document.
        accounts: The Chart-IMG accounts that are configured.
    """
    try:
        template = parse_template(template_id, document)
    except ValidationFailed as error:
        problem = str(error).removeprefix(f"Template {template_id}: ")
        return Review(template_id=template_id, document=document, problems=(problem,))
    demand = Demand.of(template.request)
    return Review(
        template_id=template_id,
        document=document,
        problems=(*_odd_ids(template_id, document), *template.warnings),
        demand=demand,
        accounts={account.account_id: _verdict(account, demand) for account in accounts},
    )


def review_file(path: Path, accounts: Sequence[Account] = ()) -> Review:
    """The same for a file that holds one template; its `id` is where it would be stored.

    Raises:
        OSError: The file can't be read.
    """
    try:
        document = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        return Review(template_id=path.name, document={}, problems=(f"not JSON: {error!s:.100}",))
    if not isinstance(document, dict):
        return Review(
            template_id=path.name, document={}, problems=(f"expected an object, got {shown(document)}",)
        )
    template_id = document.get("id")
    if not isinstance(template_id, str) or not is_template_id(template_id):
        problem = f"id: expected {TEMPLATE_ID.pattern}, got {shown(template_id)}"
        return Review(template_id=path.name, document=document, problems=(problem,))
    return review(template_id, document, accounts)


def _odd_ids(template_id: str, document: Mapping[str, Any]) -> list[str]:
    """Steps find a template by its document's name; another one inside misleads people."""
    if not is_template_id(template_id):
        return [f"stored under an id that no step can name; expected {TEMPLATE_ID.pattern}"]
    inside = document.get("id", template_id)
    return [] if inside == template_id else [f"id: expected {template_id}, got {shown(inside)}"]


def _verdict(account: Account, demand: Demand) -> str:
    if account.plan is None and account.max_parameters is None:
        return NOT_KNOWN
    if (why := why_not_on_plan(account, demand)) is not None:
        return why
    _, width, height = PLANS["BASIC"]
    fits_every_plan = demand.width <= width and demand.height <= height
    return FITS if account.plan is not None or fits_every_plan else SIZE_NOT_KNOWN
