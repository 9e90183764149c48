"""`publish`: send the message that names a run or a step."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from daemon.publisher import Publisher
from daemon.settings import PubsubSettings, load_settings
from daemon.subscriber import topic_of
from worker_chart_export.identifiers import why_run_id_refused, why_step_id_refused
from worker_chart_export.retry import backend_errors

NAME = "publish"
EXAMPLES = "Examples: worker-chart-export publish 20251215-102530_IBM_k3f7a 'charts:1d:all'"


def command(
    run_id: Annotated[str, typer.Argument(help="The run.", metavar="RUN_ID")],
    step_id: Annotated[
        str | None, typer.Argument(help="The step; without it, all that is eligible.", metavar="[STEP_ID]")
    ] = None,
    topic: Annotated[
        str | None, typer.Option(help="Full path of the topic; without it, the subscription's own.")
    ] = None,
) -> None:
    """Send the message that makes a daemon work a step, or all eligible steps of a run."""
    _check(why_run_id_refused(run_id))
    body = {"runId": run_id}
    if step_id is not None:
        _check(why_step_id_refused(step_id))
        body["stepId"] = step_id
    settings = load_settings(PubsubSettings)
    publisher = Publisher()
    with backend_errors("pubsub"):
        target = topic or topic_of(settings.subscription_path)
        message_id = publisher.publish(target, json.dumps(body).encode(), {})
    typer.echo(f"Published message {message_id} to {target}")


def _check(problem: str | None) -> None:
    if problem:
        raise typer.BadParameter(problem)
