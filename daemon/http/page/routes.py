"""The routes of the page, which clients may open it, and what a browser may do with it."""

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

from daemon.http.server import PROXY_HEADERS, Response

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from daemon.http.page.thumbnails import Thumbnails
    from daemon.http.server import Request, Responder

#: A thumbnail is requested as `/thumbnail?<number>`.
NUMBER = re.compile(r"[0-9]{1,16}")
#: Requests within this time share one report, because a report costs more than a response.
SHARED_SECONDS = 0.5


def page_routes(
    *,
    report: Callable[[], Mapping[str, Any]],
    thumbnails: Thumbnails,
    history: Responder,
    monotonic: Callable[[], float] = time.monotonic,
) -> dict[str, Responder]:
    """Return the paths of the page, its state and its pictures, open to clients on this machine only."""
    state = _SharedState(report, monotonic)
    routes: dict[str, Responder] = {
        "/": lambda _request: _page(),
        "/state.json": lambda _request: state.response(),
        "/history.json": history,
        "/thumbnail": lambda request: _thumbnail(request, thumbnails),
    }
    return {path: _for_this_machine(respond) for path, respond in routes.items()}


def _for_this_machine(respond: Responder) -> Responder:
    """Refuse other machines: the page shows ids and error messages. Probes and metrics show none."""

    def guarded(request: Request) -> Response:
        refusal = why_refused(request)
        return respond(request) if refusal is None else _text(HTTPStatus.FORBIDDEN, refusal)

    return guarded


def why_refused(request: Request) -> str | None:
    """Return why the request is refused, for its sender, or None if it comes from this machine. Pure."""
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
    try:
        name = urlsplit(f"//{request.host}").hostname or ""
    except ValueError:
        name = ""
    if not (name == "localhost" or name.endswith(".localhost") or _is_loopback(name)):
        # DNS rebinding: another site's name may resolve to 127.0.0.1, and its script could read this page.
        return f"Open this page by a name of this machine, such as http://localhost:{request.port}/."
    return None


def _is_loopback(address: str) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return (getattr(parsed, "ipv4_mapped", None) or parsed).is_loopback


@cache
def _page() -> Response:
    content = files("daemon.http.page").joinpath("page.html").read_bytes()
    return Response(
        content_type="text/html; charset=utf-8",
        content=content,
        headers={"Content-Security-Policy": _content_security_policy(content.decode())},
    )


def _content_security_policy(page: str) -> str:
    """Allow only the page's own script, style and pictures, and changes of the DOM by text only."""
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
    """Return the hash sources of these inline elements (Content Security Policy Level 3, 2.3.1)."""
    texts = re.findall(rf"<{element}>(.*?)</{element}>", page, re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in texts]
    return " ".join(f"'sha256-{digest}'" for digest in digests)


class _SharedState:
    """One report for all requests at about the same time. Shared by all threads."""

    def __init__(self, report: Callable[[], Mapping[str, Any]], monotonic: Callable[[], float]) -> None:
        self._report = report
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._latest: tuple[float, Response] | None = None

    def response(self) -> Response:
        """Return a report that is at most `SHARED_SECONDS` old."""
        with self._lock:
            if self._latest is None or self._monotonic() - self._latest[0] >= SHARED_SECONDS:
                content = json.dumps(self._report(), separators=(",", ":")).encode()
                response = Response(content_type="application/json", content=content)
                self._latest = self._monotonic(), response
            return self._latest[1]


def _thumbnail(request: Request, thumbnails: Thumbnails) -> Response:
    is_number = NUMBER.fullmatch(request.query) is not None
    picture = thumbnails.png(int(request.query)) if is_number else None
    if picture is None:
        return _text(HTTPStatus.NOT_FOUND, "This thumbnail is gone.")
    return Response(content_type="image/png", content=picture)


def _text(status: HTTPStatus, text: str) -> Response:
    return Response(status=status, content_type="text/plain; charset=utf-8", content=f"{text}\n".encode())
