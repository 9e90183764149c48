"""Buckets and objects in memory: generations, preconditions, versions."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from localcloud.storage.errors import conflict, invalid, not_found, unserved
from localcloud.storage.preconditions import Preconditions
from localcloud.storage.resources import Bucket, StoredObject, crc32c, md5, now
from localcloud.storage.settings import bucket_settings, check_object_name, object_settings, storage_class

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


class Objects:
    """All buckets. Thread-safe; content is hashed outside the lock."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._buckets: dict[str, Bucket] = {}
        self._last_generation = 0

    def create_bucket(
        self, name: str, resource: Mapping[str, Any] | None = None, *, project: str = ""
    ) -> Bucket:
        """Create a bucket with the settings of `resource`; 409 when it exists."""
        settings = bucket_settings(resource or {})
        with self._lock:
            if name in self._buckets:
                message = "Your previous request to create the named bucket succeeded and you already own it."
                raise conflict(message)
            self._buckets[name] = Bucket(name=name, project=project, settings=settings)
            return replace(self._buckets[name])

    def buckets(self, project: str = "") -> list[Bucket]:
        """Return the buckets of a project, sorted by name; without a project all of them."""
        with self._lock:
            found = [replace(one) for one in self._buckets.values() if project in ("", one.project)]
        return sorted(found, key=lambda bucket: bucket.name)

    def bucket(self, name: str, wanted: Preconditions | None = None) -> Bucket:
        """Return a bucket; 404 when it does not exist."""
        with self._lock:
            bucket = self._bucket(name)
            if wanted is not None:
                wanted.check(bucket)
            return replace(bucket)

    def change_bucket(
        self, name: str, wanted: Preconditions, change: Callable[[Mapping[str, Any]], Mapping[str, Any]]
    ) -> Bucket:
        """Replace the settings of a bucket by what `change` makes of them."""
        with self._lock:
            bucket = self._bucket(name)
            wanted.check(bucket)
            settings = bucket_settings(change(bucket.settings))
            if settings.get("location", "US") != bucket.settings.get("location", "US"):
                raise invalid("The location of a bucket can't be changed.", "location")
            bucket.settings, bucket.updated = settings, now()
            bucket.metageneration += 1
            return replace(bucket)

    def delete_bucket(self, name: str, wanted: Preconditions | None = None) -> None:
        """Delete an empty bucket; 409 when it is not empty."""
        with self._lock:
            bucket = self._bucket(name)
            if wanted is not None:
                wanted.check(bucket)
            if bucket.live or bucket.noncurrent:
                raise conflict("The bucket you tried to delete is not empty.")
            del self._buckets[name]

    def insert(
        self,
        bucket: str,
        resource: Mapping[str, Any],
        content: bytes,
        wanted: Preconditions,
        *,
        has_md5: bool = True,
        key_sha256: str = "",
    ) -> StoredObject:
        """Store `content` as a new generation.

        Args:
            bucket: The bucket's name.
            resource: The JSON metadata: `name`, `contentType`, `metadata`, and hashes to verify.
            content: The bytes.
            wanted: Preconditions on the stored generation.
            has_md5: Whether the object has an MD5. One that was uploaded in parts has none.
            key_sha256: The SHA-256 of the customer's encryption key; empty for none.

        Raises:
            StorageError: 404 no such bucket, 412 a precondition, 400 a wrong hash or an invalid name.
        """
        name = check_object_name(str(resource.get("name") or ""))
        settings = {"contentType": "application/octet-stream", **object_settings(resource)}
        stored = StoredObject(
            bucket=bucket,
            name=name,
            content=content,
            settings=settings,
            storage_class=storage_class(resource.get("storageClass") or self._default_class(bucket)),
            crc32c=_verified("CRC32C", resource.get("crc32c"), crc32c(content)),
            md5=_verified("MD5", resource.get("md5Hash"), md5(content)) if has_md5 else "",
            key_sha256=key_sha256,
        )
        return self._put(stored, wanted)

    def compose(
        self,
        bucket: str,
        resource: Mapping[str, Any],
        parts: Sequence[StoredObject],
        wanted: Preconditions,
        *,
        key_sha256: str = "",
    ) -> StoredObject:
        """Store the contents of `parts` one after the other as a new object. It has no MD5."""
        content = b"".join(part.content for part in parts)
        stored = StoredObject(
            bucket=bucket,
            name=check_object_name(str(resource.get("name") or "")),
            content=content,
            settings=object_settings(resource),
            storage_class=storage_class(resource.get("storageClass") or self._default_class(bucket)),
            crc32c=crc32c(content),
            components=sum(part.components or 1 for part in parts),
            key_sha256=key_sha256,
        )
        return self._put(stored, wanted)

    def copy(
        self,
        source: StoredObject,
        bucket: str,
        name: str,
        wanted: Preconditions,
        resource: Mapping[str, Any] | None = None,
        *,
        key_sha256: str = "",
    ) -> StoredObject:
        """Store the content of `source` under another name. A resource replaces all its settings."""
        settings = object_settings(resource) if resource else source.settings
        given = (resource or {}).get("storageClass") or self._default_class(bucket)
        copied = replace(
            source,
            bucket=bucket,
            name=check_object_name(name),
            settings=settings,
            storage_class=storage_class(given),
            key_sha256=key_sha256,
            metageneration=1,
            deleted="",
        )
        return self._put(copied, wanted)

    def move(self, source: StoredObject, name: str, wanted: Preconditions) -> StoredObject:
        """Rename an object within its bucket."""
        with self._lock:
            self._find(source.bucket, source.name, source.generation)
            moved = self._put(replace(source, name=check_object_name(name), metageneration=1), wanted)
            self.delete(source.bucket, source.name, Preconditions())
            return moved

    def get(
        self, bucket: str, name: str, wanted: Preconditions, generation: int | None = None
    ) -> StoredObject:
        """Return the live object, or one of its generations; 404 when there is none."""
        with self._lock:
            stored = self._find(bucket, name, generation)
            wanted.check(stored)
            return stored

    def find(self, bucket: str, name: str) -> StoredObject | None:
        """Return the live object, or None."""
        with self._lock:
            return self._bucket(bucket).live.get(name)

    def delete(self, bucket: str, name: str, wanted: Preconditions, generation: int | None = None) -> None:
        """Delete the live object, or one generation.

        In a bucket with versioning the live object becomes noncurrent, unless its generation is given.
        """
        with self._lock:
            stored = self._find(bucket, name, generation)
            wanted.check(stored)
            place = self._bucket(bucket)
            if stored.deleted:
                place.noncurrent[name].remove(stored)
                if not place.noncurrent[name]:
                    del place.noncurrent[name]
                return
            del place.live[name]
            if generation is None:
                _retire(place, stored)

    def change(
        self,
        bucket: str,
        name: str,
        wanted: Preconditions,
        change: Callable[[Mapping[str, Any]], Mapping[str, Any]],
        generation: int | None = None,
    ) -> StoredObject:
        """Replace the settings of an object by what `change` makes of them."""
        with self._lock:
            stored = self._find(bucket, name, generation)
            wanted.check(stored)
            resource = change(stored.settings)
            if resource.get("storageClass") not in (None, "", stored.storage_class):
                raise unserved("Object.storageClass in a patch")
            changed = replace(
                stored,
                settings=object_settings(resource),
                metageneration=stored.metageneration + 1,
                updated=now(),
            )
            place = self._bucket(bucket)
            if stored.deleted:
                older = place.noncurrent[name]
                older[older.index(stored)] = changed
            else:
                place.live[name] = changed
            return changed

    def list(self, bucket: str, prefix: str, *, versions: bool = False) -> list[StoredObject]:
        """Return the objects whose names start with `prefix`, sorted by UTF-8 name, then by generation."""
        with self._lock:
            place = self._bucket(bucket)
            found = [stored for name, stored in place.live.items() if name.startswith(prefix)]
            if versions:
                older = place.noncurrent.items()
                found += [stored for name, kept in older if name.startswith(prefix) for stored in kept]
        return sorted(found, key=lambda stored: (stored.name.encode(), stored.generation))

    def _put(self, stored: StoredObject, wanted: Preconditions) -> StoredObject:
        """Make `stored` the live object, as a new generation."""
        with self._lock:
            place = self._bucket(stored.bucket)
            replaced = place.live.get(stored.name)
            wanted.check(replaced)
            self._last_generation = max(time.time_ns() // 1000, self._last_generation + 1)
            written = now()
            if replaced is not None:
                _retire(place, replaced)
            live = replace(stored, generation=self._last_generation, created=written, updated=written)
            place.live[stored.name] = live
            return live

    def _default_class(self, bucket: str) -> str:
        with self._lock:
            return self._bucket(bucket).storage_class

    def _find(self, bucket: str, name: str, generation: int | None) -> StoredObject:
        place = self._bucket(bucket)
        live = place.live.get(name)
        if live is not None and generation in (None, live.generation):
            return live
        for stored in place.noncurrent.get(name, ()):
            if stored.generation == generation:
                return stored
        raise not_found(f"No such object: {bucket}/{name}")

    def _bucket(self, name: str) -> Bucket:
        if name not in self._buckets:
            raise not_found("The specified bucket does not exist.")
        return self._buckets[name]


def _retire(bucket: Bucket, stored: StoredObject) -> None:
    """Keep a live object as a noncurrent one, if its bucket keeps versions."""
    if bucket.keeps_versions:
        bucket.noncurrent.setdefault(stored.name, []).append(replace(stored, deleted=now()))


def _verified(kind: str, given: object, real: str) -> str:
    if given and given != real:
        raise invalid(f'Provided {kind} "{given}" doesn\'t match calculated {kind} "{real}".', kind)
    return real
