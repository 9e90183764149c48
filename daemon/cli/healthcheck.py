"""`healthcheck`: whether the daemon on this machine is alive, for container and systemd probes.

Imports neither Google's clients nor the settings: a probe comes every few seconds, and they take a second.
"""

from __future__ import annotations

import http.client
import json
from contextlib import closing
from ipaddress import ip_address
from typing import Annotated

import typer

from daemon.exit_codes import ExitCode
from worker_chart_export.errors import shown

NAME = "healthcheck"
EXAMPLES = "Examples: worker-chart-export healthcheck | worker-chart-export healthcheck --port 9090"
#: To connect, and for each piece of the answer.
TIMEOUT_SECONDS = 2.0
MAX_ANSWER_BYTES = 65536


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

    No proxy is used. Silence for 2 seconds counts as not alive. A daemon with
    HEALTH_PORT=0 has no fixed port to ask: exit 2, as for wrong arguments.
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


def ask(host: str, port: int) -> None:
    """Return if a daemon says there that it is alive.

    Raises:
        NotAlive: It says that it is not, something else answers, or nothing does.
    """
    try:
        with closing(http.client.HTTPConnection(host, port, timeout=TIMEOUT_SECONDS)) as connection:
            connection.request("GET", "/livez")
            answer = connection.getresponse()
            check(answer.status, answer.read(MAX_ANSWER_BYTES))
    except TimeoutError:
        raise NotAlive(f"did not answer within {TIMEOUT_SECONDS:g} s") from None
    except OSError as error:
        raise NotAlive(f"can't be reached: {error.strerror or error}") from None
    except (http.client.HTTPException, UnicodeError) as error:
        raise NotAlive(f"can't be asked over HTTP: {type(error).__name__}") from None


def check(status: int, content: bytes) -> None:
    """Return if this is what a daemon that is alive answers; errors as `ask`."""
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        body = None
    known = body if isinstance(body, dict) else {}
    if status == http.client.OK and known.get("status") == "ok":
        return
    if status == http.client.SERVICE_UNAVAILABLE and known.get("reason"):
        raise NotAlive(f"says: {shown(known['reason'], 200)}")
    raise NotAlive(f"answers as no daemon of ours does: HTTP {status} {shown(content.decode('latin-1'))}")
