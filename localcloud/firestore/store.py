"""The documents of one database: versions, atomic commits, consistent reads, and its clock."""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc

from localcloud.firestore.messages import set_timestamp
from localcloud.firestore.writes import apply, check_write, target
from localcloud.grpc_server import Refused, invalid

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# Old versions kept per document, for reads at a past time. Production keeps one hour of them.
_VERSIONS_KEPT = 32


@dataclass(frozen=True, slots=True)
class Version:
    """A document from `instant` (microseconds since 1970) on. None = deleted."""

    instant: int
    document: Any | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Committed:
    """The result of one commit.

    Attributes:
        instant: The commit time, microseconds since 1970.
        documents: Per write, the raw document after the commit; None = deleted.
        transforms: Per write, the raw results of its transforms.
        changed: The names of the documents that really changed.
    """

    instant: int
    documents: tuple[Any | None, ...]
    transforms: tuple[list[Any], ...]
    changed: tuple[str, ...]


class CommitClock:
    """Instants in microseconds since 1970. Commits strictly increase; no read is before the last commit."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0

    def commit_time(self) -> int:
        """Return an instant later than all earlier ones."""
        with self._lock:
            self._last = max(time.time_ns() // 1000, self._last + 1)
            return self._last

    def read_time(self) -> int:
        """Return an instant that is not earlier than any earlier one."""
        with self._lock:
            self._last = max(time.time_ns() // 1000, self._last)
            return self._last


def collection_of(name: str) -> str:
    """Return the path of the collection that holds document `name`."""
    return name.rpartition("/")[0]


class Database:
    """The documents of `projects/P/databases/D` by full name. Thread-safe. Stored messages never change."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.clock = CommitClock()
        self._lock = threading.RLock()
        self._versions: dict[str, deque[Version]] = {}
        self._collections: defaultdict[str, set[str]] = defaultdict(set)

    def commit(self, writes: Sequence[Any]) -> Committed:
        """Apply raw `Write`s in order: all of them, or none.

        Raises:
            Refused: The first write that is invalid or whose precondition does not hold.
        """
        names = [target(write) for write in writes]
        for write in writes:
            check_write(write, self.name)
        with self._lock:
            instant = self.clock.commit_time()
            staged: dict[str, Any | None] = {name: self._current(name) for name in names}
            before = dict(staged)
            transforms = []
            for name, write in zip(names, writes, strict=True):
                staged[name], results = apply(write, staged[name], instant)
                transforms.append(results)
            changed = tuple(name for name in staged if staged[name] is not before[name])
            for name in changed:
                self._store(name, Version(instant, staged[name]))
        documents = tuple(staged[name] for name in names)
        return Committed(instant=instant, documents=documents, transforms=tuple(transforms), changed=changed)

    def touch(self, names: Iterable[str]) -> None:
        """Give existing documents a new `update_time` and the same fields, as another writer could."""
        with self._lock:
            for name in names:
                current = self._current(name)
                if current is not None:
                    instant = self.clock.commit_time()
                    copy = type(current)()
                    copy.CopyFrom(current)
                    set_timestamp(copy.update_time, instant)
                    self._store(name, Version(instant, copy))

    def read(self, names: Iterable[str], at: int | None = None) -> tuple[int, dict[str, Any | None]]:
        """Read documents consistently at one instant.

        Args:
            names: Full document names; each is read once.
            at: The instant to read at, microseconds since 1970; None = now.

        Returns:
            The read's instant, and the raw documents by name (None = missing).

        Raises:
            Refused: INVALID_ARGUMENT for a future instant, FAILED_PRECONDITION for one no longer kept.
        """
        with self._lock:
            instant = self._read_instant(at)
            if at is None:
                return instant, {name: self._current(name) for name in names}
            return instant, {name: self._version_at(name, at) for name in names}

    def documents_in(self, collections: Iterable[str]) -> tuple[int, list[Any]]:
        """Return all documents of some collections, unordered, and the instant of the read."""
        with self._lock:
            names = [name for collection in collections for name in self._collections.get(collection, ())]
            instant, found = self.read(names)
            return instant, [document for document in found.values() if document is not None]

    def collections(self) -> list[str]:
        """Return the full paths of all collections that hold a document."""
        with self._lock:
            return [path for path, names in self._collections.items() if names]

    def children(self, parent: str) -> set[str]:
        """Return the next segments of all collections' paths below `parent`."""
        prefix = f"{parent}/"
        paths = (path for path in self.collections() if path.startswith(prefix))
        return {path[len(prefix) :].split("/")[0] for path in paths}

    def _read_instant(self, at: int | None) -> int:
        now = self.clock.read_time()
        if at is not None and at > now:
            raise invalid("The requested 'read_time' cannot be in the future.")
        return now if at is None else at

    def _current(self, name: str) -> Any | None:
        versions = self._versions.get(name)
        return versions[-1].document if versions else None

    def _version_at(self, name: str, at: int) -> Any | None:
        versions = self._versions.get(name, deque())
        for version in reversed(versions):
            if version.instant <= at:
                return version.document
        if len(versions) == _VERSIONS_KEPT:
            raise Refused(grpc.StatusCode.FAILED_PRECONDITION, "The requested 'read_time' is too old.")
        return None

    def _store(self, name: str, version: Version) -> None:
        self._versions.setdefault(name, deque(maxlen=_VERSIONS_KEPT)).append(version)
        if version.document is None:
            self._collections[collection_of(name)].discard(name)
        else:
            self._collections[collection_of(name)].add(name)
