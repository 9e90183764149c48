"""The command `release`: end the lease of a step, so that another worker takes the step over."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from daemon.cli.durations import parse_duration
from daemon.cli.operator import audit, log_to_standard_error, operator_name
from daemon.cli.output import OutputFormat, examples
from daemon.cli.places import asking_for, place_of
from daemon.exit import ExitCode
from worker_chart_export.errors import RunInvalid, visible
from worker_chart_export.inputs.flow_run import why_run_id_refused, why_step_id_refused
from worker_chart_export.timing import SystemClock, span

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker_chart_export.ledger.decisions import ReleaseResult
    from worker_chart_export.ledger.lease import Lease

EXAMPLES = examples(
    "release 20251215-102530_IBM_k3f7a charts:1d:all",
    "release 20251215-102530_IBM_k3f7a charts:1d:all --force",
    "release 20251215-102530_IBM_k3f7a charts:1d:all --wait 0s",
)
UNLEASED_ADVICE = ", so its worker can't be stopped. If no worker works on it, give --force"
#: A frozen process still receives messages, and keeps each until its ack deadline. So another one is sent.
SEND_AGAIN_SECONDS = 2.0
LOOK_SECONDS = 0.5
DEFAULT_WAIT = "15s"


def command(
    run_id: Annotated[str, typer.Argument(help="The run.", metavar="RUN_ID")],
    step_id: Annotated[str, typer.Argument(help="The step.", metavar="STEP_ID")],
    force: Annotated[
        bool, typer.Option("--force", help="Also release a step that is RUNNING without a lease.")
    ] = False,
    topic: Annotated[
        str | None,
        typer.Option(help="A topic id or full path. Default: the topic of the subscription."),
    ] = None,
    wait: Annotated[
        timedelta,
        typer.Option(
            parser=parse_duration,
            help="How long to wait for the next worker. 0s: send one message, and don't wait.",
            metavar="DURATION",
        ),
    ] = DEFAULT_WAIT,  # type: ignore[assignment] # parsed like an argument
    output: Annotated[OutputFormat, typer.Option(help="A sentence, or a JSON array.")] = OutputFormat.TEXT,
) -> None:
    """End the lease of a RUNNING step now, and send the message that gets it done.

    Whoever holds the step stops at its next heartbeat, and can't write its result
    any more. A daemon takes the step over within seconds, and uses the charts
    that are stored already. The release does not count as an attempt.

    The message may go to the frozen process. So it is sent again, until a worker
    has taken the step over or the time of --wait is over.

    Never delete a lease document instead: then the step is RUNNING without one,
    and waits for UNLEASED_GRACE_SECONDS.

    Needs GOOGLE_CLOUD_PROJECT, and PUBSUB_SUBSCRIPTION or --topic. Exit code 0:
    the step is released, taken over or not yet. 1: it is not RUNNING, or has no
    lease. 2: bad settings or arguments. 3: a backend refuses or does not answer.
    """
    from daemon.cli.publishing import step_messages, target_topic
    from daemon.clients import firestore_client
    from daemon.settings import FirestoreSettings, load_settings

    if problem := why_run_id_refused(run_id) or why_step_id_refused(step_id):
        raise typer.BadParameter(problem)
    things = (f"run {run_id}", f"step {visible(step_id)}")
    settings = load_settings(FirestoreSettings)
    target = target_topic(topic, *things)
    log_to_standard_error()
    with ExitStack() as resources:
        with asking_for(*things):
            client = firestore_client(settings.google_cloud_project, settings.firestore_db)
            resources.callback(client.close)
            result, lease = _release(client, run_id, step_id, force=force)
        if result.released and lease is not None:
            audit("release", f"Released the step of {visible(lease.owner)}", runId=run_id, stepId=step_id)
        publish = resources.enter_context(step_messages(target))
        message_id = publish(run_id, step_id)
        row = {
            "runId": run_id,
            "stepId": step_id,
            "released": result.released,
            "reason": result.reason,
            "owner": lease.owner if lease else None,
            "attempt": lease.attempt if lease else None,
            "messageId": message_id,
        }
        if output is OutputFormat.TEXT:
            typer.echo(_sentence(row))
        taken_over_by = None
        if wait:
            with asking_for(*things):
                taken_over_by = _next_holder(
                    client, lambda: publish(run_id, step_id), run_id, step_id, wait.total_seconds()
                )
    _print_end(row, taken_over_by, output)


def _print_end(row: dict[str, Any], taken_over_by: str | None, output: OutputFormat) -> None:
    if output is OutputFormat.JSON:
        typer.echo(json.dumps([row | {"takenOverBy": taken_over_by or None}]))
    elif taken_over_by is not None:
        typer.echo(
            f"Taken over by {visible(taken_over_by)}" if taken_over_by else "Another worker has finished it"
        )


def _sentence(row: dict[str, Any]) -> str:
    what = "Released step" if row["released"] else "It was released before: step"
    held = f"held by {visible(row['owner'])}, attempt {row['attempt']}"
    return f"{what} {visible(row['stepId'])}, {held}. Sent message {row['messageId']}"


def _next_holder(
    client: Any, send: Callable[[], object], run_id: str, step_id: str, seconds: float
) -> str | None:
    """Wait for the next holder of a released step, and send its message again meanwhile.

    Returns:
        Its owner; an empty string if the step has ended already; None: nobody has taken it over.
    """
    from worker_chart_export.ledger.listing import read_leases

    started = sent_at = time.monotonic()
    while True:
        lease = read_leases(client, [(run_id, step_id)]).get((run_id, step_id))
        if lease is None or lease.token:
            return lease.owner if lease else ""
        now = time.monotonic()
        if now - started >= seconds:
            advice = "The command workers shows if a daemon is there and not paused"
            typer.echo(f"warning: nobody took the step over within {span(seconds)}. {advice}", err=True)
            return None
        if now - sent_at >= SEND_AGAIN_SECONDS:
            send()
            sent_at = now
        time.sleep(min(LOOK_SECONDS, seconds))


def _release(client: object, run_id: str, step_id: str, *, force: bool) -> tuple[ReleaseResult, Lease | None]:
    """Release the step, or end the command with the reason why that can't be done."""
    from worker_chart_export.descriptions import describe
    from worker_chart_export.ledger.decisions import Reason
    from worker_chart_export.ledger.operator_ledger import OperatorLedger

    ledger = OperatorLedger(client=client, clock=SystemClock(), operator=operator_name())
    try:
        result, lease = ledger.release(run_id, step_id, takes_unleased=force)
    except RunInvalid as error:
        raise _refused(f"the run can't be read: {error}", run_id, step_id) from error
    if result.released or result.reason == Reason.RELEASED:
        return result, lease
    advice = UNLEASED_ADVICE if result.reason == Reason.UNLEASED else ""
    raise _refused(f"{describe(str(result.reason))}{advice}", run_id, step_id)


def _refused(why: str, run_id: str, step_id: str) -> typer.Exit:
    """Print why nothing was released, and return the end of the command."""
    step = f"run {run_id}, step {visible(step_id)}, {place_of('firestore')}"
    typer.echo(f"error: nothing was released: {why} ({step})", err=True)
    return typer.Exit(ExitCode.JOB_FAILED)
