"""A worker that holds a step with `claim_step`, and does with it what its standard input says.

Arguments: the run, the step, the seconds of its lease, and the URI of its result.
"""

from __future__ import annotations

import os
import sys
import time

from google.cloud import firestore

from worker_chart_export.orchestration import (
    ClaimedStep,
    LeaseTerms,
    StepNotClaimed,
    WorkerError,
    claim_step,
)


def tell(*words: object) -> None:
    """Print a line for the test."""
    print(*words, flush=True)  # noqa: T201 - it is this script's output


def obey(step: ClaimedStep, uri: str) -> None:
    """Do what the lines say, until the step has its result."""
    for line in sys.stdin:
        match line.strip():
            case "succeed":
                step.succeed(uri)
                return
            case "fork":
                child = os.fork()
                if child == 0:
                    step.check()
                tell("child", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


def main(run_id: str, step_id: str, lease_seconds: str, uri: str) -> None:
    """Wait for the step, hold it, and tell how that ended."""
    client = firestore.Client(project=os.environ["GOOGLE_CLOUD_PROJECT"])
    terms = LeaseTerms(lease_seconds=float(lease_seconds), heartbeat_seconds=0.2, clock_skew_seconds=0.5)
    parent = os.getpid()
    while True:
        try:
            with claim_step(client, run_id, step_id, step_type="CHART_EXPORT", terms=terms) as step:
                tell("claimed", step.attempt)
                obey(step, uri)
            tell(step.result)
        except StepNotClaimed as refusal:
            tell(refusal.reason)
            time.sleep(min(0.5, refusal.retry_after_seconds or 0))
            continue
        except (WorkerError, KeyboardInterrupt) as error:
            if os.getpid() != parent:
                os._exit(7)
            tell(type(error).__name__)
        return


if __name__ == "__main__":
    main(*sys.argv[1:])
