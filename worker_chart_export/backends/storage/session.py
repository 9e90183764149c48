"""The session of the Cloud Storage client: Google's authorization over our own connections."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import requests
from google.auth.transport.requests import AuthorizedSession
from requests.structures import CaseInsensitiveDict
from urllib3 import Timeout
from urllib3.exceptions import HTTPError

from worker_chart_export.backends.http.connections import open_connections
from worker_chart_export.backends.http.stoppable_requests import CancellableAdapter

if TYPE_CHECKING:
    from google.auth.credentials import Credentials
    from urllib3 import BaseHTTPResponse, PoolManager

TOKEN_ATTEMPTS = 3
TOKEN_TIMEOUT_SECONDS = 300


class _PlainSession(requests.Session):
    """Sends over urllib3 what needs none of `requests`' cookies, redirects and hooks.

    `requests` prepares each call anew from all of them: a fifth of a step's processor time.
    """

    connections: PoolManager

    def request(  # type: ignore[override]  # what Google's client makes use of
        self,
        method: str,
        url: str,
        data: bytes | str | None = None,
        headers: dict[str, str] | None = None,
        timeout: float | tuple[float, float] | None = None,
        stream: bool = False,  # noqa: FBT001, FBT002 - the base class's own
    ) -> requests.Response:
        """Make a call as `requests` does, but without following redirects.

        Raises:
            ConnectionError: Of `requests`: there was no answer.
        """
        connect, read = timeout if isinstance(timeout, tuple) else (timeout, timeout)
        try:
            answer = self.connections.urlopen(
                method,
                url,
                body=data.encode() if isinstance(data, str) else data,
                headers=headers,
                timeout=Timeout(connect=connect, read=read),
                retries=False,
                redirect=False,
                preload_content=False,
            )
        except HTTPError as error:
            raise requests.ConnectionError(error) from error
        response = _as_response(answer, requests.Request(method, url))
        if not stream:
            response.content  # noqa: B018 - reads it
        return response

    def close(self) -> None:
        """Close the connections."""
        self.connections.clear()
        super().close()


def _as_response(answer: BaseHTTPResponse, request: requests.Request) -> requests.Response:
    response = requests.Response()
    response.raw = answer
    response.status_code, response.reason = answer.status, answer.reason or ""
    response.headers = CaseInsensitiveDict(answer.headers)
    response.url, response.encoding = str(request.url), "utf-8"
    response.request = request  # type: ignore[assignment] # only its method and URL are ever asked for
    return response


class StorageSession(AuthorizedSession, _PlainSession):  # type: ignore[misc]  # Google's has no types
    """Puts Google's authorization on each call, whose sending is left to the class behind.

    Args:
        credentials: Whose access token is sent; fetching one can be stopped too.
        url: The service's.
        connections: How many are kept.

    Raises:
        ValueError: The environment's proxy is none that can be used.
        OSError: Its certificates can't be read.
    """

    def __init__(self, credentials: Credentials, *, url: str, connections: int) -> None:
        super().__init__(credentials, refresh_timeout=TOKEN_TIMEOUT_SECONDS)  # type: ignore[no-untyped-call]
        self.connections = open_connections(url, kept=connections)
        tokens: Any = self._auth_request_session
        for scheme in ("http://", "https://"):
            tokens.mount(scheme, CancellableAdapter(max_retries=TOKEN_ATTEMPTS))
