"""How the work on one step ended."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from worker_chart_export.errors import StepError


class OutcomeKind(StrEnum):
    """How the work on one step ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CLAIM_LOST = "claim_lost"
    FINALIZE_REFUSED = "finalize_refused"
    #: Told to observers alone, as the next one: who called is told by the error that made it so.
    GIVEN_BACK = "given_back"
    #: It had to be given back, and Firestore did not take that: the lease ends by itself.
    NOT_GIVEN_BACK = "not_given_back"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How the work on one step ended, and what there is to show for it."""

    kind: OutcomeKind
    reason: str | None = None
    manifest_uri: str | None = None
    items: int = 0
    failures: int = 0
    min_images: int | None = None
    error: StepError | None = None
