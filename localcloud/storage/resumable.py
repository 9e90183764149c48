"""Resumable uploads: sessions that take an object in chunks."""

from __future__ import annotations

import re
import secrets
import threading
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from localcloud.storage.errors import StorageError, invalid, not_found

if TYPE_CHECKING:
    from collections.abc import Mapping

    from localcloud.storage.preconditions import Preconditions

#: All chunks but the last are multiples of this.
CHUNK_BYTES = 256 * 1024
#: The status of a cancelled upload.
CANCELLED = 499
_CONTENT_RANGE = re.compile(r"bytes (?:(\*)|([0-9]{1,19})-([0-9]{1,19}|\*))/([0-9]{1,19}|\*)")


@dataclass(kw_only=True, slots=True)
class Session:
    """One resumable upload, or one in parts. Hold its lock to change it.

    Attributes:
        resource: The metadata of the object to be.
        wanted: The preconditions of the start. They are checked again at the end.
        total: The size of the object; None = not known yet.
        key_sha256: The SHA-256 of the customer's encryption key; empty for none.
        content: What has arrived.
        parts: What has arrived of an upload in parts, by number.
        stored: The object in the JSON API's format, once all has arrived.
    """

    bucket: str
    resource: dict[str, Any]
    wanted: Preconditions
    total: int | None
    key_sha256: str = ""
    content: bytearray = field(default_factory=bytearray)
    parts: dict[int, bytes] = field(default_factory=dict)
    stored: dict[str, Any] | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, chunk: bytes, content_range: str) -> bool:
        """Add a chunk. Return whether the object is complete.

        Args:
            chunk: The body of the request. Bytes that have arrived before are skipped.
            content_range: The header: `bytes FIRST-LAST/TOTAL`, or `bytes */TOTAL` to ask what has arrived.
                LAST and TOTAL may be `*`, not known. Empty = the chunk is the whole object.

        Raises:
            StorageError: 400, the header does not fit the chunk; 503, bytes before the chunk are missing.
        """
        if not content_range:
            if self.content:
                message = f"The upload has {len(self.content)} bytes: what a chunk adds is in Content-Range."
                raise invalid(message, "Content-Range")
            self.content[:] = chunk
            return self._is_complete(len(chunk))
        match = _CONTENT_RANGE.fullmatch(content_range)
        if match is None:
            raise invalid(f"Invalid content range: '{content_range}'.", "Content-Range")
        total = None if match[4] == "*" else int(match[4])
        if not match[1]:
            first, last = int(match[2]), int(match[2]) + len(chunk) - 1
            if total is None and match[3] == "*":  # a stream: the object ends with the body
                total = last + 1
            if match[3] not in ("*", str(last)) or (total is not None and last >= total):
                message = f"The content range '{content_range}' does not fit a body of {len(chunk)} bytes."
                raise invalid(message, "Content-Range")
            self._append(chunk, first, total)
        return self._is_complete(total)

    def _append(self, chunk: bytes, first: int, total: int | None) -> None:
        if first > len(self.content):
            message = f"The upload has {len(self.content)} bytes, the chunk begins at {first}."
            raise StorageError(HTTPStatus.SERVICE_UNAVAILABLE, "backendError", message, "Content-Range")
        is_last = total is not None and first + len(chunk) == total
        if not is_last and len(chunk) < CHUNK_BYTES:
            message = (
                "Invalid request. The number of bytes uploaded is required to be equal or greater than "
                f"{CHUNK_BYTES}, except for the final request. The received request contained {len(chunk)} "
                "bytes, which does not meet this requirement."
            )
            raise invalid(message, "Content-Range")
        self.content += chunk[len(self.content) - first :]
        if not is_last:  # only whole multiples are kept; the client sends the rest again
            del self.content[len(self.content) // CHUNK_BYTES * CHUNK_BYTES :]

    def _is_complete(self, total: int | None) -> bool:
        if total is not None and self.total not in (None, total):
            message = f"The upload was announced with {self.total} bytes, not with {total}."
            raise invalid(message, "Content-Range")
        self.total = self.total if total is None else total
        return self.total is not None and len(self.content) == self.total

    @property
    def size(self) -> int:
        """Return the bytes that it keeps."""
        return len(self.content) + sum(map(len, list(self.parts.values())))

    def received(self) -> dict[str, str]:
        """Return the header that says what has arrived; none if nothing has."""
        return {"Range": f"bytes=0-{len(self.content) - 1}"} if self.content else {}


class Sessions:
    """All uploads in more than one request, with bounds for those that are abandoned. Thread-safe.

    Beyond a bound the sessions end that were not used for the longest time. Google's service ends them after
    a week.

    Args:
        most: How many it keeps, ended ones included: a client may ask again for what has ended.
        most_bytes: How much content it keeps; at least one upload goes on, whatever its size.
    """

    def __init__(self, *, most: int = 1000, most_bytes: int = 1 << 30) -> None:
        self._lock = threading.Lock()
        self._sessions: dict[str, Session | None] = {}  # the last one used is the last
        self._most = most
        self._most_bytes = most_bytes

    def start(self, session: Session) -> str:
        """Keep a new session and return its id."""
        upload_id = secrets.token_urlsafe(24)
        with self._lock:
            self._sessions[upload_id] = session
            self._drop_abandoned()
        return upload_id

    def _drop_abandoned(self) -> None:
        size = sum(session.size for session in self._sessions.values() if session)
        for upload_id, session in list(self._sessions.items())[:-1]:
            if len(self._sessions) <= self._most and size <= self._most_bytes:
                return
            size -= session.size if session else 0
            del self._sessions[upload_id]

    def get(self, upload_id: str) -> Session:
        """Return a session; 404 for an unknown one, 499 for one that was cancelled."""
        with self._lock:
            if upload_id not in self._sessions:
                raise not_found("The upload does not exist, or its session has ended.")
            session = self._sessions[upload_id] = self._sessions.pop(upload_id)
            self._drop_abandoned()
        if session is None:
            raise StorageError(CANCELLED, "cancelled", "The upload was cancelled.")
        return session

    def cancel(self, upload_id: str) -> None:
        """End a session without an object."""
        self.get(upload_id)
        with self._lock:
            self._sessions[upload_id] = None


def announced_hashes(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the checksums of the headers X-Goog-Hash and Content-MD5, by the name of the metadata."""
    found = {"md5Hash": headers["content-md5"]} if "content-md5" in headers else {}
    if "x-goog-hash" not in headers:
        return found
    for part in headers["x-goog-hash"].split(","):
        kind, _, value = part.strip().partition("=")
        if kind in ("crc32c", "md5") and value:
            found["crc32c" if kind == "crc32c" else "md5Hash"] = value
    return found
