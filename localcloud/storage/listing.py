"""List the objects of a bucket: folders, offsets, versions, pages."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from localcloud.http_requests import read_json
from localcloud.storage.errors import invalid
from localcloud.storage.globs import Glob
from localcloud.storage.preconditions import number

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from localcloud.storage.resources import StoredObject

_MAX_RESULTS = 1000
#: A name as bytes and a generation: the order of a listing.
Key = tuple[bytes, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class ListQuery:
    """The parameters of `objects.list`.

    Attributes:
        start: The first name; empty = from the beginning.
        end: The name after the last one; empty = to the end.
        shows_folder_objects: Whether an object whose name is that of a folder is listed too.
        after: The last entry of the page before; None = from the beginning.
        size: The most entries of a page, objects and folders together.
    """

    prefix: str
    delimiter: str
    start: str
    end: str
    glob: Glob | None
    versions: bool
    shows_folder_objects: bool
    after: Key | None
    size: int

    @classmethod
    def of(cls, query: Mapping[str, str]) -> ListQuery:
        """Read the parameters of a request.

        Raises:
            StorageError: 400, one of them is malformed.
        """
        return cls(
            prefix=query.get("prefix", ""),
            delimiter=query.get("delimiter", ""),
            start=query.get("startOffset", ""),
            end=query.get("endOffset", ""),
            glob=Glob(query["matchGlob"]) if query.get("matchGlob") else None,
            versions=flag(query, "versions"),
            shows_folder_objects=flag(query, "includeTrailingDelimiter"),
            after=_key(query),
            size=page_size(query),
        )


def flag(query: Mapping[str, str], name: str) -> bool:
    """Return a yes-or-no parameter; 400 for any other value."""
    text = query.get(name, "false")
    if text.lower() not in ("true", "false"):
        raise invalid(f"Invalid boolean value: '{text}'.", name)
    return text.lower() == "true"


def page_size(query: Mapping[str, str]) -> int:
    """Return the most entries of a page; 400 when `maxResults` is no number above 0."""
    size = number(query, "maxResults")
    if size == 0:
        raise invalid("Invalid value '0'. Values must be within the range: [1, 1000]", "maxResults")
    return min(size or _MAX_RESULTS, _MAX_RESULTS)


def listed(objects: Sequence[StoredObject], query: ListQuery) -> dict[str, Any]:
    """Return a page of a listing in the JSON API's format.

    Args:
        objects: All objects with the prefix, sorted by name and generation.
        query: What to list of them.
    """
    entries = [entry for entry in _entries(objects, query) if query.after is None or entry[0] > query.after]
    page = entries[: query.size]
    shown: dict[str, Any] = {
        "kind": "storage#objects",
        "items": [stored.resource(knows_key=False) for _, stored in page if stored is not None],
        "prefixes": [key[0].decode() for key, stored in page if stored is None],
    }
    if len(entries) > query.size:
        shown["nextPageToken"] = _token(page[-1][0])
    return shown


def _entries(objects: Sequence[StoredObject], query: ListQuery) -> Iterator[tuple[Key, StoredObject | None]]:
    """Return the objects, and None for a folder: it stands for all names that start with it."""
    start, end, delimiter = query.start.encode(), query.end.encode(), query.delimiter
    folder = ""
    for stored in objects:
        name = stored.name
        encoded = name.encode()
        if encoded < start or (end and encoded >= end):
            continue
        place = name.find(delimiter, len(query.prefix)) if delimiter else -1
        if place >= 0:
            found = name[: place + len(delimiter)]
            if found != folder and _matches(found, query):
                yield (found.encode(), -1), None
            folder = found
        is_object = place < 0 or (query.shows_folder_objects and name == folder)
        if is_object and _matches(name, query):
            yield (encoded, stored.generation), stored


def _matches(name: str, query: ListQuery) -> bool:
    return query.glob is None or query.glob.matches(name)


def _token(key: Key) -> str:
    return base64.urlsafe_b64encode(json.dumps([key[0].decode(), key[1]]).encode()).decode()


def _key(query: Mapping[str, str]) -> Key | None:
    token = query.get("pageToken", "")
    if not token:
        return None
    try:
        name, generation = read_json(base64.urlsafe_b64decode(token))
        return str(name).encode(), int(generation)
    except (binascii.Error, ValueError, TypeError, OverflowError):
        raise invalid(f"Invalid page token: '{token}'.", "pageToken") from None
