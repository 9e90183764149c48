"""`emulators`: the embedded Pub/Sub, Firestore, Storage and Chart-IMG, until Ctrl-C."""

from __future__ import annotations

import shlex
import signal
import socket
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict
from typing import Annotated

import typer

from daemon.cli.demo.resources import DEMO_BUCKET, QUARANTINE, SUBSCRIPTION, Stage
from daemon.lifecycle.signals import STOP_SIGNALS, block_stop_signals
from daemon.settings.daemon import SettingsError
from localcloud import LocalCloud
from localcloud.cloud import Ports

Port = Annotated[int, typer.Option(help="0 = a free one.", min=0, max=65535)]

HOST = "127.0.0.1"
NAME = "emulators"
EXAMPLES = (
    "Examples: worker-chart-export emulators | worker-chart-export emulators --with-demo-data > emulators.env"
)


def command(
    project: Annotated[str, typer.Option(help="The project id to use.")] = "demo-project",
    pubsub_port: Port = 0,
    firestore_port: Port = 0,
    storage_port: Port = 0,
    with_demo_data: Annotated[
        bool,
        typer.Option("--with-demo-data", help="Also make a topic, a subscription, a bucket and demo runs."),
    ] = False,
) -> None:
    """Start the embedded Pub/Sub, Firestore and Storage and print the export lines; Ctrl-C ends them.

    In another shell, source emulators.env makes Google's clients find them.
    With demo data, a comment line for each demo step holds the command that
    publishes it, and the daemon needs only CHARTS_API_MODE=local besides.
    """
    block_stop_signals()
    ports = Ports(pubsub=pubsub_port, firestore=firestore_port, storage=storage_port)
    for name, port in asdict(ports).items():
        _check_free(name, port)
    with LocalCloud.start(project=project, ports=ports) as cloud:
        environment = cloud.environment()
        if with_demo_data:
            _print_publish_commands(environment)
            environment |= {
                "PUBSUB_SUBSCRIPTION": SUBSCRIPTION,
                "QUARANTINE_TOPIC": QUARANTINE,
                "CHARTS_BUCKET": f"gs://{DEMO_BUCKET}",
            }
        for name, value in environment.items():
            typer.echo(f"export {name}={shlex.quote(value)}")
        signal.sigwait(STOP_SIGNALS)


def _check_free(name: str, port: int) -> None:
    """Refuse a port before anything is started; gRPC's own words about it are none for a person."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise SettingsError(
                [f"--{name}-port: can't listen on {HOST}:{port}: {error.strerror}"]
            ) from error


def _print_publish_commands(environment: Mapping[str, str]) -> None:
    """Make the demo data. The commands are comments, so that the whole output can be sourced."""
    with closing(Stage(environment)) as stage:
        for step in stage.build():
            typer.echo(f"# {shlex.join(['worker-chart-export', 'publish', step.run_id, step.step_id])}")
