"""Read the settings of objects and buckets that a client may write; refuse those that are not served."""

from __future__ import annotations

import re
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from localcloud.storage.errors import invalid, unserved

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

STORAGE_CLASSES = frozenset(
    {"STANDARD", "NEARLINE", "COLDLINE", "ARCHIVE", "MULTI_REGIONAL", "REGIONAL"}
    | {"DURABLE_REDUCED_AVAILABILITY"}
)
_TEXTS = ("cacheControl", "contentDisposition", "contentEncoding", "contentLanguage", "contentType")
# What only the server sets. Clients send it back in an update; Google's service ignores it too.
_OUTPUT = frozenset(
    {"kind", "id", "selfLink", "name", "generation", "metageneration", "etag", "owner"}
    | {"timeCreated", "updated", "softDeleteTime", "hardDeleteTime"}
)
_OBJECT_OUTPUT = _OUTPUT | {
    *("bucket", "mediaLink", "size", "crc32c", "md5Hash", "componentCount", "storageClass"),
    "customerEncryption",
    *("timeDeleted", "timeStorageClassUpdated", "timeFinalized", "retentionExpirationTime"),
}
_BUCKET_OUTPUT = _OUTPUT | {"projectNumber", "locationType", "satisfiesPZI", "satisfiesPZS"}
# Both names mean a bucket without access control lists.
_UNIFORM = ("uniformBucketLevelAccess", "bucketPolicyOnly")
_PREVENTION = "publicAccessPrevention"
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_LABEL = re.compile(r"[a-z0-9_-]{0,63}")
_BUCKET_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")


def object_settings(resource: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of an object in the JSON API's format, without those that are empty.

    Raises:
        StorageError: 400, a value has the wrong type; 501, a field is not served.
    """
    return _settings(resource, "Object", readers=_OBJECT_READERS, output=_OBJECT_OUTPUT)


def bucket_settings(resource: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a bucket in the JSON API's format, without those that are empty.

    A field that is not served may be empty: `{"hierarchicalNamespace": {"enabled": false}}` asks for nothing.

    Raises:
        StorageError: 400, a value has the wrong type; 501, a field is not served.
    """
    return _settings(resource, "Bucket", readers=_BUCKET_READERS, output=_BUCKET_OUTPUT)


def _settings(
    resource: Mapping[str, Any],
    kind: str,
    *,
    readers: Mapping[str, Callable[[Any], Any]],
    output: frozenset[str],
) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for name, value in resource.items():
        if name in output or value is None:
            continue
        if name in readers:
            settings[name] = readers[name](value)
        elif not _asks_nothing(value):
            raise unserved(f"{kind}.{name}")
    return {name: value for name, value in settings.items() if value}


def merged(settings: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings changed by a JSON merge patch: null deletes a field, or a key of a map."""
    changed = dict(settings)
    for name, value in patch.items():
        if isinstance(value, dict) and isinstance(changed.get(name), dict):
            changed[name] = merged(changed[name], value)
        else:
            changed[name] = value
    return {name: value for name, value in changed.items() if value is not None}


def _asks_nothing(value: Any) -> bool:
    """Return whether a value is empty, like null, false, or a policy of 0 seconds."""
    if isinstance(value, dict):
        return all(_asks_nothing(part) for part in value.values())
    return value in (None, False, "", "0", 0) or value == []


def storage_class(value: Any) -> str:
    """Return a storage class; 400 for an unknown one."""
    if not isinstance(value, str) or value not in STORAGE_CLASSES:
        raise invalid(f"Invalid argument: storageClass {value!r}.", "storageClass")
    return value


def check_object_name(name: str) -> str:
    """Return an object's name; 400 for one that Google refuses."""
    allowed = 1 <= len(name.encode()) <= 1024 and name not in (".", "..")  # noqa: PLR2004 - bytes
    if not allowed or "\r" in name or "\n" in name:
        raise invalid("An object name holds 1 to 1024 bytes of UTF-8 without line breaks.", "name")
    return name


def check_bucket_name(name: str) -> str:
    """Return a bucket's name; 400 for one that Google refuses."""
    is_long = any(len(part) > 63 for part in name.split("."))  # noqa: PLR2004 - the documented limit
    if not _BUCKET_NAME.fullmatch(name) or is_long or name.startswith("goog"):
        raise invalid(f"Invalid bucket name: '{name}'", "name")
    return name


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise invalid(f"Invalid string value for {name}: {value!r}.", name)
    return value


def header_text(value: Any, name: str) -> str:
    """Return a text that downloads send as a header; 400 if it could end the header and begin another."""
    if _CONTROL.search(_text(value, name)):
        raise invalid(f"Invalid value for {name}: it holds a control character.", name)
    return str(value)


def _texts(value: Any, name: str) -> dict[str, str]:
    if not isinstance(value, dict):
        raise invalid(f"Invalid value for {name}: a map of strings is expected.", name)
    return {key: _text(text, f"{name}.{key}") for key, text in value.items() if text is not None}


def _time(value: Any, name: str) -> str:
    try:
        has_zone = datetime.fromisoformat(_text(value, name)).tzinfo is not None
    except ValueError:
        has_zone = False
    if not has_zone:
        raise invalid(f"Invalid date-time value for {name}: '{value}'.", name)
    return str(value)


def _location(value: Any) -> str:
    return _text(value, "location").upper()


def _versioning(value: Any) -> dict[str, bool]:
    flag = value.get("enabled", False) if isinstance(value, dict) else value
    if not isinstance(flag, bool):
        raise invalid(f"Invalid boolean value for versioning.enabled: {flag!r}.", "versioning")
    return {"enabled": flag}


def _labels(value: Any) -> dict[str, str]:
    labels = _texts(value, "labels")
    for text in (*labels, *labels.values()):
        if not _LABEL.fullmatch(text):
            raise invalid(f"Invalid label: '{text}'.", "labels")
    return labels


def _uniform_access(value: Any) -> dict[str, str]:
    """Refuse access control lists, which no bucket has; return whether grants to the public are forbidden."""
    if not isinstance(value, dict):
        raise invalid("Invalid value for iamConfiguration: a map is expected.", "iamConfiguration")
    for name, part in value.items():
        is_uniform = isinstance(part, dict) and part.get("enabled") in (True, None)
        if not (is_uniform if name in _UNIFORM else name == _PREVENTION or _asks_nothing(part)):
            raise unserved(f"Bucket.iamConfiguration.{name}")
    prevention = value.get(_PREVENTION)
    if prevention not in (None, "", "unspecified", "inherited", "enforced"):
        raise invalid(f"Invalid value for {_PREVENTION}: {prevention!r}.", _PREVENTION)
    return {_PREVENTION: "enforced"} if prevention == "enforced" else {}


def _replication(value: Any) -> None:
    """Refuse any replication but the usual one, which all buckets in several regions show."""
    if value != "DEFAULT" and not _asks_nothing(value):
        raise unserved("Bucket.rpo")


def _flat(value: Any) -> dict[str, bool]:
    if not _asks_nothing(value):
        raise unserved("Bucket.hierarchicalNamespace")
    return {"enabled": False} if value else {}


_OBJECT_READERS: dict[str, Callable[[Any], Any]] = {
    **{name: partial(header_text, name=name) for name in _TEXTS},
    "metadata": partial(_texts, name="metadata"),
    "customTime": partial(_time, name="customTime"),
}
_BUCKET_READERS: dict[str, Callable[[Any], Any]] = {
    "location": _location,
    "storageClass": storage_class,
    "labels": _labels,
    "versioning": _versioning,
    "iamConfiguration": _uniform_access,
    "hierarchicalNamespace": _flat,
    "rpo": _replication,
}
