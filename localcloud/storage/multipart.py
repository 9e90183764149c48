"""Multipart bodies: uploads of metadata and content, and batches."""

from __future__ import annotations

import re
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from localcloud.http_requests import read_json
from localcloud.storage.errors import StorageError, invalid, unserved

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_BOUNDARY = re.compile(r'boundary=(?:"([^"]+)"|([^";,\s]+))', re.IGNORECASE)
_PLAIN_ENCODINGS = frozenset({"", "binary", "8bit", "7bit"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One part of a multipart body, with its headers by lower-case name."""

    headers: Mapping[str, str]
    content: bytes


def upload_parts(content_type: str, body: bytes) -> tuple[dict[str, Any], bytes]:
    """Return metadata and content of a `multipart/related` upload: JSON metadata first, then the content.

    The content type of the second part fills in a missing `contentType`, see `typed`.

    Raises:
        StorageError: 400, the body is not such an upload; 501, its content is encoded.
    """
    delimiter = _delimiter(content_type)
    # The content may contain a delimiter, so find the outer ones: the first, the second and the last.
    start = body.find(delimiter)
    line_end = body.find(b"\n", start)
    line_break = b"\r\n" if body[line_end - 1 : line_end] == b"\r" else b"\n"
    second = body.find(line_break + delimiter, start + len(delimiter))
    end = body.rfind(line_break + delimiter + b"--")
    if start < 0 or second < 0 or end <= second:
        raise invalid("The upload is not two parts of multipart/related.")
    metadata = _part(body, start + len(delimiter), second)
    media = _part(body, second + len(line_break) + len(delimiter), end)
    if media.headers.get("content-transfer-encoding", "").lower() not in _PLAIN_ENCODINGS:
        raise unserved("Content-Transfer-Encoding")
    return typed(json_object(metadata.content), media.headers.get("content-type", "")), media.content


def typed(resource: dict[str, Any], content_type: str) -> dict[str, Any]:
    """Return metadata with the content type that the upload itself has.

    Raises:
        StorageError: 400, the metadata has another one.
    """
    given = resource.get("contentType")
    if given and content_type and given != content_type:
        message = (
            f"Content-Type specified in the upload ({content_type}) does not match Content-Type specified in "
            f"metadata ({given})."
        )
        raise invalid(message, "contentType")
    return {**resource, "contentType": given or content_type}


def batch_parts(content_type: str, body: bytes) -> Iterator[Part]:
    """Yield the parts of a `multipart/mixed` body.

    Raises:
        StorageError: 400, the body is not multipart.
    """
    pieces = re.split(rb"(?:^|\r?\n)" + re.escape(_delimiter(content_type)), body)
    if len(pieces) < 2 or not pieces[-1].startswith(b"--"):  # noqa: PLR2004 - before and after a delimiter
        raise invalid("The body is not multipart: it has no part, or no end.")
    for piece in pieces[1:-1]:
        yield _part(piece, 0, len(piece))


def json_object(body: bytes) -> dict[str, Any]:
    """Read a JSON object; an empty body is an empty object.

    Raises:
        StorageError: 400, it is no JSON object.
    """
    try:
        value = read_json(body or b"{}")
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise StorageError(HTTPStatus.BAD_REQUEST, "parseError", "Parse Error: this is no JSON object.")
    return value


def header_lines(lines: list[bytes]) -> dict[str, str]:
    """Return headers by lower-case name."""
    pairs = (line.decode("latin-1").partition(":") for line in lines if b":" in line)
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


def split_head(text: bytes, start: int, end: int) -> tuple[list[bytes], bytes]:
    """Split a part of `text` at its first empty line, with any line breaks, into lines and the rest.

    Raises:
        StorageError: 400, there is no empty line.
    """
    found = _EMPTY_LINE.search(text, start, end)
    if found is None:
        raise invalid("A part has no empty line after its headers.")
    return text[start : found.start()].splitlines(), text[found.end() : end]


_EMPTY_LINE = re.compile(rb"\r?\n\r?\n")


def _part(text: bytes, start: int, end: int) -> Part:
    lines, content = split_head(text, start, end)
    return Part(headers=header_lines(lines), content=content)


def _delimiter(content_type: str) -> bytes:
    match = _BOUNDARY.search(content_type)
    if match is None:
        raise invalid("The content type is not multipart with a boundary.", "Content-Type")
    return b"--" + (match[1] or match[2]).encode()
