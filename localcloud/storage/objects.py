"""Buckets and objects in memory: generations, preconditions, listing."""

from __future__ import annotations

import base64
import hashlib
import threading
import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import google_crc32c

if TYPE_CHECKING:
    from collections.abc import Mapping


class StorageError(Exception):
    """A request refused with an HTTP status and one of Google's reasons."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        """Store status, reason and message."""
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message


@dataclass(frozen=True, kw_only=True, slots=True)
class Preconditions:
    """Conditions on the stored object. None = no condition; generation 0 = the object must not exist."""

    generation: int | None = None
    not_generation: int | None = None
    metageneration: int | None = None
    not_metageneration: int | None = None

    @classmethod
    def of(cls, query: Mapping[str, str]) -> Preconditions:
        """Read the preconditions from a request's query parameters."""
        return cls(
            generation=_number(query, "ifGenerationMatch"),
            not_generation=_number(query, "ifGenerationNotMatch"),
            metageneration=_number(query, "ifMetagenerationMatch"),
            not_metageneration=_number(query, "ifMetagenerationNotMatch"),
        )

    def check(self, stored: StoredObject | None) -> None:
        """Raise `StorageError` 412 unless all conditions hold for `stored`."""
        generation = stored.generation if stored else 0
        metageneration = stored.metageneration if stored else 0
        held = (
            self.generation in (None, generation)
            and (self.not_generation is None or self.not_generation != generation)
            and self.metageneration in (None, metageneration)
            and (self.not_metageneration is None or self.not_metageneration != metageneration)
        )
        if not held:
            message = "At least one of the pre-conditions you specified did not hold."
            raise StorageError(412, "conditionNotMet", message)


def _number(query: Mapping[str, str], name: str) -> int | None:
    if name not in query:
        return None
    try:
        return int(query[name])
    except ValueError:
        raise StorageError(400, "invalid", f"Invalid value for {name}: {query[name]!r}.") from None


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredObject:
    """One generation of an object."""

    bucket: str
    name: str
    content: bytes
    content_type: str
    generation: int
    metageneration: int = 1
    metadata: Mapping[str, str] = field(default_factory=dict)
    cache_control: str = ""
    content_encoding: str = ""
    crc32c: str = ""
    md5: str = ""
    created: str = ""
    updated: str = ""

    def resource(self) -> dict[str, Any]:
        """Return the object in the JSON API's format."""
        shown: dict[str, Any] = {
            "kind": "storage#object",
            "id": f"{self.bucket}/{self.name}/{self.generation}",
            "bucket": self.bucket,
            "name": self.name,
            "generation": str(self.generation),
            "metageneration": str(self.metageneration),
            "contentType": self.content_type,
            "size": str(len(self.content)),
            "crc32c": self.crc32c,
            "md5Hash": self.md5,
            "etag": f"{self.generation}/{self.metageneration}",
            "storageClass": "STANDARD",
            "timeCreated": self.created,
            "updated": self.updated,
        }
        if self.metadata:
            shown["metadata"] = dict(self.metadata)
        if self.cache_control:
            shown["cacheControl"] = self.cache_control
        if self.content_encoding:
            shown["contentEncoding"] = self.content_encoding
        return shown


def checksum(content: bytes) -> str:
    """Return the CRC32C of `content` in the JSON API's format: big-endian, base64."""
    return base64.b64encode(google_crc32c.value(content).to_bytes(4, "big")).decode()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Objects:
    """All buckets. Thread-safe; content is hashed outside the lock."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._buckets: dict[str, dict[str, StoredObject]] = {}
        self._last_generation = 0

    def create_bucket(self, name: str) -> None:
        """Create a bucket; 409 when it exists."""
        with self._lock:
            if name in self._buckets:
                raise StorageError(409, "conflict", f"The bucket {name} exists already.")
            self._buckets[name] = {}

    def buckets(self) -> list[str]:
        """Return all bucket names, sorted."""
        with self._lock:
            return sorted(self._buckets)

    def require_bucket(self, name: str) -> None:
        """Raise 404 unless the bucket exists."""
        with self._lock:
            self._bucket(name)

    def delete_bucket(self, name: str) -> None:
        """Delete an empty bucket; 409 when it is not empty."""
        with self._lock:
            if self._bucket(name):
                raise StorageError(409, "conflict", "The bucket you tried to delete is not empty.")
            del self._buckets[name]

    def insert(
        self, bucket: str, resource: Mapping[str, Any], content: bytes, wanted: Preconditions
    ) -> StoredObject:
        """Store `content` as a new generation.

        Args:
            bucket: The bucket's name.
            resource: The JSON metadata: `name`, `contentType`, `metadata`, and hashes to verify.
            content: The bytes.
            wanted: Preconditions on the stored generation.

        Raises:
            StorageError: 404 no such bucket, 412 a precondition, 400 a wrong hash or an invalid name.
        """
        name = str(resource.get("name", ""))
        if not name or len(name.encode()) > 1024:  # noqa: PLR2004 - the documented limit in bytes
            raise StorageError(400, "invalid", "An object name holds 1 to 1024 bytes of UTF-8.")
        crc32c, md5 = _verified_hashes(resource, content)
        now = _now()
        stored = StoredObject(
            bucket=bucket,
            name=name,
            content=content,
            content_type=str(resource.get("contentType") or "application/octet-stream"),
            generation=0,
            metadata=dict(resource.get("metadata") or {}),
            cache_control=str(resource.get("cacheControl") or ""),
            content_encoding=str(resource.get("contentEncoding") or ""),
            crc32c=crc32c,
            md5=md5,
            created=now,
            updated=now,
        )
        with self._lock:
            objects = self._bucket(bucket)
            wanted.check(objects.get(name))
            self._last_generation = max(time.time_ns() // 1000, self._last_generation + 1)
            objects[name] = replace(stored, generation=self._last_generation)
            return objects[name]

    def get(
        self, bucket: str, name: str, wanted: Preconditions, generation: int | None = None
    ) -> StoredObject:
        """Return the live object; 404 when it or the requested generation does not exist."""
        with self._lock:
            stored = self._bucket(bucket).get(name)
            if stored is None or generation not in (None, stored.generation):
                raise StorageError(404, "notFound", f"No such object: {bucket}/{name}")
            wanted.check(stored)
            return stored

    def delete(self, bucket: str, name: str, wanted: Preconditions, generation: int | None = None) -> None:
        """Delete the object."""
        self.get(bucket, name, wanted, generation)
        with self._lock:
            objects = self._bucket(bucket)
            wanted.check(objects.get(name))
            objects.pop(name, None)

    def patch(
        self, bucket: str, name: str, resource: Mapping[str, Any], wanted: Preconditions
    ) -> StoredObject:
        """Change content type, cache control and metadata. A metadata value of None deletes its key."""
        stored = self.get(bucket, name, wanted)
        metadata = {**stored.metadata, **(resource.get("metadata") or {})}
        changed = replace(
            stored,
            content_type=str(resource.get("contentType", stored.content_type)),
            cache_control=str(resource.get("cacheControl", stored.cache_control) or ""),
            content_encoding=str(resource.get("contentEncoding", stored.content_encoding) or ""),
            metadata={key: value for key, value in metadata.items() if value is not None},
            metageneration=stored.metageneration + 1,
            updated=_now(),
        )
        with self._lock:
            objects = self._bucket(bucket)
            # Another request may have changed the object: check again, under the lock.
            replace(wanted, generation=stored.generation, metageneration=stored.metageneration).check(
                objects.get(name)
            )
            objects[name] = changed
            return changed

    def list(self, bucket: str, prefix: str) -> list[StoredObject]:
        """Return the objects whose names start with `prefix`, sorted by UTF-8 name."""
        with self._lock:
            found = [stored for name, stored in self._bucket(bucket).items() if name.startswith(prefix)]
        return sorted(found, key=lambda stored: stored.name.encode())

    def _bucket(self, name: str) -> dict[str, StoredObject]:
        if name not in self._buckets:
            raise StorageError(404, "notFound", "The specified bucket does not exist.")
        return self._buckets[name]


def _verified_hashes(resource: Mapping[str, Any], content: bytes) -> tuple[str, str]:
    crc32c = checksum(content)
    md5 = base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()
    for name, given, real in (
        ("CRC32C", resource.get("crc32c"), crc32c),
        ("MD5", resource.get("md5Hash"), md5),
    ):
        if given and given != real:
            message = f'Provided {name} "{given}" doesn\'t match calculated {name} "{real}".'
            raise StorageError(400, "invalid", message)
    return crc32c, md5
