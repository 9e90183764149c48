"""Transactions: what each open one has read, and who waits for whom.

The locks are pessimistic, as on Google's emulator. A read-write transaction locks the documents that it reads
and the collections that it queries. Other writers of them wait until it ends, at most two seconds, then they
end with ABORTED. A read-only transaction reads the database of one instant and locks nothing.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc

from localcloud.firestore.messages import to_instant
from localcloud.firestore.unserved import UNSERVED
from localcloud.grpc_server import Refused, invalid
from localcloud.request_fields import check_fields

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Collection, Iterable

LOCK_TIMEOUT_SECONDS = 2.0
_SERVED = ("TransactionOptions.read_only", "TransactionOptions.read_write.retry_transaction")
# Source: https://cloud.google.com/firestore/quotas#limits
_IDLE_SECONDS = 60.0
_LONGEST_SECONDS = 270.0
#: The lock of a query of every collection.
EVERYTHING = "*"


@dataclass(kw_only=True, slots=True)
class Transaction:
    """An open transaction.

    Attributes:
        id: As the client names it.
        instant: Read-only: the instant of all its reads, microseconds since 1970. None = read-write.
        locks: The documents, collections and collection groups (`*/ID`) that it has read.
    """

    id: bytes
    instant: int | None
    locks: set[str] = field(default_factory=set)
    began_at: float = field(default_factory=time.monotonic)
    used_at: float = field(default_factory=time.monotonic)

    @property
    def expired(self) -> bool:
        """Return whether it was idle, or open, for too long."""
        now = time.monotonic()
        return now - self.used_at > _IDLE_SECONDS or now - self.began_at > _LONGEST_SECONDS


class Transactions:
    """The open transactions of one database. The caller holds the lock of `changed` at every call."""

    def __init__(self, changed: threading.Condition) -> None:
        self._changed = changed
        # Ids of an earlier process, or of before a loss of state, are unknown here.
        self._boot_id = secrets.token_bytes(4)
        self._last_id = 0
        self._open: dict[bytes, Transaction] = {}
        # The writers that wait: the locks that must be free, and the transaction that commits.
        self._waiting: list[tuple[set[str], Transaction | None]] = []

    def __bool__(self) -> bool:
        """Return whether any transaction is open."""
        return bool(self._open)

    def begin(self, options: Any, read_instant: Callable[[int | None], int]) -> Transaction:
        """Open a transaction.

        Args:
            options: Raw `TransactionOptions`; without a mode it is read-write.
            read_instant: Checks a `read_time` and returns the instant of the reads; None = now.

        Raises:
            Refused: UNIMPLEMENTED, an option is not served; INVALID_ARGUMENT, an unknown transaction to
                retry; the errors of `read_instant`.
        """
        check_fields(options, served=_SERVED, unserved=UNSERVED)
        instant = None
        if options.HasField("read_only"):
            wanted = options.read_only
            instant = read_instant(to_instant(wanted.read_time) if wanted.HasField("read_time") else None)
        elif options.read_write.retry_transaction:
            self._check_known(options.read_write.retry_transaction)
        self._last_id += 1
        transaction = Transaction(id=self._boot_id + self._last_id.to_bytes(4, "big"), instant=instant)
        self._open = {key: one for key, one in self._open.items() if not one.expired}
        self._open[transaction.id] = transaction
        return transaction

    def find(self, transaction_id: bytes) -> Transaction:
        """Return an open transaction.

        Raises:
            Refused: INVALID_ARGUMENT, it is not known or no longer open.
        """
        self._check_known(transaction_id)
        transaction = self._open.get(transaction_id)
        if transaction is None or transaction.expired:
            raise invalid("Transaction is invalid or closed.")
        transaction.used_at = time.monotonic()
        return transaction

    def end(self, transaction_id: bytes) -> None:
        """Release the locks of a transaction. No effect when it has already ended.

        Raises:
            Refused: INVALID_ARGUMENT, it is not known.
        """
        self._check_known(transaction_id)
        if self._open.pop(transaction_id, None):
            self._changed.notify_all()

    def end_all(self) -> None:
        """Release all locks: writers that wait go on."""
        self._open = {}
        self._changed.notify_all()

    def wait_until_free(self, names: Iterable[str], own: Transaction | None) -> None:
        """Wait until no other transaction has a lock on these documents.

        Raises:
            Refused: ABORTED after `LOCK_TIMEOUT_SECONDS`.
        """
        waiting = ({key for name in names for key in _keys(name)}, own)
        self._waiting.append(waiting)
        try:
            if not self._changed.wait_for(lambda: self._is_free(*waiting), LOCK_TIMEOUT_SECONDS):
                raise Refused(grpc.StatusCode.ABORTED, "Transaction lock timeout.")
        finally:
            self._waiting.remove(waiting)
            self._changed.notify_all()

    def lock(self, transaction: Transaction, names: Collection[str]) -> None:
        """Lock what a transaction is about to read.

        Writers that already wait for it go first, unless they wait for this transaction. Otherwise aborted
        transactions that begin anew could keep each other from ever committing.
        """

        def goes_first(keys: set[str], own: Transaction | None) -> bool:
            waits_for_this = own is transaction or not keys.isdisjoint(transaction.locks)
            return not waits_for_this and not keys.isdisjoint(names)

        self._changed.wait_for(
            lambda: not any(goes_first(*waiting) for waiting in self._waiting), LOCK_TIMEOUT_SECONDS
        )
        transaction.locks.update(names)

    def _is_free(self, keys: set[str], own: Transaction | None) -> bool:
        others = (other for other in self._open.values() if other is not own)
        return not any(other.locks & keys and not other.expired for other in others)

    def _check_known(self, transaction_id: bytes) -> None:
        number = int.from_bytes(transaction_id.removeprefix(self._boot_id), "big")
        if not transaction_id.startswith(self._boot_id) or not 1 <= number <= self._last_id:
            raise invalid("Invalid transaction.")


def group_lock(collection_id: str) -> str:
    """Return the lock of a query of a collection group."""
    return f"*/{collection_id}"


def _keys(name: str) -> tuple[str, ...]:
    """Return the locks that a write of document `name` must wait for."""
    collection = name.rpartition("/")[0]
    return (name, collection, group_lock(collection.rpartition("/")[2]), EVERYTHING)
