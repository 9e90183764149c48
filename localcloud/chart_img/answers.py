"""The responses of Chart-IMG: small PNGs, its documented errors, and broken responses."""

from __future__ import annotations

import json
import struct
import zlib
from functools import lru_cache
from typing import Any

from localcloud.http_server import Response

_TOO_LARGE_BYTES = 12 * 1024 * 1024
_PNG = "image/png"
_RGB8 = struct.pack(">BBBBB", 8, 2, 0, 0, 0)


@lru_cache(maxsize=64)
def _pixels(width: int, height: int) -> bytes:
    return zlib.compress((b"\x00" + b"\xf5\xf7\xfa" * width) * height, 9)


def png(width: int, height: int, text: str) -> bytes:
    """Return a one-colour picture with `text` as its comment, so different requests get different bytes."""
    parts = [b"\x89PNG\r\n\x1a\n"]
    for kind, data in (
        (b"IHDR", struct.pack(">II", width, height) + _RGB8),
        (b"tEXt", b"Comment\x00" + text.encode("latin-1", "replace")),
        (b"IDAT", _pixels(width, height)),
        (b"IEND", b""),
    ):
        checksum = zlib.crc32(data, zlib.crc32(kind))
        parts += [struct.pack(">I", len(data)), kind, data, struct.pack(">I", checksum)]
    return b"".join(parts)


def _json(status: int, value: Any) -> Response:
    return Response(status=status, body=json.dumps(value).encode(), content_type="application/json")


def _message(status: int, text: str) -> Response:
    return _json(status, {"message": text})


_INVALID_FIELD = [{"value": "1X", "msg": "Invalid value", "param": "interval", "location": "body"}]
_WHOLE = png(800, 600, "whole")

#: Scripted responses that quote the request's key. The real API never does this.
QUOTING = {"quoted_key": 422, "quoted_key_unauthorized": 401}


def quoting(name: str, key: str) -> Response:
    """Return the response `name`, which quotes `key`."""
    return _json(QUOTING[name], [{"msg": f"No chart for {key}", "param": key, "location": "header"}])


#: Scripted responses by name, for `Fault.answer`. The texts are those of the API's documentation.
ANSWERS: dict[str, Response] = {
    "bad_request": _message(400, "Invalid JSON"),
    "invalid_request": _message(401, "Invalid Request"),
    "forbidden": _message(403, "Forbidden"),
    "over_resolution": _message(403, "Exceed Max Usage Resolution Limit (800x600)"),
    "over_parameters": _message(403, "Exceed Max Usage Parameter Limit (3)"),
    "not_found": _message(404, "Not Found"),
    "session_disconnected": _message(409, "Session Disconnected"),
    "invalid_fields": _json(422, _INVALID_FIELD),
    "invalid_symbol": _message(422, "Invalid Symbol"),
    "invalid_interval": _message(422, "Invalid Interval"),
    "too_early": _message(425, "Too Early"),
    "too_many_requests": _message(429, "Too Many Requests"),
    "limit_exceeded": _message(429, "Limit Exceeded"),
    "server_error": _message(500, "Something Went Wrong"),
    "bad_gateway": Response(
        status=502, body=b"<html><h1>502 Bad Gateway</h1></html>", content_type="text/html"
    ),
    "unavailable": _message(503, "Something Went Wrong"),
    "timeout": _message(504, "External Request Timeout"),
    "gateway_timeout": _message(504, "Endpoint request timed out"),
    "html": Response(body=b"<!doctype html><title>Welcome</title>", content_type="text/html"),
    "jpeg": Response(body=b"\xff\xd8\xff\xe0" + bytes(1000) + b"\xff\xd9", content_type="image/jpeg"),
    "truncated": Response(body=_WHOLE[: len(_WHOLE) // 2], content_type=_PNG),
    "wrong_size": Response(body=png(640, 480, "wrong size"), content_type=_PNG),
    "too_large": Response(body=png(800, 600, "x" * _TOO_LARGE_BYTES), content_type=_PNG),
    "line_end_after_picture": Response(body=_WHOLE + b"\n", content_type=_PNG),
    "empty": Response(body=b"", content_type=_PNG),
    "limit_exceeded_200": Response(body=b'{"message": "Limit Exceeded"}', content_type="application/json"),
}
