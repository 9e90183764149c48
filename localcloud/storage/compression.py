"""gzip: bodies that were compressed on the way, and objects that are stored compressed."""

from __future__ import annotations

import gzip
import zlib
from dataclasses import replace
from typing import TYPE_CHECKING

from localcloud.storage.errors import invalid, unserved

if TYPE_CHECKING:
    from localcloud.http_server import Request


def expanded(content: bytes, what: str, location: str) -> bytes:
    """Return the content of gzip.

    Raises:
        StorageError: 400, it is not gzip.
    """
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error):
        raise invalid(f"{what} is not gzip, as its {location} says.", location) from None


def with_expanded_body(request: Request) -> Request:
    """Return a request with the body that the client had before it compressed it.

    Raises:
        StorageError: 400, the body is not gzip; 501, it has another encoding.
    """
    encoding = request.headers["content-encoding"].lower()
    if encoding == "identity":
        return request
    if encoding != "gzip":
        raise unserved("Content-Encoding")
    return replace(request, body=expanded(request.body, "The body", "Content-Encoding"))
