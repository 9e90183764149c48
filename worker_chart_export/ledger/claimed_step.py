"""`claim_step`: hold a step of any type while a worker works on it, and write its result. Synchronous.

The claim, the heartbeats, the fence and the finalize are those of the daemon's ledger. docs/library.md shows
a whole worker.
"""

from __future__ import annotations

import logging
import math
import os
import re
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, Self, cast

from worker_chart_export.backends.firestore_client import check_is_client
from worker_chart_export.concurrency.cancel_scope import CancelScope
from worker_chart_export.errors import (
    FIRESTORE,
    BackendRefused,
    LeaseLost,
    NotClaimedReason,
    StepEnded,
    StepError,
    StepNotClaimed,
    StepNotFinished,
    StepStatusName,
    WorkerError,
)
from worker_chart_export.inputs.flow_run import why_run_id_refused, why_step_id_refused
from worker_chart_export.ledger.decisions import Reason
from worker_chart_export.ledger.lease import LeaseTerms
from worker_chart_export.ledger.shared_ledgers import LedgerSettings, shared_ledger
from worker_chart_export.ledger.step_ledger import Claim
from worker_chart_export.observability.logs import Event, StandardLogger, bound, log, logged_to
from worker_chart_export.timing import SystemClock

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime
    from types import TracebackType

    from google.cloud import firestore

    from worker_chart_export.ledger.decisions import ClaimResult
    from worker_chart_export.ledger.step_ledger import StepLedger

#: What the contract's schema takes as a URI of an output.
GS_URI = re.compile(r"gs://[^/\s].*")
#: The outputs that hold the URI of the result, old and new.
URI_OUTPUTS = ("gcs_uri", "outputsManifestGcsUri")
#: When to look again at a step that is missing or not ready yet.
NOT_READY_RETRY_SECONDS = 10.0
#: When to look again at a step whose worker has no lease.
UNLEASED_RETRY_SECONDS = 60.0
MIN_RETRY_SECONDS = 1.0
RETRY_SECONDS = {
    Reason.RUN_MISSING: NOT_READY_RETRY_SECONDS,
    Reason.STEP_MISSING: NOT_READY_RETRY_SECONDS,
    Reason.STEP_PENDING: NOT_READY_RETRY_SECONDS,
    Reason.DEPENDS_ON: NOT_READY_RETRY_SECONDS,
    Reason.UNLEASED: UNLEASED_RETRY_SECONDS,
}
#: Silent until the application configures logging.
LOGGER = logging.getLogger("worker_chart_export")
LOGGER.addHandler(logging.NullHandler())


class ClaimedStep:
    """A step that this process holds. All methods may be called from any thread of it.

    A lost lease is raised by `check`, `succeed` and `fail`, and sets `lost`. Nothing interrupts code that
    calls none of them: Python can't do that safely.

    Attributes:
        run_id: The run.
        step_id: The step.
        step_type: The step's `stepType`, or None when it has none.
        attempt: Which claim of the step this is, from 1.
        started_at: When the step was first claimed, by the server's clock. All attempts have the same.
        owner: This process in the lease.
        inputs: The step's `inputs`. Don't change them.
        run: The whole run document as it was at the claim. Don't change it.
        lost: Set when the lease is known to be lost. Wait for it in place of `time.sleep`.
    """

    def __init__(self, *, claim: Claim, ledger: StepLedger, logger: StandardLogger) -> None:
        self.run_id = claim.run.run_id
        self.step_id = claim.step.step_id
        self.step_type: str | None = claim.step.step_type
        self.attempt = claim.attempt
        self.started_at: datetime = claim.started_at
        self.owner = ledger.owner
        self.inputs: Mapping[str, Any] = claim.step.inputs
        self.run: Mapping[str, Any] = claim.run.document
        self.lost = threading.Event()
        self._claim = claim
        self._ledger = ledger
        self._logger = logger
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._result: Literal["SUCCEEDED", "FAILED"] | None = None
        self._is_over = False
        self._is_finishing = False
        claim.held.on_lost(self._note_lost)

    @property
    def result(self) -> Literal["SUCCEEDED", "FAILED"] | None:
        """The status that was written as the step's result, or None as long as there is none."""
        return self._result

    def outputs_of(self, step_id: str) -> Mapping[str, Any]:
        """Return the `outputs` of another step of the run, as they were at the claim.

        Raises:
            KeyError: The run has no such step.
            RunInvalid: The step can't be read.
        """
        step = self._claim.run.step(step_id)
        if step is None:
            raise KeyError(step_id)
        return step.outputs

    def check(self) -> None:
        """Return while this process may go on. Call it before each thing that costs money or can't be undone.

        It asks no server: it compares the time with the end of the lease, as the last heartbeat has set it.

        Raises:
            LeaseLost: Another worker has the step or may have it: the lease was taken, released by an
                operator or not renewed in time, the step is not RUNNING any more, or the work takes too long.
            StepEnded: The step has its result, the `with` block is over, or this is another process.
        """
        self._check_is_open()
        self._claim.held.check()

    def succeed(self, uri: str, *, outputs: Mapping[str, Any] | None = None) -> None:
        """Write the result: RUNNING -> SUCCEEDED, with `outputs.gcs_uri`.

        A CHART_EXPORT step also gets `outputs.outputsManifestGcsUri`. While Firestore is unavailable it tries
        again until the lease ends.

        Args:
            uri: The artifact of the step, `gs://bucket/object`.
            outputs: More fields of `outputs`, by name, e.g. `{"expires_at": "2025-12-16T00:00:00Z"}`. Any
                values that Firestore can store.

        Raises:
            ValueError: `uri` or the name of an output has the wrong form. Nothing was written.
            LeaseLost: As `check`. Nothing was written.
            StepEnded: As `check`; for example `succeed` was called before. Nothing was written.
            BackendUnavailable: Firestore was unavailable until the lease ended. The result may be written or
                not; the next claim finds out.
            BackendRefused: Firestore refuses. If it can't store the outputs, the step is FAILED: see
                `result`.
            RunInvalid: The run can't be read any more.
        """
        if not GS_URI.fullmatch(str(uri)):
            raise ValueError(f"uri: expected gs://bucket/object, got {uri!r:.80}")
        for name in outputs or {}:
            if name in URI_OUTPUTS or why_step_id_refused(name):
                raise ValueError(f"outputs: expected other names, without / . ` [ ] * ~, got {name!r:.80}")
        names = URI_OUTPUTS if self._claim.step.is_chart_export else URI_OUTPUTS[:1]
        self._finish(outputs={**(outputs or {}), **dict.fromkeys(names, uri)})

    def fail(self, error: StepError) -> None:
        """Write the result: RUNNING -> FAILED, with `error`. The step's outputs stay as they are.

        This is for errors that another attempt would not mend. After an exception another attempt follows.

        Args:
            error: A code, one sentence (cut at 500 characters), and details (cut at 2 KiB of JSON).

        Raises:
            TypeError: `error` is no `StepError`.
            WorkerError: As `succeed`.
        """
        if not isinstance(error, StepError):
            raise TypeError(f"error: expected a StepError, got {error!r:.80}")
        self._finish(error=error)

    def _check_is_open(self) -> None:
        if os.getpid() != self._process:
            raise StepEnded(f"process {self._process} has claimed the step, this is process {os.getpid()}")
        if self._result is not None:
            raise StepEnded(f"the step has {self._result} already")
        if self._is_over:
            raise StepEnded("the block of claim_step is over")

    def _finish(self, *, outputs: Mapping[str, Any] | None = None, error: StepError | None = None) -> None:
        with self._lock, self._logging():
            self.check()
            held = self._claim.held
            scope = CancelScope(seconds=math.inf, clock=SystemClock())
            scope.guard(held.check)
            self._is_finishing = True
            try:
                written = self._ledger.finalize(self._claim, scope=scope, outputs=outputs, error=error)
                if not written.updated:
                    held.lose(f"the step's result was refused: {written.reason}")
                    held.check()
                self._result = "FAILED" if written.status == "FAILED" else "SUCCEEDED"
            finally:
                self._is_finishing = self._result is not None
                if held.is_lost and self._result is None:
                    self.lost.set()
            self._ledger.forget(self._claim)
            self._log_result(error)
            if error is None and self._result == "FAILED":
                raise BackendRefused(FIRESTORE, "it can't store the step's outputs, so the step is FAILED")

    def _log_result(self, error: StepError | None) -> None:
        log.info(
            Event.STEP_COMPLETED,
            f"The step has {self._result}",
            status=self._result,
            code=error.code if error else None,
        )

    def _note_lost(self, _lost: LeaseLost) -> None:
        """Set `lost`. A finalize deletes the lease, which a heartbeat at the same time takes for a loss."""
        if not self._is_finishing:
            self.lost.set()

    @contextmanager
    def _logging(self) -> Iterator[None]:
        names = bound(runId=self.run_id, stepId=self.step_id, owner=self.owner, attempt=self.attempt)
        with logged_to(self._logger), names:
            yield

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        """End the work. Without a result the step is released, so that another worker can take it over."""
        if os.getpid() != self._process:
            return  # a forked process leaves the step to its parent
        with self._lock, self._logging():
            self._is_over = True
            if self._result is not None:
                return
            try:
                self._claim.held.check()
            except LeaseLost as lost:
                self._ledger.clear(self._claim, lost)
                if error is None:
                    raise
                return
            self._release(error)
        if error is None:
            raise StepNotFinished(
                f"the block of step {self.step_id} ended without succeed(), fail() or an error"
            )

    def _release(self, error: BaseException | None) -> None:
        """Release the lease. Any error but a stop counts as an attempt; the next one waits for a backoff."""
        cause: WorkerError | None = WorkerError("no result") if error is None else None
        if isinstance(error, Exception):
            cause = error if isinstance(error, WorkerError) else WorkerError(repr(error))
        if self._ledger.release(self._claim, cause=cause).failed:
            self._result = "FAILED"
            log.error(Event.STEP_COMPLETED, f"Failed the step: {error}", status=self._result)


@contextmanager
def claim_step(
    client: firestore.Client,
    run_id: str,
    step_id: str,
    *,
    step_type: str | None = None,
    message_id: str = "",
    terms: LeaseTerms = LeaseTerms(),  # noqa: B008 - immutable
    owner: str | None = None,
    logger: StandardLogger = LOGGER,
) -> Iterator[ClaimedStep]:
    """Claim a step, READY -> RUNNING, or take it over when its lease has expired. Hold it for the block.

    A thread renews the lease. The block has to end with `succeed`, `fail` or an exception. After an exception
    the lease is released: the step stays RUNNING, and a later claim takes it over. Exactly one caller holds a
    step.

    | the block ends with | the step | next claim | counts as an attempt |
    |---|---|---|---|
    | `succeed` or `fail` | SUCCEEDED or FAILED | none | - |
    | `KeyboardInterrupt`, `SystemExit`, `Interrupted` | released | at once | no |
    | `BackendUnavailable` | released; FAILED after 10 times or 1 h | after 1-10 s | no |
    | any other `Exception`, or nothing | released | after 1-120 s | yes |
    | a lost lease, or the end of the process | RUNNING | when the lease has expired | yes |

    After `terms.max_attempts` attempts without a result the next claim makes the step FAILED: `CRASH_LOOP`.

    Args:
        client: A Firestore client, not an `AsyncClient`. Threads may share it.
        run_id: The run, a document of `flow_runs`.
        step_id: The step.
        step_type: The `stepType` to work on; a step of another type is not claimed. None: any type.
        message_id: The message that led here. Noted in the lease, for operators.
        terms: Length of the lease, heartbeats, attempts.
        owner: Who this process is in leases. None: host:pid:random id.
        logger: Where log lines go, with all facts also in the record's attributes `event` and `fields`. By
            default to the logger `worker_chart_export`.

    Yields:
        The step.

    Raises:
        StepNotClaimed: This caller does not have the step, and the block did not run. `reason` says why.
        StepNotFinished: The block ended without a result and without an error.
        LeaseLost: The block ended without a result after the lease was lost.
        RunInvalid: The run can't be read as a flow run.
        BackendUnavailable: Firestore was unavailable for 30 s.
        BackendRefused: Firestore refuses, for example for lack of a permission.
        TypeError: `client` is no synchronous Firestore client.
        ValueError: `run_id` or `step_id` can't be one.
    """
    check_is_client(client)
    if problem := why_run_id_refused(run_id) or why_step_id_refused(step_id):
        raise ValueError(problem)
    settings = LedgerSettings(client=client, terms=terms, owner=owner, logger=logger)
    with shared_ledger(settings) as ledger:
        with logged_to(logger), bound(runId=run_id, stepId=step_id):
            claim = ledger.claim(run_id, step_id, message_id=message_id, step_type=step_type)
            if not isinstance(claim, Claim):
                if claim.reason == Reason.UNLEASED:
                    ledger.adopt(run_id, step_id, now=None)
                raise _not_claimed(run_id, step_id, claim)
        with ClaimedStep(claim=claim, ledger=ledger, logger=logger) as step:
            yield step


def _not_claimed(run_id: str, step_id: str, result: ClaimResult) -> StepNotClaimed:
    seconds = RETRY_SECONDS.get(Reason(str(result.reason)))
    if result.lease_seconds_left is not None:
        seconds = max(MIN_RETRY_SECONDS, result.lease_seconds_left)
    return StepNotClaimed(
        run_id=run_id,
        step_id=step_id,
        reason=cast("NotClaimedReason", str(result.reason)),
        status=cast("StepStatusName | None", result.status),
        retry_after_seconds=seconds,
    )
