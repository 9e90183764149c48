"""The session of the Cloud Storage client. Its requests can be cancelled."""

from __future__ import annotations

import io
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import requests
import urllib3
from google.api_core import exceptions as google_errors
from google.auth.transport.requests import AuthorizedSession
from requests.structures import CaseInsensitiveDict
from urllib3.exceptions import HTTPError

from worker_chart_export.backends.call_timer import shared_timer
from worker_chart_export.backends.connections import open_connections
from worker_chart_export.backends.http import MAX_ERROR_BYTES, NO_RETRIES, CancellableAdapter

if TYPE_CHECKING:
    from google.auth.credentials import Credentials
    from urllib3 import BaseHTTPResponse, PoolManager

TOKEN_ATTEMPTS = 3
TOKEN_TIMEOUT_SECONDS = 300
#: The `timeout` of a request of Google's client: seconds to connect, and seconds between two received parts.
Timeout = tuple[float, float]


class _PlainSession(requests.Session):
    """Send requests with urllib3, without the cookies, redirects and hooks of `requests`.

    `requests` would prepare them for each call. That takes a fifth of a step's processor time.
    """

    connections: PoolManager

    def request(  # type: ignore[override]  # the arguments that Google's client passes
        self,
        method: str,
        url: str,
        data: bytes | str | None = None,
        headers: dict[str, str] | None = None,
        timeout: float | Timeout | None = None,
        stream: bool = False,  # noqa: FBT001, FBT002 - the base class's own
    ) -> requests.Response:
        """Send a request as `requests` does, but follow no redirects, and read only the start of an error.

        Raises:
            ConnectionError: Of `requests`: there was no answer.
        """
        body = data.encode() if isinstance(data, str) else data
        answer, content = self._send(method, url, body, headers, timeout, stream=stream)
        return _as_requests(answer, content, method, url)

    def _send(
        self,
        method: str,
        url: str,
        body: bytes | None,
        headers: dict[str, str] | None,
        timeout: float | Timeout | None,
        *,
        stream: bool = False,
    ) -> tuple[BaseHTTPResponse, bytes | None]:
        """Return the answer and its content. None: it is a stream that is not read yet."""
        connect, read = timeout if isinstance(timeout, tuple) else (timeout, timeout)
        content: bytes | None = None
        try:
            answer = self.connections.urlopen(
                method,
                url,
                body=body,
                headers=headers,
                timeout=urllib3.Timeout(connect=connect, read=read),
                retries=NO_RETRIES,
                redirect=False,
                preload_content=False,
            )
            if answer.status >= HTTPStatus.BAD_REQUEST:
                content = answer.read(MAX_ERROR_BYTES)
                answer.close()  # if the body is longer, also its connection
            elif not stream:
                content = answer.read()
        except HTTPError as error:
            raise requests.ConnectionError(error) from error
        return answer, content

    def close(self) -> None:
        """Close the connections."""
        self.connections.clear()
        super().close()


def _as_requests(answer: BaseHTTPResponse, content: bytes | None, method: str, url: str) -> requests.Response:
    """Return an answer as Google's client expects it."""
    response = requests.Response()
    response.raw = answer if content is None else io.BytesIO(content)
    response.status_code, response.reason = answer.status, answer.reason or ""
    response.headers = CaseInsensitiveDict(answer.headers)
    response.url, response.encoding = url, "utf-8"
    # Google's client reads the method and the URL of the request, and nothing else.
    response.request = requests.Request(method, url)  # type: ignore[assignment]
    return response


class StorageSession(AuthorizedSession, _PlainSession):  # type: ignore[misc]  # Google's has no types
    """Add Google's authorization to each request, and send it over cancellable connections.

    Args:
        credentials: The source of access tokens. A request for a token can be cancelled too.
        url: The service's URL.
        connections: How many connections are kept open.

    Raises:
        ValueError: The environment names a proxy that can't be used.
        OSError: The certificates can't be read.
    """

    def __init__(self, credentials: Credentials, *, url: str, connections: int) -> None:
        super().__init__(credentials, refresh_timeout=TOKEN_TIMEOUT_SECONDS)  # type: ignore[no-untyped-call]
        self.connections = open_connections(url, kept=connections)
        shared_timer()  # starts its thread now, while there are threads
        tokens: Any = self._auth_request_session
        for scheme in ("http://", "https://"):
            tokens.mount(scheme, CancellableAdapter(max_retries=TOKEN_ATTEMPTS))

    def upload(self, url: str, body: bytes, headers: dict[str, str], *, timeout: Timeout) -> None:
        """Send a POST as `request` does, but make no `requests.Response` of a success.

        That is a sixth of its processor time.

        Raises:
            GoogleAPICallError: Cloud Storage refuses, or is unavailable.
            ConnectionError: Of `requests`: there was no answer.
        """
        credentials: Credentials = self.credentials
        ask, authorized = partial(self._auth_request, timeout=timeout), headers.copy()
        credentials.before_request(ask, "POST", url, authorized)
        answer, content = self._send("POST", url, body, authorized, timeout)
        if answer.status == HTTPStatus.OK:
            return
        response = _as_requests(answer, content, "POST", url)
        if answer.status == HTTPStatus.UNAUTHORIZED:  # the token has ended early
            credentials.refresh(ask)
            response = self.request("POST", url, data=body, headers=headers, timeout=timeout)  # type: ignore[no-untyped-call]
        if response.status_code != HTTPStatus.OK:
            raise google_errors.from_http_response(response)
