"""Encryption keys of customers: nothing is encrypted here, but only who sends the key gets the content."""

from __future__ import annotations

import base64
import binascii
import hashlib
from http import HTTPStatus
from typing import TYPE_CHECKING

from localcloud.storage.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from localcloud.storage.resources import StoredObject

ALGORITHM = "AES256"
_KEY_BYTES = 32


def key_hash(headers: Mapping[str, str], prefix: str = "x-goog-") -> str:
    """Return the SHA-256 of the key that a request supplies, in base64; empty if it supplies none.

    Args:
        headers: By lower-case name.
        prefix: `x-goog-`, or `x-goog-copy-source-` for the key of the source of a copy.

    Raises:
        StorageError: 400, the algorithm, the key or its hash is missing or wrong.
    """
    algorithm, key, announced = (
        headers.get(f"{prefix}{name}", "")
        for name in ("encryption-algorithm", "encryption-key", "encryption-key-sha256")
    )
    if not (algorithm or key or announced):
        return ""
    if algorithm != ALGORITHM:
        raise _refused("AlgorithmIsInvalid", f"The encryption algorithm is missing or is not {ALGORITHM}.")
    try:
        raw = base64.b64decode(key, validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != _KEY_BYTES:
        message = f"The encryption key is missing, or is not the base64 of {_KEY_BYTES} bytes."
        raise _refused("KeyFormatIsInvalid", message)
    found = base64.b64encode(hashlib.sha256(raw).digest()).decode()
    if announced != found:
        message = "The SHA256 hash of the encryption key is missing, or does not match the encryption key."
        raise _refused("KeySha256IsInvalid", message)
    return found


def check_key(stored: StoredObject, given: str, *, needed: bool = True) -> None:
    """Refuse a request whose key is not the one of the object.

    Args:
        stored: The object.
        given: The hash of the key that the request supplies; empty for none.
        needed: Whether the request must supply it. Metadata can be read and changed without.

    Raises:
        StorageError: 400, the key is missing, is another one, or the object has none.
    """
    if given == stored.key_sha256 or not (given or needed):
        return
    kind = "customer-supplied encryption key"
    if not given:
        message = f"The target object is encrypted by a {kind}."
        raise _invalid("resourceIsEncryptedWithCustomerEncryptionKey", message)
    if not stored.key_sha256:
        message = f"The target object is not encrypted by a {kind}."
        raise _invalid("resourceNotEncryptedWithCustomerEncryptionKey", message)
    raise _refused("KeyIsIncorrect", "The provided encryption key is incorrect.")


def check_key_of_upload(expected: str, headers: Mapping[str, str]) -> None:
    """Refuse a part of an upload with another key than the one with which the upload began."""
    if key_hash(headers) not in ("", expected):
        raise _refused("KeyIsIncorrect", "The provided encryption key is incorrect.")


def key_headers(stored: StoredObject) -> dict[str, str]:
    """Return the headers that name the key of an object; none if it has none."""
    if not stored.key_sha256:
        return {}
    return {
        "X-Goog-Encryption-Algorithm": ALGORITHM,
        "X-Goog-Encryption-Key-Sha256": stored.key_sha256,
    }


def _refused(end: str, message: str) -> StorageError:
    return _invalid(f"customerEncryption{end}", message)


def _invalid(reason: str, message: str) -> StorageError:
    return StorageError(HTTPStatus.BAD_REQUEST, reason, message, "X-Goog-Encryption-Key")
