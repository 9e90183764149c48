"""A stored object and a bucket, and how the JSON API shows them."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import google_crc32c

if TYPE_CHECKING:
    from collections.abc import Mapping

_HASHES = frozenset({"crc32c", "md5Hash"})
# There are no access control lists, so that `projection=full` shows nothing more.
_UNIFORM_ACCESS = {"uniformBucketLevelAccess": {"enabled": True}, "publicAccessPrevention": "inherited"}
_LOCATION_TYPES = {
    **dict.fromkeys(("US", "EU", "ASIA"), "multi-region"),
    **dict.fromkeys(("NAM4", "EUR4", "EUR5", "EUR7", "EUR8", "ASIA1"), "dual-region"),
}


def now() -> str:
    """Return the time in the JSON API's format."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def crc32c(content: bytes) -> str:
    """Return the CRC32C of `content` in the JSON API's format: big-endian, base64."""
    return base64.b64encode(google_crc32c.value(content).to_bytes(4, "big")).decode()


def md5(content: bytes) -> str:
    """Return the MD5 of `content` in base64."""
    return base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredObject:
    """One generation of an object.

    Attributes:
        settings: What a client may write, in the JSON API's format: `contentType`, `metadata`, ...
        crc32c: As the JSON API shows it.
        md5: As the JSON API shows it; empty for an object that was composed.
        key_sha256: The SHA-256 of its customer's encryption key, in base64; empty for none.
        components: The number of objects that it was composed of; 0 = it was not composed.
        created: When this generation was written.
        updated: When its settings were last written.
        deleted: When it was deleted or replaced, in a bucket with versioning; empty for a live object.
    """

    bucket: str
    name: str
    content: bytes
    settings: Mapping[str, Any] = field(default_factory=dict)
    storage_class: str = "STANDARD"
    generation: int = 0
    metageneration: int = 1
    crc32c: str = ""
    md5: str = ""
    key_sha256: str = ""
    components: int = 0
    created: str = ""
    updated: str = ""
    deleted: str = ""

    @property
    def etag(self) -> str:
        """Return a text that changes with the content and with the settings."""
        return f"{self.generation}/{self.metageneration}"

    def resource(self, *, knows_key: bool = True) -> dict[str, Any]:
        """Return the object in the JSON API's format.

        Args:
            knows_key: Whether the caller has the object's encryption key. Hashes are shown only then.
        """
        shown: dict[str, Any] = {
            "kind": "storage#object",
            "id": f"{self.bucket}/{self.name}/{self.generation}",
            "bucket": self.bucket,
            "name": self.name,
            "generation": str(self.generation),
            "metageneration": str(self.metageneration),
            "size": str(len(self.content)),
            "crc32c": self.crc32c,
            "etag": self.etag,
            "storageClass": self.storage_class,
            "timeCreated": self.created,
            "timeFinalized": self.created,
            "timeStorageClassUpdated": self.created,
            "updated": self.updated,
            **self.settings,
        }
        if self.md5:
            shown["md5Hash"] = self.md5
        if self.key_sha256:
            shown["customerEncryption"] = {"encryptionAlgorithm": "AES256", "keySha256": self.key_sha256}
            if not knows_key:
                shown = {name: value for name, value in shown.items() if name not in _HASHES}
        if self.components:
            shown["componentCount"] = self.components
        if self.deleted:
            shown["timeDeleted"] = self.deleted
        return shown


@dataclass(kw_only=True, slots=True)
class Bucket:
    """A bucket with its objects. Change it only under the lock of `Objects`.

    Attributes:
        project: The project that it was created in; empty = it belongs to all.
        settings: What a client may write, in the JSON API's format.
        live: The live objects by name.
        noncurrent: The older generations by name, oldest first.
    """

    name: str
    project: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    metageneration: int = 1
    created: str = field(default_factory=now)
    updated: str = field(default_factory=now)
    live: dict[str, StoredObject] = field(default_factory=dict)
    noncurrent: dict[str, list[StoredObject]] = field(default_factory=dict)

    @property
    def generation(self) -> int:
        """Return 0: a bucket has no version of its content."""
        return 0

    @property
    def etag(self) -> str:
        """Return a text that changes with the settings."""
        return str(self.metageneration)

    @property
    def keeps_versions(self) -> bool:
        """Return whether objects that are deleted or replaced stay as noncurrent generations."""
        return bool(self.settings.get("versioning", {}).get("enabled"))

    @property
    def storage_class(self) -> str:
        """Return the class of objects that are written without one."""
        return str(self.settings.get("storageClass", "STANDARD"))

    def resource(self) -> dict[str, Any]:
        """Return the bucket in the JSON API's format."""
        location = self.settings.get("location", "US")
        location_type = _LOCATION_TYPES.get(location, "region")
        replication = {} if location_type == "region" else {"rpo": "DEFAULT"}
        return {
            "kind": "storage#bucket",
            "id": self.name,
            "name": self.name,
            "projectNumber": "0",
            "metageneration": str(self.metageneration),
            "etag": self.etag,
            "location": location,
            "locationType": location_type,
            **replication,
            "storageClass": self.storage_class,
            "timeCreated": self.created,
            "updated": self.updated,
            **self.settings,
            "iamConfiguration": {**_UNIFORM_ACCESS, **self.settings.get("iamConfiguration", {})},
        }
