"""Who may see the page, and what a browser may do with it."""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import json
import re
import threading
import time
from functools import cache
from http import HTTPStatus
from importlib.resources import files
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from daemon.http.server import PROXY_HEADERS, Answer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from daemon.http.page.thumbnails import Thumbnails
    from daemon.http.server import Request, Responder

#: A thumbnail is asked for as `/thumbnail?<number>`.
NUMBER = re.compile(r"[0-9]{1,16}")
#: All who look within so long are told the same: reporting costs more than answering.
SHARED_SECONDS = 0.5


def page_routes(
    *,
    report: Callable[[], Mapping[str, Any]],
    thumbnails: Thumbnails,
    monotonic: Callable[[], float] = time.monotonic,
) -> dict[str, Responder]:
    """The page, what it polls, and its pictures; for clients on this machine alone."""
    state = _Shared(report, monotonic)
    routes: dict[str, Responder] = {
        "/": lambda _request: _page(),
        "/state.json": lambda _request: state.answer(),
        "/thumbnail": lambda request: _thumbnail(request, thumbnails),
    }
    return {path: _for_this_machine(respond) for path, respond in routes.items()}


def _for_this_machine(respond: Responder) -> Responder:
    """Ids and error words are for those who work here; the probes and metrics hold none and stay open."""

    def guarded(request: Request) -> Answer:
        why_not = why_not_here(request)
        return respond(request) if why_not is None else _forbidden(why_not)

    return guarded


def why_not_here(request: Request) -> str | None:
    """Why this request is refused, in words for its sender; None when it comes from this machine. Pure."""
    if not _is_loopback(request.client):
        port = request.port
        return (
            "This page is for clients on the worker's own machine. Reach it with "
            f"`kubectl port-forward POD {port}` or `ssh -L {port}:127.0.0.1:{port} HOST`, "
            f"then open http://localhost:{port}/."
        )
    if request.is_forwarded:
        names = ", ".join(PROXY_HEADERS)
        return f"This page is for clients on the worker's own machine, not behind a proxy ({names})."
    if not _names_loopback(request.host):
        # Else a name that its owner points at 127.0.0.1 would make this page a part of his site.
        return f"Open this page by a name of this machine, such as http://localhost:{request.port}/."
    return None


def _is_loopback(address: str) -> bool:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    return (getattr(found, "ipv4_mapped", None) or found).is_loopback


def _names_loopback(host: str) -> bool:
    """Whether a `Host` header names this machine, with or without a port."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    return name == "localhost" or name.endswith(".localhost") or _is_loopback(name)


@cache
def _page() -> Answer:
    content = files("daemon.http.page").joinpath("page.html").read_bytes()
    return Answer(
        status=HTTPStatus.OK,
        content_type="text/html; charset=utf-8",
        content=content,
        headers={"Content-Security-Policy": _policy(content.decode())},
    )


def _policy(page: str) -> str:
    """Nothing but the page's own script, style and pictures, and no way into the DOM but text."""
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src {_hashes(page, 'script')}",
            f"style-src {_hashes(page, 'style')}",
            "img-src 'self' data:",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    )


def _hashes(page: str, element: str) -> str:
    """What stands inside these elements, as sources of a content security policy (CSP level 3, 2.3.1)."""
    texts = re.findall(rf"<{element}>(.*?)</{element}>", page, re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in texts]
    return " ".join(f"'sha256-{digest}'" for digest in digests)


class _Shared:
    """One report for all who ask at about the same time. Shared by all threads."""

    def __init__(self, report: Callable[[], Mapping[str, Any]], monotonic: Callable[[], float]) -> None:
        self._report = report
        self._monotonic = monotonic
        self._making = threading.Lock()
        self._made: tuple[float, Answer] | None = None

    def answer(self) -> Answer:
        """As it is now, or was a moment ago."""
        with self._making:
            if self._made is None or self._monotonic() - self._made[0] >= SHARED_SECONDS:
                answer = _json(self._report())
                self._made = self._monotonic(), answer
            return self._made[1]


def _json(body: Mapping[str, Any]) -> Answer:
    content = json.dumps(body, separators=(",", ":")).encode()
    return Answer(status=HTTPStatus.OK, content_type="application/json", content=content)


def _thumbnail(request: Request, thumbnails: Thumbnails) -> Answer:
    is_number = NUMBER.fullmatch(request.query) is not None
    picture = thumbnails.png(int(request.query)) if is_number else None
    if picture is None:
        return _sentence(HTTPStatus.NOT_FOUND, "This thumbnail is gone.")
    return Answer(status=HTTPStatus.OK, content_type="image/png", content=picture)


def _forbidden(why: str) -> Answer:
    return _sentence(HTTPStatus.FORBIDDEN, why)


def _sentence(status: HTTPStatus, words: str) -> Answer:
    return Answer(status=status, content_type="text/plain; charset=utf-8", content=f"{words}\n".encode())
