"""The command `emulators`: run the embedded Pub/Sub, Firestore, Storage and Chart-IMG until Ctrl-C."""

from __future__ import annotations

import shlex
import signal
import socket
from contextlib import closing
from dataclasses import asdict
from typing import Annotated

import typer

from daemon.cli.demo.resources import DEMO_BUCKET, QUARANTINE, SUBSCRIPTION, DemoResources
from daemon.cli.output import examples
from daemon.lifecycle.signals import STOP_SIGNALS, block_stop_signals
from daemon.settings import PROJECT, SettingsError
from localcloud import LocalCloud
from localcloud.cloud import Ports
from worker_chart_export.errors import shown

Port = Annotated[int, typer.Option(help="0 = a free one.", min=0, max=65535)]

HOST = "127.0.0.1"
EXAMPLES = examples("emulators", "emulators --with-demo-data > emulators.env")


def command(
    project: Annotated[str, typer.Option(help="The project id to use.")] = "demo-project",
    pubsub_port: Port = 0,
    firestore_port: Port = 0,
    storage_port: Port = 0,
    with_demo_data: Annotated[
        bool,
        typer.Option("--with-demo-data", help="Also create a topic, a subscription, a bucket and demo runs."),
    ] = False,
) -> None:
    """Start the embedded Pub/Sub, Firestore and Storage, and print `export` lines. Ctrl-C stops them.

    Save the lines in a file, and run `source emulators.env` in another shell:
    Google's clients then use the emulators. With demo data, the file also has a
    comment for each demo step: the command that publishes its message. The
    daemon then needs only CHARTS_API_MODE=local in addition.
    """
    if PROJECT.fullmatch(project) is None:
        raise typer.BadParameter(f"--project: expected a Google Cloud project id, got {shown(project)}")
    block_stop_signals()
    ports = Ports(pubsub=pubsub_port, firestore=firestore_port, storage=storage_port)
    for name, port in asdict(ports).items():
        _check_free(name, port)
    with LocalCloud.start(project=project, ports=ports) as cloud:
        environment = cloud.environment()
        if with_demo_data:
            with closing(DemoResources(environment)) as resources:
                for step in resources.build():
                    publish = shlex.join(["worker-chart-export", "publish", step.run_id, step.step_id])
                    typer.echo(f"# {publish}")  # a comment, so that the whole output can be sourced
            environment |= {
                "PUBSUB_SUBSCRIPTION": SUBSCRIPTION,
                "QUARANTINE_TOPIC": QUARANTINE,
                "CHARTS_BUCKET": f"gs://{DEMO_BUCKET}",
            }
        for name, value in environment.items():
            typer.echo(f"export {name}={shlex.quote(value)}")
        signal.sigwait(STOP_SIGNALS)


def _check_free(name: str, port: int) -> None:
    """Refuse a port that is in use before anything starts: gRPC's own message is hard to understand."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise SettingsError(
                [f"--{name}-port: can't listen on {HOST}:{port}: {error.strerror}"]
            ) from error
