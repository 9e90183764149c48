"""Read HTTP requests: their target, their body, JSON in it. What is malformed is refused, never guessed."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlsplit

if TYPE_CHECKING:
    from email.message import Message
    from io import BufferedIOBase

_MAX_LINE_BYTES = 65_536
_LENGTH = re.compile(r"[0-9]{1,15}")
_CHUNK_LENGTH = re.compile(rb"[0-9A-Fa-f]{1,12}")


def split_target(target: str) -> tuple[str, dict[str, str]]:
    """Return the path of a request, still percent-encoded, and its decoded parameters, the last of a name.

    Raises:
        ValueError: It is no URL, or not UTF-8: the name of an object would become another one.
    """
    if not target.isascii():
        raise ValueError("The URL has characters that are not percent-encoded.")
    parts = urlsplit(target)
    try:
        unquote(parts.path, errors="strict")
        query = parse_qsl(parts.query, keep_blank_values=True, errors="strict")
    except UnicodeDecodeError:
        raise ValueError("The percent-encoded bytes of the URL are no UTF-8.") from None
    return parts.path, dict(query)


def read_body(headers: Message, stream: BufferedIOBase) -> bytes:
    """Read the body of a request: of the announced length, or in chunks.

    Raises:
        ValueError: A length is malformed, the transfer encoding is unknown, or the body ends too early, as
            when its sender dies. Such a body must not be stored.
    """
    encoding = headers.get("Transfer-Encoding", "identity").strip().lower()
    if encoding == "chunked":
        return _read_chunks(stream)
    if encoding != "identity":
        raise ValueError(f"Invalid transfer encoding: {encoding!r}; only chunked is served.")
    lengths = {length.strip() for length in headers.get_all("Content-Length", ["0"])}
    length = lengths.pop()
    if lengths or not _LENGTH.fullmatch(length):
        raise ValueError("The body has no valid length.")
    return _read_all(stream, int(length))


def _read_chunks(stream: BufferedIOBase) -> bytes:
    chunks = []
    while size := _chunk_size(stream):
        chunks.append(_read_all(stream, size))
        if stream.readline(_MAX_LINE_BYTES).strip():
            raise ValueError("A chunk is longer than its length.")
    while stream.readline(_MAX_LINE_BYTES).strip():
        pass  # a trailer
    return b"".join(chunks)


def _chunk_size(stream: BufferedIOBase) -> int:
    length = stream.readline(_MAX_LINE_BYTES).partition(b";")[0].strip()
    if not _CHUNK_LENGTH.fullmatch(length):
        raise ValueError("A chunk has no valid length.")
    return int(length, 16)


def _read_all(stream: BufferedIOBase, size: int) -> bytes:
    content = stream.read(size)
    if len(content) < size:
        raise ValueError(f"The body ends after {len(content)} of {size} bytes.")
    return content


def read_json(text: bytes | str) -> Any:
    """Read JSON.

    Raises:
        ValueError: It is malformed, nested too deeply, or holds half of a surrogate pair, which is no text.
    """
    try:
        value = json.loads(text)
        json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("The JSON is nested too deeply.") from None
    return value


def whole_number(text: str) -> int | None:
    """Return a number that is written in at most 19 decimal digits; None for any other text."""
    return int(text) if re.fullmatch(r"[0-9]{1,19}", text) else None
