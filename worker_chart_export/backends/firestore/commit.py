"""One atomic commit whose preconditions prove what it was decided from, and how it can end.

The SDK's own retry is off: it would turn a commit that landed into a lost race.
"""

from __future__ import annotations

from typing import Any

from google.api_core import exceptions as google_errors

from worker_chart_export.backends.errors import (
    COMMIT_TIMEOUT_SECONDS,
    TRANSIENT,
    backend_errors,
    describe_error,
)
from worker_chart_export.errors import BackendRefused, BackendUnavailable, WorkerError
from worker_chart_export.observability import metrics


class LostRace(BackendUnavailable):
    """Somebody else wrote one of the documents since they were read; nothing was written."""


class OutcomeUnknown(BackendUnavailable):
    """The commit may or may not have taken effect."""


class Unacceptable(WorkerError):
    """Firestore will never take this commit: something in it is not what a document can hold."""


#: What the metrics call them.
RESULTS: dict[type[WorkerError], str] = {
    LostRace: "lost_race",
    OutcomeUnknown: "unknown",
    Unacceptable: "unacceptable",
    BackendRefused: "refused",
}
_LANDED = metrics.COMMITS.labels("landed")


def send(batch: Any) -> list[Any]:
    """Commit a write batch, all of it or nothing; the result of each write.

    Raises:
        LostRace: A precondition failed.
        OutcomeUnknown: There was no clear answer.
        Unacceptable: Firestore can't store it.
        BackendRefused: Firestore refuses.
    """
    try:
        results = _sent(batch)
    except WorkerError as error:
        metrics.COMMITS.labels(RESULTS[type(error)]).inc()
        raise
    _LANDED.inc()
    return results


def _sent(batch: Any) -> list[Any]:
    try:
        results = list(batch.commit(retry=None, timeout=COMMIT_TIMEOUT_SECONDS))
    except google_errors.InvalidArgument as error:
        metrics.count_call("firestore", "answered")
        raise Unacceptable(describe_error(error)) from error
    except (
        google_errors.FailedPrecondition,
        google_errors.NotFound,  # a document is gone
        google_errors.Aborted,  # contention
        google_errors.AlreadyExists,
    ) as error:
        metrics.count_call("firestore", "answered")
        raise LostRace("firestore", describe_error(error)) from error
    except TRANSIENT as error:
        metrics.count_call("firestore", "unavailable")
        raise OutcomeUnknown("firestore", describe_error(error)) from error
    except (TypeError, ValueError) as error:
        raise Unacceptable(describe_error(error)) from error
    except google_errors.GoogleAPICallError:
        with backend_errors("firestore"):
            raise
    metrics.count_call("firestore", "answered")
    return results
