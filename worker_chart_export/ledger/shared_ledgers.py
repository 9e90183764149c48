"""The ledgers of users of the package as a library: one for all steps that a process holds with one client.

A ledger and its heartbeat thread live as long as a step is held. So the steps of one run share their commits,
and all steps share one heartbeat.
"""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from worker_chart_export.ledger.heartbeats import Heartbeats
from worker_chart_export.ledger.step_ledger import StepLedger, new_owner
from worker_chart_export.observability.logs import StandardLogger, logged_to
from worker_chart_export.timing import SystemClock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.cloud import firestore

    from worker_chart_export.ledger.lease import LeaseTerms


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerSettings:
    """What the steps of one ledger have in common.

    Attributes:
        client: A Firestore client.
        terms: The settings of leases.
        owner: Who this process is in leases. None: host:pid:boot id.
        logger: Where log lines go.
    """

    client: firestore.Client
    terms: LeaseTerms
    owner: str | None
    logger: StandardLogger


@dataclass(slots=True, kw_only=True)
class _Shared:
    ledger: StepLedger
    heartbeats: Heartbeats
    users: int = 0


class _SharedLedgers:
    """The ledgers in use. Shared by all threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._shared: dict[LedgerSettings, _Shared] = {}

    def forget_all(self) -> None:
        """Start without ledgers: a forked process holds none of the steps of its parent."""
        self._lock = threading.Lock()
        self._shared = {}

    def join(self, settings: LedgerSettings) -> StepLedger:
        """Return the ledger for these settings. The first user starts its heartbeats."""
        with self._lock:
            shared = self._shared.get(settings)
            if shared is None:
                shared = self._shared[settings] = _started(settings)
            shared.users += 1
            return shared.ledger

    def leave(self, settings: LedgerSettings) -> None:
        """End one use of the ledger. The last user stops its heartbeats."""
        with self._lock:
            shared = self._shared[settings]
            shared.users -= 1
            if shared.users:
                return
            del self._shared[settings]
        shared.heartbeats.stop()


def _started(settings: LedgerSettings) -> _Shared:
    clock = SystemClock()
    heartbeats = Heartbeats(client=settings.client, terms=settings.terms, clock=clock)
    ledger = StepLedger(
        client=settings.client,
        clock=clock,
        terms=settings.terms,
        heartbeats=heartbeats,
        owner=settings.owner or _owner(),
    )
    with logged_to(settings.logger):
        heartbeats.start()
    return _Shared(ledger=ledger, heartbeats=heartbeats)


@cache
def _owner() -> str:
    """Return the name of this process, the same for all its ledgers."""
    return new_owner()


_ledgers = _SharedLedgers()
os.register_at_fork(after_in_child=_ledgers.forget_all)
os.register_at_fork(after_in_child=_owner.cache_clear)


@contextmanager
def shared_ledger(settings: LedgerSettings) -> Iterator[StepLedger]:
    """Use the ledger for these settings until the block ends."""
    pid = os.getpid()
    ledger = _ledgers.join(settings)
    try:
        yield ledger
    finally:
        if os.getpid() == pid:  # else the process was forked inside the block
            _ledgers.leave(settings)
