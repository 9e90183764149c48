"""`emulators`: the embedded Pub/Sub, Firestore, Storage and Chart-IMG, until Ctrl-C."""

from __future__ import annotations

import shlex
import signal
from typing import Annotated

import typer

from daemon.demo.stage import DEMO_BUCKET, SUBSCRIPTION, Stage
from daemon.signals import STOP_SIGNALS, block_stop_signals
from localcloud import LocalCloud
from localcloud.cloud import Ports

NAME = "emulators"
EXAMPLES = (
    "Examples: worker-chart-export emulators --with-demo-data > emulators.env & then, in another shell: "
    "source emulators.env && CHARTS_API_MODE=local worker-chart-export daemon"
)


def command(
    project: Annotated[str, typer.Option(help="The project id to use.")] = "demo-project",
    pubsub_port: Annotated[int, typer.Option(help="0 = a free one.")] = 0,
    firestore_port: Annotated[int, typer.Option(help="0 = a free one.")] = 0,
    storage_port: Annotated[int, typer.Option(help="0 = a free one.")] = 0,
    with_demo_data: Annotated[
        bool,
        typer.Option("--with-demo-data", help="Also make a topic, a subscription, a bucket and demo runs."),
    ] = False,
) -> None:
    """Start the embedded Pub/Sub, Firestore and Storage and print the export lines; Ctrl-C ends them."""
    block_stop_signals()
    ports = Ports(pubsub=pubsub_port, firestore=firestore_port, storage=storage_port)
    with LocalCloud.start(project=project, ports=ports) as cloud:
        environment = cloud.environment()
        if with_demo_data:
            stage = Stage(environment)
            stage.build()
            stage.close()
            environment |= {"PUBSUB_SUBSCRIPTION": SUBSCRIPTION, "CHARTS_BUCKET": f"gs://{DEMO_BUCKET}"}
        for name, value in environment.items():
            typer.echo(f"export {name}={shlex.quote(value)}")
        signal.sigwait(STOP_SIGNALS)
