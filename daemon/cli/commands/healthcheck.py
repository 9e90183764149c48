"""`healthcheck`: whether the daemon on this machine is alive, for container and systemd probes.

Imports neither Google's clients nor the settings: a probe comes every few seconds, and they take a second.
"""

from __future__ import annotations

import http.client
import json
from contextlib import closing
from ipaddress import ip_address
from typing import Annotated, NamedTuple

import typer

from daemon.exit import ExitCode
from daemon.lifecycle.stoppable_wait import StoppableWait
from worker_chart_export.errors import shown

NAME = "healthcheck"
EXAMPLES = "Examples: worker-chart-export healthcheck | worker-chart-export healthcheck --port 9090"
#: To find the address, to connect, and for the whole of the answer.
TIMEOUT_SECONDS = 2.0
#: As the daemon's answers are signed.
SERVER = "worker-chart-export"
MAX_ANSWER_BYTES = 65536


class Answer(NamedTuple):
    """What was answered; `server` says who did, if anybody says so."""

    status: int
    server: str | None
    content: bytes


class NotAlive(Exception):
    """The daemon does not say that it is alive; the message says why."""


def command(
    host: Annotated[
        str, typer.Option(envvar="HEALTH_HOST", help="Where it listens; 0.0.0.0 is asked at 127.0.0.1.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(envvar="HEALTH_PORT", help="The port it listens on.", min=0, max=65535)
    ] = 8080,
) -> None:
    """Ask /livez of the daemon on this machine: exit 0 if it is alive, else 1 and one line that says why.

    No proxy is used. No answer within 2 seconds counts as not alive, nor does
    any but a daemon's own. With HEALTH_PORT=0 there is no fixed port to ask:
    exit 2, as for wrong arguments.
    """
    if port == 0:
        raise typer.BadParameter(
            "HEALTH_PORT=0 lets the daemon take any free port, so there is none to ask: name it with --port "
            "(the daemon's log has it as healthPort in daemon_started)"
        )
    address = reachable(host)
    place = f"http://{f'[{address}]' if ':' in address else address}:{port}/livez"
    try:
        ask(address, port)
    except NotAlive as problem:
        typer.echo(f"not alive: {place} {problem}", err=True)
        raise typer.Exit(ExitCode.JOB_FAILED) from None
    typer.echo(f"alive: {place}")


def reachable(host: str) -> str:
    """The address to ask for a listener on `host`: on every address means on this machine's own too."""
    try:
        address = ip_address(host)
    except ValueError:
        return host
    if not address.is_unspecified:
        return host
    return "::1" if address.version == 6 else "127.0.0.1"  # noqa: PLR2004 - IPv6


def ask(host: str, port: int, *, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
    """Return if a daemon says there that it is alive.

    Raises:
        NotAlive: It says that it is not, something else answers, or nothing does in that time.
    """
    # In a thread, which is left behind: neither a name server nor a slow writer knows of deadlines.
    answer = StoppableWait().start(lambda: _answer(host, port, timeout_seconds), name="ask")
    try:
        check(answer.result(timeout_seconds))
    except TimeoutError:
        raise NotAlive(f"did not answer within {timeout_seconds:g} s") from None
    except OSError as error:
        raise NotAlive(f"can't be reached: {error.strerror or error}") from None
    except (http.client.HTTPException, UnicodeError) as error:
        raise NotAlive(f"can't be asked over HTTP: {type(error).__name__}") from None


def _answer(host: str, port: int, timeout_seconds: float) -> Answer:
    with closing(http.client.HTTPConnection(host, port, timeout=timeout_seconds)) as connection:
        connection.request("GET", "/livez")
        answer = connection.getresponse()
        return Answer(answer.status, answer.getheader("Server"), answer.read(MAX_ANSWER_BYTES))


def check(answer: Answer) -> None:
    """Return if this is what a daemon that is alive answers; errors as `ask`."""
    try:
        body = json.loads(answer.content)
    except (ValueError, RecursionError):
        body = None
    known = body if isinstance(body, dict) and (answer.server or "").strip() == SERVER else {}
    if answer.status == http.client.OK and known.get("status") == "ok":
        return
    if answer.status == http.client.SERVICE_UNAVAILABLE and known.get("reason"):
        raise NotAlive(f"says: {shown(known['reason'], 200)}")
    raise NotAlive(
        f"answers as no daemon of ours does: HTTP {answer.status}, Server header {shown(answer.server)}: "
        f"{shown(answer.content.decode('latin-1'))}"
    )
