"""Parse a `multipart/related` upload: JSON metadata first, then the content."""

from __future__ import annotations

import json
import re
from typing import Any

from localcloud.storage.objects import StorageError

_BOUNDARY = re.compile(r'boundary="?([^";]+)"?')
_PARTS = 2


def parse(content_type: str, body: bytes) -> tuple[dict[str, Any], bytes]:
    """Return metadata and content of an upload. The part's content type fills in a missing `contentType`.

    Raises:
        StorageError: 400, the body is not such an upload.
    """
    match = _BOUNDARY.search(content_type)
    if match is None:
        raise StorageError(400, "invalid", "The upload's content type has no boundary.")
    delimiter = b"--" + match[1].encode()
    # The content may contain a delimiter, so find the outer ones: the first, the second and the last.
    start = body.find(delimiter)
    second = body.find(b"\r\n" + delimiter, start + len(delimiter))
    end = body.rfind(b"\r\n" + delimiter + b"--")
    if start < 0 or second < 0 or end <= second:
        raise StorageError(400, "invalid", "The upload is not two parts of multipart/related.")
    _, metadata = _part(body[start + len(delimiter) : second])
    headers, content = _part(body[second + 2 + len(delimiter) : end])
    try:
        resource = dict(json.loads(metadata or b"{}"))
    except ValueError:
        raise StorageError(400, "parseError", "The upload's metadata is not a JSON object.") from None
    resource.setdefault("contentType", _content_type(headers))
    return resource, content


def _part(part: bytes) -> tuple[bytes, bytes]:
    headers, separator, content = part.partition(b"\r\n\r\n")
    if not separator:
        raise StorageError(400, "invalid", "A part of the upload has no headers.")
    return headers, content


def _content_type(headers: bytes) -> str:
    for line in headers.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-type":
            return value.strip().decode("latin-1")
    return ""
