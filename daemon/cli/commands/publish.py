"""The command `publish`: send a message that names a run or a step."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from daemon.cli.output import examples
from daemon.cli.places import asking_for, topic_path
from daemon.cli.run_check import find_reason_for_no_effect
from daemon.settings import PubsubSettings, load_settings
from daemon.subscription.admin import topic_of
from daemon.subscription.publisher import Publisher
from daemon.tracing.publishing import PublisherSpans, note_published
from worker_chart_export.backends.errors import backend_errors
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
    problem = why_run_id_refused(run_id) or (None if step_id is None else why_step_id_refused(step_id))
    if problem:
        raise typer.BadParameter(problem)
    body = {"runId": run_id} | ({} if step_id is None else {"stepId": step_id})
    path = None if topic is None else topic_path(topic)
    subscription = None if path else load_settings(PubsubSettings).subscription_path
    run = f"run {run_id}"
    with asking_for(f"subscription {subscription}", run):
        target = path or topic_of(str(subscription))
    with (
        asking_for(f"topic {target}", run),
        backend_errors("pubsub"),
        PublisherSpans(target) as spans,
        spans.message(body) as attributes,
    ):
        message_id = Publisher().publish(target, json.dumps(body).encode(), attributes)
        note_published(message_id)
    typer.echo(f"Published message {message_id} to {target}")
    if (why := find_reason_for_no_effect(run_id, step_id)) is not None:
        typer.echo(f"warning: {why}", err=True)
