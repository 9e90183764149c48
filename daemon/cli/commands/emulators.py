"""The command `emulators`: run the embedded cloud for another command, or until Ctrl-C."""

from __future__ import annotations

import shlex
import signal
import socket
import sys
from contextlib import closing
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from daemon.cli.output import examples
from daemon.lifecycle.interpreter import long_lived
from daemon.lifecycle.library_defaults import given_environment
from daemon.lifecycle.signals import STOP_SIGNALS, block_stop_signals
from daemon.reports.wording import command_line
from worker_chart_export.errors import shown

if TYPE_CHECKING:
    from collections.abc import Mapping

Port = Annotated[int, typer.Option(help="0 = a free one.", min=0, max=65535)]

HOST = "127.0.0.1"
EXAMPLES = examples(
    "emulators -- pytest tests",
    "emulators --with-demo-data -- sh",
    "emulators --with-demo-data > emulators.env",
)


class CommandAfterDashes(TyperCommand):
    """A command whose last argument is another command; that one keeps its own options."""

    allow_interspersed_args = False

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Refuse `--` without a command: it would start emulators that print variables and don't end."""
        if args[-1:] == ["--"] and args.count("--") == 1:
            raise typer.BadParameter("expected a command after --")
        return super().parse_args(ctx, args)


CLASS = CommandAfterDashes


def command(
    child: Annotated[
        list[str] | None,
        typer.Argument(help="A command to run with the variables set.", metavar="-- COMMAND"),
    ] = None,
    project: Annotated[str, typer.Option(help="The project id to use.")] = "demo-project",
    pubsub_port: Port = 0,
    firestore_port: Port = 0,
    storage_port: Port = 0,
    with_demo_data: Annotated[
        bool,
        typer.Option("--with-demo-data", help="Also create a topic, a subscription, a bucket and demo runs."),
    ] = False,
) -> None:
    """Start the embedded Pub/Sub, Firestore and Storage, and run a command that uses them.

    The command gets the variables that Google's clients read. With demo data it
    also gets those of the daemon, which then needs no other. When the command
    ends, the emulators end too, with all that it left running.

    Exit code: that of the command; 128 and the signal's number if a signal ended
    it. 126: it can't be executed. 127: there is no such command. Signals are
    passed on to it.

    Without a command, prints export lines and runs until Ctrl-C. Save them in a
    file, and run . ./emulators.env in another shell.

    Served, as on Google Cloud: what Google's clients do with messages, documents
    and objects. Not served: push endpoints, schemas, exports, permissions. They
    are refused by name, never dropped, and standard error gets a line about each,
    as some clients hide it. LOCALCLOUD_CONTROL_URL makes errors,
    delays and outages on purpose. The lists and examples:
    docs/embedded-cloud.md.
    """
    with long_lived():
        from daemon.cli.child_command import ENDED_BY_SIGNAL, ChildCommand, end_by_signal
        from daemon.cli.demo.variables import demo_variables
        from daemon.settings import PROJECT
        from localcloud import LocalCloud
        from localcloud.cloud import Ports

    if PROJECT.fullmatch(project) is None:
        raise typer.BadParameter(f"--project: expected a Google Cloud project id, got {shown(project)}")
    ports = Ports(pubsub=pubsub_port, firestore=firestore_port, storage=storage_port)
    for name, port in asdict(ports).items():
        _check_free(name, port)
    given = given_environment()
    # First the child: it keeps the signals that are blocked now.
    started = ChildCommand(child) if child else None
    block_stop_signals()
    code = 0
    with LocalCloud.start(project=project, ports=ports, report=partial(typer.echo, err=True)) as cloud:
        variables = cloud.environment()
        publish = _make_demo_data(variables) if with_demo_data else []
        if with_demo_data:
            variables |= demo_variables(given)
        if started is not None:
            _announce(child or [], publish, given, variables)
            code = started.run({**given, **variables})
        else:
            for line in publish:
                typer.echo(f"# {line}")  # a comment, so that the whole output can be sourced
            for name, value in variables.items():
                typer.echo(f"export {name}={shlex.quote(value)}")
            signal.sigwait(STOP_SIGNALS)
    if code == -signal.SIGINT:
        end_by_signal(signal.SIGINT)
    raise typer.Exit(code if code >= 0 else ENDED_BY_SIGNAL - code)


def _make_demo_data(environment: Mapping[str, str]) -> list[str]:
    """Create the demo's resources and runs, and return the commands that publish their messages."""
    from daemon.cli.demo.resources import DemoResources, fixed_run_id

    with closing(DemoResources(environment)) as resources:
        steps = resources.build(new_run_id=fixed_run_id)
        return [command_line("publish", step.run_id, step.step_id) for step in steps]


def _announce(
    child: list[str], publish: list[str], given: Mapping[str, str], variables: Mapping[str, str]
) -> None:
    """Say on standard error what runs, and which variables the command sees changed."""
    for name, value in variables.items():
        if given.get(name, value) != value:
            typer.echo(f"{name} is {value} for the command, in place of {shown(given[name])}", err=True)
    if sys.stderr.isatty():
        for line in publish:
            typer.echo(line, err=True)
        typer.echo(f"Pub/Sub, Firestore and Storage run here until this ends: {shlex.join(child)}", err=True)


def _check_free(name: str, port: int) -> None:
    """Refuse a port that is in use before anything starts: gRPC's own message is hard to understand."""
    from daemon.settings import SettingsError

    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise SettingsError(
                [f"--{name}-port: can't listen on {HOST}:{port}: {error.strerror}"]
            ) from error
