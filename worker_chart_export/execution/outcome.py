"""The outcome of the work on one step."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from worker_chart_export.errors import StepError

if TYPE_CHECKING:
    from worker_chart_export.outputs.manifest import ManifestFailure


class OutcomeKind(StrEnum):
    """How the work on one step ended. Traces contain the values."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    #: Another worker has the step, or it needs no work any more.
    CLAIM_LOST = "claim_lost"
    #: The work was done, but the lease was lost or the step has changed: its result was not written.
    FINALIZE_REFUSED = "finalize_refused"
    #: Released for another attempt. For observers only, like the next one: the caller gets the error itself.
    RELEASED = "given_back"
    #: To be released, but Firestore did not answer. The lease expires by itself.
    NOT_RELEASED = "not_given_back"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The outcome of the work on one step.

    Attributes:
        kind: How it ended.
        reason: Why the claim was lost or the result was not written.
        manifest_uri: The manifest, once it is written.
        items: How many charts the manifest has.
        failures: How many requested charts failed.
        min_images: How many charts the step needs.
        error: The error that the step failed with.
    """

    kind: OutcomeKind
    reason: str | None = None
    manifest_uri: str | None = None
    items: int = 0
    failures: int = 0
    min_images: int | None = None
    error: StepError | None = None


def too_few_charts(outcome: Outcome, first: ManifestFailure) -> Outcome:
    """Return the outcome of a step with too few charts. Its error has the code of the first failure."""
    error = StepError(
        code=first.error.code,
        message=f"{outcome.items} of {outcome.min_images} needed charts were made: {first.error.message}",
        details={
            "manifestGcsUri": outcome.manifest_uri,
            "chartTemplateId": first.template_id,
            **(first.error.details or {}),
        },
    )
    return replace(outcome, kind=OutcomeKind.FAILED, error=error)
