"""Many calls in one request: `/batch/storage/v1`."""

from __future__ import annotations

import secrets
from http import HTTPStatus
from typing import TYPE_CHECKING

from localcloud.http_requests import split_target
from localcloud.http_server import Request, Response
from localcloud.storage.errors import StorageError, invalid
from localcloud.storage.multipart import batch_parts, header_lines, split_head

if TYPE_CHECKING:
    from collections.abc import Callable

_MAX_CALLS = 100


def batch_response(request: Request, respond: Callable[[Request], Response]) -> Response:
    """Make the calls of a batch one after the other, and return their responses in one.

    Args:
        request: The batch.
        respond: Answers one call.

    Raises:
        StorageError: 400, the batch is malformed or has more than 100 calls.
    """
    parts = list(batch_parts(request.headers.get("content-type", ""), request.body))
    if len(parts) > _MAX_CALLS:
        raise invalid(f"A batch has at most {_MAX_CALLS} calls, not {len(parts)}.")
    boundary = f"batch_{secrets.token_hex(12)}"
    pieces = []
    for part in parts:
        answer = _call(part.content, respond)
        content_id = part.headers.get("content-id", "").strip("<>")
        head = [f"--{boundary}", "Content-Type: application/http", f"Content-ID: <response-{content_id}>", ""]
        pieces.append("\r\n".join([*head, ""]).encode("latin-1") + answer.raw() + b"\r\n")
    body = b"".join(pieces) + f"--{boundary}--\r\n".encode()
    return Response(body=body, content_type=f"multipart/mixed; boundary={boundary}")


def _call(text: bytes, respond: Callable[[Request], Response]) -> Response:
    try:
        return respond(_parsed(text))
    except StorageError as error:
        return error.response()


def _parsed(text: bytes) -> Request:
    """Read an HTTP request from a part of a batch. It may end without an empty line."""
    text += b"\r\n\r\n"
    lines, body = split_head(text, 0, len(text))
    method, _, rest = lines[0].decode("latin-1").partition(" ") if lines else ("", "", "")
    try:
        path, query = split_target(rest.rpartition(" ")[0])
    except ValueError:
        path, query = "", {}
    if not method or not path:
        raise invalid("A part of the batch is no HTTP request.")
    if query.get("alt") == "media" or path.startswith(("/upload/", "/download/", "/batch")):
        raise StorageError(HTTPStatus.BAD_REQUEST, "invalid", "A batch can't upload or download content.")
    body = body.removesuffix(b"\r\n\r\n")
    return Request(method=method, path=path, query=query, headers=header_lines(lines[1:]), body=body.strip())
