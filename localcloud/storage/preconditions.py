"""The conditions of a request on a stored object or bucket."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

from localcloud.http_requests import whole_number
from localcloud.storage.errors import StorageError, invalid

if TYPE_CHECKING:
    from collections.abc import Mapping

_NONE: Mapping[str, str] = MappingProxyType({})


class Versioned(Protocol):
    """What has a metageneration; an object also has a generation."""

    @property
    def generation(self) -> int:
        """Return the version of the content."""

    @property
    def metageneration(self) -> int:
        """Return the version of the metadata."""

    @property
    def etag(self) -> str:
        """Return a text that changes with both."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Preconditions:
    """Conditions on what is stored. None = no condition; generation 0 = it must not exist.

    Attributes:
        etag: The header If-Match.
        not_etag: The header If-None-Match.
    """

    generation: int | None = None
    not_generation: int | None = None
    metageneration: int | None = None
    not_metageneration: int | None = None
    etag: str | None = None
    not_etag: str | None = None

    @classmethod
    def of(
        cls, query: Mapping[str, str], headers: Mapping[str, str] = _NONE, prefix: str = "if"
    ) -> Preconditions:
        """Read the preconditions from a request's parameters and headers.

        Args:
            query: The parameters.
            headers: The headers by lower-case name.
            prefix: `ifSource` for the conditions on the source of a copy.
        """
        return cls(
            generation=number(query, f"{prefix}GenerationMatch"),
            not_generation=number(query, f"{prefix}GenerationNotMatch"),
            metageneration=number(query, f"{prefix}MetagenerationMatch"),
            not_metageneration=number(query, f"{prefix}MetagenerationNotMatch"),
            etag=headers.get("if-match"),
            not_etag=headers.get("if-none-match"),
        )

    def check(self, stored: Versioned | None) -> None:
        """Check the conditions on `stored`; None = nothing is stored.

        Raises:
            StorageError: 412, what must match does not; 304, what must not match does.
        """
        generation = stored.generation if stored else 0
        metageneration = stored.metageneration if stored else 0
        if not (
            self.generation in (None, generation)
            and self.metageneration in (None, metageneration)
            and (self.etag is None or (stored is not None and _names(self.etag, stored.etag)))
        ):
            raise _not_met("If-Match")
        if (
            self.not_generation == generation
            or (self.not_generation is not None and stored is None)
            or self.not_metageneration == metageneration
            or (self.not_etag is not None and stored is not None and _names(self.not_etag, stored.etag))
        ):
            raise _not_modified("If-None-Match")


def check_dates(headers: Mapping[str, str], changed: datetime) -> None:
    """Check If-Modified-Since and If-Unmodified-Since. The conditions on the ETag go before them.

    Args:
        headers: The headers by lower-case name. A date that is malformed is no condition (RFC 9110).
        changed: When the object was last changed, in whole seconds as in the header Last-Modified.

    Raises:
        StorageError: 412, it was changed since; 304, it was not.
    """
    until, since = _date(headers, "if-unmodified-since"), _date(headers, "if-modified-since")
    if until is not None and changed > until and "if-match" not in headers:
        raise _not_met("If-Unmodified-Since")
    if since is not None and changed <= since and "if-none-match" not in headers:
        raise _not_modified("If-Modified-Since")


def is_same(headers: Mapping[str, str], etag: str, changed: datetime) -> bool:
    """Return whether a range is of what the client knows: by If-Range, an ETag or a date; True without it."""
    known = headers.get("if-range", "")
    return not known or known.strip('"') == etag or _date(headers, "if-range") == changed


def _date(headers: Mapping[str, str], name: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(headers.get(name, ""))
    except ValueError:
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)


def _not_met(header: str) -> StorageError:
    message = "At least one of the pre-conditions you specified did not hold."
    return StorageError(HTTPStatus.PRECONDITION_FAILED, "conditionNotMet", message, header)


def _not_modified(header: str) -> StorageError:
    return StorageError(HTTPStatus.NOT_MODIFIED, "notModified", "Not Modified", header)


def _names(header: str, etag: str) -> bool:
    return any(part.strip().strip('"') in ("*", etag) for part in header.split(","))


def number(query: Mapping[str, str], name: str) -> int | None:
    """Return a whole-number parameter; None when it is absent.

    Raises:
        StorageError: 400, it is no whole number.
    """
    if name not in query:
        return None
    found = whole_number(query[name])
    if found is None:
        raise invalid(f"Invalid unsigned long value: '{query[name]}'.", name)
    return found
