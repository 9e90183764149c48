"""The conditions of a request on a stored object or bucket."""

from __future__ import annotations

from dataclasses import dataclass
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
            message = "At least one of the pre-conditions you specified did not hold."
            raise StorageError(HTTPStatus.PRECONDITION_FAILED, "conditionNotMet", message, "If-Match")
        if (
            self.not_generation == generation
            or (self.not_generation is not None and stored is None)
            or self.not_metageneration == metageneration
            or (self.not_etag is not None and stored is not None and _names(self.not_etag, stored.etag))
        ):
            raise StorageError(HTTPStatus.NOT_MODIFIED, "notModified", "Not Modified", "If-None-Match")


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
