"""The command `publish`: send a message that names a run or a step."""

from __future__ import annotations

from typing import Annotated

import typer

from daemon.cli.output import examples
from worker_chart_export.inputs.flow_run import why_run_id_refused, why_step_id_refused

EXAMPLES = examples(
    "publish 20251215-102530_IBM_k3f7a",
    "publish 20251215-102530_IBM_k3f7a charts:1d:all",
    "publish 20251215-102530_IBM_k3f7a --topic flow-steps",
)


def command(
    run_id: Annotated[str, typer.Argument(help="The run.", metavar="RUN_ID")],
    step_id: Annotated[
        str | None, typer.Argument(help="The step. Default: all eligible steps.", metavar="STEP_ID")
    ] = None,
    topic: Annotated[
        str | None,
        typer.Option(
            help="A topic id or full path. Default: the topic of the subscription, if it may be read."
        ),
    ] = None,
) -> None:
    """Send a message that starts the export of one step, or of all eligible steps of a run.

    A warning says that the message has no effect now, for example because there
    is no such run, if this account may read the run. The message is sent anyway.
    """
    from daemon.cli.publishing import step_messages, target_topic
    from daemon.cli.run_check import find_reason_for_no_effect

    problem = why_run_id_refused(run_id) or (None if step_id is None else why_step_id_refused(step_id))
    if problem:
        raise typer.BadParameter(problem)
    target = target_topic(topic, f"run {run_id}")
    with step_messages(target) as publish:
        message_id = publish(run_id, step_id)
    typer.echo(f"Published message {message_id} to {target}")
    if (why := find_reason_for_no_effect(run_id, step_id)) is not None:
        typer.echo(f"warning: {why}", err=True)
