"""The content of an object: ranges, headers, expanded gzip."""

from __future__ import annotations

import re
from datetime import datetime
from email.utils import format_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING

from localcloud.http_server import Request, Response
from localcloud.storage.compression import expanded
from localcloud.storage.encryption import key_headers
from localcloud.storage.errors import StorageError
from localcloud.storage.preconditions import check_dates, is_same
from localcloud.storage.settings import header_text
from localcloud.storage.signed_urls import RESPONSE_HEADERS

if TYPE_CHECKING:
    from localcloud.storage.resources import StoredObject

_RANGE = re.compile(r"bytes=([0-9]{0,19})-([0-9]{0,19})")
_PLAIN_HEADERS = {
    "cacheControl": "Cache-Control",
    "contentDisposition": "Content-Disposition",
    "contentLanguage": "Content-Language",
}


def content_response(request: Request, stored: StoredObject) -> Response:
    """Return the content that a request asks for.

    gzip that the client does not accept is expanded, unless the object's cache control says `no-transform`. A
    range has no effect then, as the size of the expanded content is not known before.

    Raises:
        StorageError: 416, the range has no byte of the object; 400, the content should be gzip and is not;
            412 or 304, a condition on the date does not hold.
    """
    settings = stored.settings
    changed = datetime.fromisoformat(stored.updated).replace(microsecond=0)
    check_dates(request.headers, changed)
    headers = _headers(request, stored, changed)
    content_type = headers.pop("Content-Type")
    encoding = settings.get("contentEncoding", "")
    if encoding:
        headers["X-Goog-Stored-Content-Encoding"] = encoding
    if encoding == "gzip" and _must_expand(request, stored):
        headers["X-GUploader-Response-Body-Transformations"] = "gunzipped"
        body = expanded(stored.content, f"{stored.bucket}/{stored.name}", "contentEncoding")
        return Response(body=body, content_type=content_type, headers=headers)
    if encoding:
        headers["Content-Encoding"] = encoding
    body, status = stored.content, HTTPStatus.OK
    is_same_object = is_same(request.headers, stored.etag, changed)
    found = _range(request.headers.get("range", ""), len(body)) if is_same_object else None
    if found is not None:
        headers["Content-Range"] = f"bytes {found.start}-{found.stop - 1}/{len(body)}"
        body, status = body[found.start : found.stop], HTTPStatus.PARTIAL_CONTENT
    return Response(status=status, body=body, content_type=content_type, headers=headers)


def _headers(request: Request, stored: StoredObject, changed: datetime) -> dict[str, str]:
    """Return the headers that describe an object. A signed URL may set some of them."""
    settings, query = stored.settings, request.query
    hashes = f"crc32c={stored.crc32c}"
    asked = {name: header_text(query[name], name) for name in RESPONSE_HEADERS.keys() & query.keys()}
    return {
        "X-Goog-Hash": f"{hashes},md5={stored.md5}" if stored.md5 else hashes,
        "X-Goog-Generation": str(stored.generation),
        "X-Goog-Metageneration": str(stored.metageneration),
        "X-Goog-Storage-Class": stored.storage_class,
        "X-Goog-Stored-Content-Length": str(len(stored.content)),
        "ETag": stored.etag,
        "Last-Modified": format_datetime(changed, usegmt=True),
        **key_headers(stored),
        **{header: settings[name] for name, header in _PLAIN_HEADERS.items() if name in settings},
        "Content-Type": str(settings.get("contentType", "application/octet-stream")),
        **{RESPONSE_HEADERS[name]: text for name, text in asked.items()},
    }


def _range(header: str, size: int) -> range | None:
    """Return the bytes that a range header asks for; None = all.

    A header that is malformed, or has more than one range, is ignored as in Google's service.
    """
    match = _RANGE.fullmatch(header.strip())
    if match is None or match[0] == "bytes=-":
        return None
    if not match[1]:  # the last bytes
        found = range(max(0, size - int(match[2])), size)
    else:
        found = range(int(match[1]), min(int(match[2] or size - 1) + 1, size))
    if not found:
        message = "The requested range cannot be satisfied."
        raise StorageError(
            HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, "requestedRangeNotSatisfiable", message, "Range"
        )
    return found


def _must_expand(request: Request, stored: StoredObject) -> bool:
    is_accepted = "gzip" in request.headers.get("accept-encoding", "")
    return not is_accepted and "no-transform" not in stored.settings.get("cacheControl", "")
