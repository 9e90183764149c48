"""Signed URLs. Everything but the signature is checked: every caller may do everything anyway."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING

from localcloud.http_requests import whole_number
from localcloud.storage.errors import StorageError, required

if TYPE_CHECKING:
    from collections.abc import Mapping

_V2 = ("GoogleAccessId", "Expires", "Signature")
_V4 = tuple(
    f"X-Goog-{part}" for part in ("Algorithm", "Credential", "Date", "Expires", "SignedHeaders", "Signature")
)
_ALGORITHMS = frozenset({"GOOG4-RSA-SHA256", "GOOG4-HMAC-SHA256"})
# Source: https://cloud.google.com/storage/quotas#requests
_MOST_SECONDS = 7 * 24 * 3600
#: The parameters that make a URL a signed one.
PARAMETERS = frozenset({*_V2, *_V4})
#: What a signed URL may set in the headers of a download: parameter -> header.
RESPONSE_HEADERS = {
    "response-content-disposition": "Content-Disposition",
    "response-content-type": "Content-Type",
}


def is_signed(query: Mapping[str, str]) -> bool:
    """Return whether a URL has any parameter of a signature."""
    return not PARAMETERS.isdisjoint(query)


def check_signed(query: Mapping[str, str], headers: Mapping[str, str], now: datetime) -> None:
    """Refuse a signed URL that Google's service refuses whatever its signature is.

    Args:
        query: The parameters of the URL.
        headers: The headers of the request, by lower-case name.
        now: The time, with a zone.

    Raises:
        StorageError: 400, a parameter is missing or malformed, the URL has expired, or the request lacks a
            header that was signed.
    """
    is_v4 = not query.keys().isdisjoint(_V4)
    for name in _V4 if is_v4 else _V2:
        if not query.get(name):
            raise required(name)
    expires = _expiry_v4(query) if is_v4 else _expiry_v2(query)
    if now >= expires:
        message = f"The provided token has expired. Request signature expired at: {expires.isoformat()}"
        raise StorageError(HTTPStatus.BAD_REQUEST, "ExpiredToken", message, "Expires")
    for header in query.get("X-Goog-SignedHeaders", "").split(";"):
        if header and header not in headers:
            message = f"Header was included in signedheaders, but not in the request: {header}"
            raise StorageError(HTTPStatus.BAD_REQUEST, "MalformedSecurityHeader", message, header)


def _expiry_v4(query: Mapping[str, str]) -> datetime:
    if query["X-Goog-Algorithm"] not in _ALGORITHMS:
        raise _malformed("X-Goog-Algorithm", query)
    seconds = whole_number(query["X-Goog-Expires"])
    if seconds is None or seconds > _MOST_SECONDS:
        raise _malformed("X-Goog-Expires", query)
    try:
        signed = datetime.strptime(query["X-Goog-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        return signed + timedelta(seconds=seconds)
    except (ValueError, OverflowError):
        raise _malformed("X-Goog-Date", query) from None


def _expiry_v2(query: Mapping[str, str]) -> datetime:
    try:
        return datetime.fromtimestamp(int(query["Expires"]), UTC)
    except (ValueError, OverflowError, OSError):
        raise _malformed("Expires", query) from None


def _malformed(name: str, query: Mapping[str, str]) -> StorageError:
    message = f"Invalid value for {name}: '{query[name]}'."
    return StorageError(HTTPStatus.BAD_REQUEST, "InvalidArgument", message, name)
