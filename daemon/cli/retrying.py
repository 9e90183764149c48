"""Find FAILED steps, and retry them: the charts to keep, the guarded commit, the message."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from daemon.cli.places import place_of, with_place
from daemon.reports.assemble import manifest_uri
from daemon.reports.steps import step_pages
from worker_chart_export.descriptions import describe
from worker_chart_export.errors import BackendRefused, BackendUnavailable, WorkerError
from worker_chart_export.inputs.flow_run import StepStatus
from worker_chart_export.ledger.decisions import Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from daemon.reports.steps import StepFilter
    from worker_chart_export.inputs.flow_run import FlowRun
    from worker_chart_export.ledger.operator_ledger import OperatorLedger
    from worker_chart_export.outputs.results import StoredResults

ADVICE = {
    Reason.RUN_FINAL: ". Start a new run, or give --reopen-run, which makes the run RUNNING again",
    Reason.DEPENDS_ON: ". Get that step done first",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryStep:
    """A step to retry, as it was read.

    Attributes:
        run_id: The run.
        step_id: The step.
        code: The code of its error.
        is_of_final_run: Whether its run has ended.
        failure: Its `finishedAt`.
        manifest_uri: The manifest of the failure, if it has one.
    """

    run_id: str
    step_id: str
    code: str
    is_of_final_run: bool
    failure: Any
    manifest_uri: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Retried:
    """The result of one retry.

    Attributes:
        step: The step.
        retried: Whether it is READY again.
        message_id: The message that was sent for it.
        reason: Why the one or the other was not done.
        is_backend_failure: Whether a backend was the reason.
    """

    step: RetryStep
    retried: bool
    message_id: str | None = None
    reason: str | None = None
    is_backend_failure: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return the object of the JSON output. Its names are stable."""
        return {
            "runId": self.step.run_id,
            "stepId": self.step.step_id,
            "retried": self.retried,
            "reason": self.reason,
            "messageId": self.message_id,
        }


def steps_of_run(run: FlowRun, step_ids: Sequence[str]) -> list[RetryStep]:
    """Return these steps of a run; without ids, all its FAILED chart steps."""
    raw_steps = run.document["steps"]
    if not step_ids:
        names = run.chart_step_ids()
        step_ids = [name for name in names if raw_steps[name].get("status") == StepStatus.FAILED]
    return [_of_run(run, step_id) for step_id in dict.fromkeys(step_ids)]


def _of_run(run: FlowRun, step_id: str) -> RetryStep:
    found = run.document["steps"].get(step_id)
    raw = found if isinstance(found, Mapping) else {}
    error = raw.get("error")
    return RetryStep(
        run_id=run.run_id,
        step_id=step_id,
        code=str(error.get("code") or "") if isinstance(error, Mapping) else "",
        is_of_final_run=run.is_final,
        failure=raw.get("finishedAt"),
        manifest_uri=manifest_uri(raw),
    )


def failed_steps(client: Any, steps: StepFilter, on_invalid: Callable[[str], None]) -> Iterator[RetryStep]:
    """Yield the steps of all runs that match; the arguments and errors as in `step_pages`."""
    for page in step_pages(client, steps, on_invalid=on_invalid):
        for listed in page:
            yield RetryStep(
                run_id=listed.run.run_id,
                step_id=listed.step.step_id,
                code=listed.step.error.code if listed.step.error else "",
                is_of_final_run=listed.run.is_final,
                failure=listed.raw.get("finishedAt"),
                manifest_uri=listed.manifest_uri,
            )


class Retrier:
    """Retries steps. Shared by all threads.

    Args:
        ledger: Makes the guarded commits.
        publish: Sends the message for a step.
        results: Finds the charts of the failed attempts. None: they are made anew.
        bucket: The charts bucket; needed with `results`.
        reopens_runs: Whether a final run becomes RUNNING again.
    """

    def __init__(
        self,
        *,
        ledger: OperatorLedger,
        publish: Callable[[str, str], str],
        results: StoredResults | None,
        bucket: str,
        reopens_runs: bool,
    ) -> None:
        self._ledger = ledger
        self._publish = publish
        self._results = results
        self._bucket = bucket
        self._reopens_runs = reopens_runs

    def retry(self, step: RetryStep) -> Retried:
        """Retry a step. Errors of backends are in the result, so that the other steps go on."""
        try:
            charts_of = None
            if self._results is not None:
                charts_of = self._results.charts_since(
                    self._bucket, step.run_id, step.step_id, step.manifest_uri
                )
            result = self._ledger.retry(
                step.run_id,
                step.step_id,
                failure=step.failure,
                charts_of=charts_of,
                reopens_run=self._reopens_runs,
            )
        except (BackendRefused, BackendUnavailable) as error:
            return Retried(step=step, retried=False, reason=with_place(error), is_backend_failure=True)
        except WorkerError as error:
            return Retried(step=step, retried=False, reason=str(error))
        if not result.retried:
            reason = f"{describe(str(result.reason))}{ADVICE.get(Reason(str(result.reason)), '')}"
            return Retried(step=step, retried=False, reason=f"{reason} ({place_of('firestore')})")
        try:
            message_id = self._publish(step.run_id, step.step_id)
        except (BackendRefused, BackendUnavailable) as error:
            reason = f"it is READY, but its message was not sent: {with_place(error)}. Use publish to send it"
            return Retried(step=step, retried=True, reason=reason, is_backend_failure=True)
        return Retried(step=step, retried=True, message_id=message_id)
