"""The command `healthcheck`: check that the daemon on this machine is alive, for container probes.

This module does not import Google's clients or the settings: a probe runs every few seconds, and these take a
second to load.
"""

from __future__ import annotations

import http.client
import json
from contextlib import closing
from http import HTTPStatus
from ipaddress import ip_address
from typing import Annotated, NamedTuple

import typer

from daemon.cli.output import examples
from daemon.exit import ExitCode
from daemon.lifecycle.stoppable_wait import StoppableWait
from worker_chart_export.errors import shown

EXAMPLES = examples("healthcheck", "healthcheck --port 9090")
#: For the whole check: name lookup, connection and answer.
TIMEOUT_SECONDS = 2.0
#: The `Server` header of the daemon's answers.
SERVER = "worker-chart-export"
MAX_ANSWER_BYTES = 65536


class HttpAnswer(NamedTuple):
    """An HTTP answer; `server` is its `Server` header."""

    status: int
    server: str | None
    content: bytes


class NotAlive(Exception):
    """No daemon confirmed that it is alive. The message says why."""


def command(
    host: Annotated[
        str, typer.Option(envvar="HEALTH_HOST", help="The daemon's address. 0.0.0.0 means 127.0.0.1.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(envvar="HEALTH_PORT", help="The daemon's port.", min=0, max=65535)
    ] = 8080,
) -> None:
    """Request /livez from the daemon on this machine; exit 0 if alive, else 1 and the reason.

    No proxy is used. A daemon that does not answer within 2 seconds counts as
    not alive. So does an answer from another program. With HEALTH_PORT=0 the
    port is not known: exit 2, as for wrong arguments.
    """
    if port == 0:
        raise typer.BadParameter(
            "HEALTH_PORT=0 lets the daemon choose a free port: name that port with --port "
            "(the daemon logs it as healthPort in daemon_started)"
        )
    if not host:
        raise typer.BadParameter("--host: expected an address, got nothing")
    address = reachable(host)
    place = f"http://{f'[{address}]' if ':' in address else address}:{port}/livez"
    try:
        ask(address, port)
    except NotAlive as problem:
        typer.echo(f"not alive: {place} {problem}", err=True)
        raise typer.Exit(ExitCode.JOB_FAILED) from None
    typer.echo(f"alive: {place}")


def reachable(host: str) -> str:
    """Return the address that reaches a listener on `host`: 0.0.0.0 includes this machine's loopback."""
    try:
        address = ip_address(host)
    except ValueError:
        return host
    if not address.is_unspecified:
        return host
    return "::1" if address.version == 6 else "127.0.0.1"  # noqa: PLR2004 - IPv6


def ask(host: str, port: int, *, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
    """Check that a daemon at this address is alive.

    Raises:
        NotAlive: It reports that it is not alive, another program answers, or nothing answers in time.
    """
    # In a thread that may outlive this call: a name lookup or a slow answer can take longer than the timeout.
    answer = StoppableWait().start(lambda: _request_livez(host, port, timeout_seconds), name="livez")
    try:
        check(answer.result(timeout_seconds))
    except TimeoutError:
        raise NotAlive(f"did not answer within {timeout_seconds:g} s") from None
    except OSError as error:
        raise NotAlive(f"can't be reached: {error.strerror or error}") from None
    except (http.client.HTTPException, UnicodeError) as error:
        raise NotAlive(f"can't be checked over HTTP: {type(error).__name__}") from None


def _request_livez(host: str, port: int, timeout_seconds: float) -> HttpAnswer:
    with closing(http.client.HTTPConnection(host, port, timeout=timeout_seconds)) as connection:
        connection.request("GET", "/livez")
        answer = connection.getresponse()
        return HttpAnswer(answer.status, answer.getheader("Server"), answer.read(MAX_ANSWER_BYTES))


def check(answer: HttpAnswer) -> None:
    """Check that this is the answer of a daemon that is alive; errors as `ask`."""
    try:
        body = json.loads(answer.content)
    except (ValueError, RecursionError):
        body = None
    known = body if isinstance(body, dict) and (answer.server or "").strip() == SERVER else {}
    if answer.status == HTTPStatus.OK and known.get("status") == "ok":
        return
    if answer.status == HTTPStatus.SERVICE_UNAVAILABLE and known.get("reason"):
        raise NotAlive(f"reports: {shown(known['reason'], 200)}")
    raise NotAlive(
        f"is not a worker-chart-export daemon: HTTP {answer.status}, Server header {shown(answer.server)}: "
        f"{shown(answer.content.decode('latin-1'))}"
    )
