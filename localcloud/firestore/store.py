"""The documents of one database: versions, atomic commits, consistent reads, watchers, and its clock."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import defaultdict, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc

from localcloud.firestore.messages import set_timestamp
from localcloud.firestore.transactions import Transactions
from localcloud.firestore.writes import apply, check_write, target
from localcloud.grpc_server import Refused, invalid

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    from localcloud.firestore.transactions import Transaction

    Watcher = Callable[[Collection[str]], None]

# Old versions kept per document, for reads at a past time. Production keeps one hour of them.
_VERSIONS_KEPT = 32
_READ_TIME_MICROSECONDS = 3_600_000_000


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
        self._unlocked = threading.Condition(self._lock)
        self._transactions = Transactions(self._unlocked)
        self._watchers: tuple[Watcher, ...] = ()
        self._versions: dict[str, deque[Version]] = {}
        self._collections: defaultdict[str, set[str]] = defaultdict(set)

    def commit(self, writes: Sequence[Any], transaction_id: bytes = b"") -> Committed:
        """Apply raw `Write`s in order: all of them, or none. It ends the transaction.

        Raises:
            Refused: The first write that is invalid or whose precondition does not hold; ABORTED, a
                transaction has a lock on one of the documents.
        """
        names = [target(write) for write in writes]
        for write in writes:
            check_write(write, self.name)
        with self._lock:
            if transaction_id or self._transactions:
                with self._isolated(names, transaction_id):
                    return self._commit(names, writes)
            return self._commit(names, writes)

    @contextlib.contextmanager
    def _isolated(self, names: Sequence[str], transaction_id: bytes) -> Iterator[None]:
        """Wait for the locks of other transactions, then end this one, whatever comes of its commit."""
        own = self._transactions.find(transaction_id) if transaction_id else None
        try:
            if own is not None and own.instant is not None and names:
                raise invalid("Cannot modify entities in a read-only transaction.")
            self._transactions.wait_until_free(names, own)
            if own is not None:  # another call may have ended it meanwhile
                self._transactions.find(own.id)
            yield
        finally:
            if own is not None:
                self._transactions.end(own.id)

    def _commit(self, names: Sequence[str], writes: Sequence[Any]) -> Committed:
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
        for watcher in self._watchers:
            watcher(changed)
        documents = tuple(staged[name] for name in names)
        return Committed(instant=instant, documents=documents, transforms=tuple(transforms), changed=changed)

    def begin(self, options: Any) -> Transaction:
        """Open a transaction, as `Transactions.begin` describes."""
        with self._lock:
            return self._transactions.begin(options, self._read_instant)

    def transaction(self, transaction_id: bytes) -> Transaction:
        """Return an open transaction, or raise, as `Transactions.find` describes."""
        with self._lock:
            return self._transactions.find(transaction_id)

    def rollback(self, transaction_id: bytes) -> None:
        """Release the locks of a transaction, or raise, as `Transactions.end` describes."""
        with self._lock:
            self._transactions.end(transaction_id)

    def lock(self, transaction: Transaction, collections: Collection[str]) -> None:
        """Lock collections that a transaction is about to read, as `Transactions.lock` describes."""
        with self._lock:
            self._transactions.lock(transaction, collections)

    def end_transactions(self) -> None:
        """End all transactions, as when an emulator's process ends."""
        with self._lock:
            self._transactions.end_all()

    def watch(self, watcher: Watcher) -> Callable[[], None]:
        """Call `watcher` with the names of the documents that each commit changed; return how to stop that.

        It is called while the database is locked, so it must not wait.
        """
        with self._lock:
            self._watchers = (*self._watchers, watcher)

        def stop() -> None:
            with self._lock:
                self._watchers = tuple(one for one in self._watchers if one is not watcher)

        return stop

    @contextlib.contextmanager
    def unchanged(self) -> Iterator[None]:
        """Hold back commits during the context, so that several reads in it see the same documents."""
        with self._lock:
            yield

    def touch(self, names: Collection[str]) -> None:
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
            for watcher in self._watchers:
                watcher(names)

    def read(
        self, names: Collection[str], at: int | None = None, lock_for: Transaction | None = None
    ) -> tuple[int, dict[str, Any | None]]:
        """Read documents consistently at one instant.

        Args:
            names: Full document names; each is read once.
            at: The instant to read at, microseconds since 1970; None = now.
            lock_for: The read-write transaction that reads: it locks the documents.

        Returns:
            The read's instant, and the raw documents by name (None = missing).

        Raises:
            Refused: INVALID_ARGUMENT for a future instant, FAILED_PRECONDITION for one no longer kept.
        """
        with self._lock:
            if lock_for is not None:
                self._transactions.lock(lock_for, names)
            instant = self._read_instant(at)
            if at is None:
                return instant, {name: self._current(name) for name in names}
            return instant, {name: self._version_at(name, at) for name in names}

    def documents_in(self, collections: Iterable[str], at: int | None = None) -> tuple[int, list[Any]]:
        """Return all documents of some collections, unordered, and the instant of the read.

        Raises:
            Refused: As `read`.
        """
        with self._lock:
            if at is None:
                names = [name for collection in collections for name in self._collections.get(collection, ())]
            else:
                wanted = set(collections)
                names = [name for name in self._versions if collection_of(name) in wanted]
            instant, found = self.read(names, at)
            return instant, [document for document in found.values() if document is not None]

    def collections(self, at: int | None = None) -> list[str]:
        """Return the full paths of all collections that hold a document; for a past time, that ever did."""
        with self._lock:
            if at is None:
                return [path for path, names in self._collections.items() if names]
            return list({collection_of(name) for name in self._versions})

    def children(self, parent: str, at: int | None = None) -> set[str]:
        """Return the next segments of all collections' paths below `parent`.

        Raises:
            Refused: As `read`.
        """
        prefix = f"{parent}/"
        with self._lock:
            paths = [path for path in self.collections(at) if path.startswith(prefix)]
            if at is not None:
                _, documents = self.documents_in(paths, at)
                paths = [collection_of(document.name) for document in documents]
        return {path[len(prefix) :].split("/")[0] for path in paths}

    def _read_instant(self, at: int | None) -> int:
        now = self.clock.read_time()
        if at is not None and at > now:
            raise invalid("The requested 'read_time' cannot be in the future.")
        if at is not None and at < now - _READ_TIME_MICROSECONDS:
            raise _too_old()
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
            raise _too_old()
        return None

    def _store(self, name: str, version: Version) -> None:
        self._versions.setdefault(name, deque(maxlen=_VERSIONS_KEPT)).append(version)
        if version.document is None:
            self._collections[collection_of(name)].discard(name)
        else:
            self._collections[collection_of(name)].add(name)


def _too_old() -> Refused:
    return Refused(grpc.StatusCode.FAILED_PRECONDITION, "The requested 'read_time' is too old.")
