"""Faults: what a service does wrong on purpose, for which calls, and how often.

One design for all four services. Each call looks for the first armed fault that fits its method and subject;
that one alone fires. The subject is text that names what the call is about: document names, a subscription,
`bucket/object`, or a Chart-IMG key with symbol and interval.
"""

from __future__ import annotations

import random
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """One thing to go wrong.

    Attributes:
        method: The method it strikes, as counted in `calls`; `*` is every method. Pub/Sub has one more,
            `Deliver`, asked once for each message handed out.
        match: Text that the call's subject must hold; empty fits all.
        error: What the caller gets: a gRPC status name (`UNAVAILABLE`) or an HTTP status (503).
        message: The words of that error.
        after_effect: The call takes effect first, then goes wrong.
        drop: gRPC: the caller is told OK, but nothing happens (a lost ack, a lost write, a lost delivery).
        reset: HTTP: the connection is closed without an answer. Over gRPC use `error="UNAVAILABLE"`.
        truncate_bytes: HTTP: the answer's body ends after so many bytes, with a content length that fits.
        duplicate: Pub/Sub `Deliver`: the message is handed out twice.
        contend: Firestore `Commit` and `BatchWrite`: each document written is rewritten unchanged just
            before, so that its `update_time` moves and preconditions on it fail as in a lost race.
        answer: Chart-IMG: the name of a scripted answer, see `localcloud.chart_img.answers`.
        delay_seconds: Wait so long, before the effect (or after it with `after_effect`).
        skip: Let so many fitting calls pass first.
        times: Strike so often, then never again; None = always.
        probability: The chance that a fitting call is struck, from the seeded generator.
        before: In-process only: called with the request just before the effect, e.g. to stage a race.
    """

    method: str = "*"
    match: str = ""
    error: str | int | None = None
    message: str = "injected fault"
    after_effect: bool = False
    drop: bool = False
    reset: bool = False
    truncate_bytes: int | None = None
    duplicate: bool = False
    contend: bool = False
    answer: str = ""
    delay_seconds: float = 0.0
    skip: int = 0
    times: int | None = None
    probability: float = 1.0
    before: Callable[[object], None] | None = None


_DEFAULT = Fault()
# What only some services can do.
_SPECIAL = frozenset({"drop", "reset", "truncate_bytes", "duplicate", "contend", "answer"})


def check_fault(fault: Fault, *, methods: Collection[str], able: Collection[str]) -> None:
    """Refuse a fault that a service could never carry out: a test with it would test nothing.

    Args:
        fault: The fault.
        methods: The methods that the service asks for.
        able: Those of the special fields that the service knows.

    Raises:
        ValueError: Says what does not fit.
    """
    if fault.method not in ("*", *methods):
        raise ValueError(f"no method {fault.method!r}, only {', '.join(sorted(methods))}")
    for name in sorted(_SPECIAL.difference(able)):
        if getattr(fault, name) != getattr(_DEFAULT, name):
            raise ValueError(f"this service has no fault {name!r}")


@dataclass(slots=True)
class _Armed:
    fault: Fault
    seen: int = 0
    fired: int = 0


class Faults:
    """The armed faults of one service. Thread-safe.

    Args:
        seed: Seeds the chance of faults with a probability.
        check: Raises ValueError for a fault that the service could not carry out.
    """

    def __init__(self, seed: int = 0, check: Callable[[Fault], None] = lambda _: None) -> None:
        self._check = check
        self._lock = threading.Lock()
        self._armed: dict[int, _Armed] = {}
        self._next_id = 1
        self._random = random.Random(seed)  # noqa: S311 - chance for tests, repeatable on purpose

    def add(self, fault: Fault) -> int:
        """Arm `fault`; returns its id.

        Raises:
            ValueError: It could never strike here: an unknown method, or something this service does not do.
        """
        self._check(fault)
        with self._lock:
            fault_id = self._next_id
            self._next_id += 1
            self._armed = {**self._armed, fault_id: _Armed(fault)}
            return fault_id

    def remove(self, fault_id: int) -> None:
        """Disarm one fault; an unknown id is fine."""
        with self._lock:
            self._armed = {key: armed for key, armed in self._armed.items() if key != fault_id}

    def clear(self) -> None:
        """Disarm all."""
        with self._lock:
            self._armed = {}

    def fired(self, fault_id: int) -> int:
        """How often the fault with this id struck so far; 0 once it was disarmed."""
        with self._lock:
            armed = self._armed.get(fault_id)
            return armed.fired if armed else 0

    @property
    def armed(self) -> bool:
        """Whether there is any fault; read without a lock, since `_armed` is replaced and never changed."""
        return bool(self._armed)

    def take(self, method: str, subject: str = "") -> Fault | None:
        """The fault that strikes this call, counted as fired; None when all is well."""
        with self._lock:
            return next(
                (armed.fault for armed in self._armed.values() if self._strikes(armed, method, subject)), None
            )

    def _strikes(self, armed: _Armed, method: str, subject: str) -> bool:
        fault = armed.fault
        if fault.method not in ("*", method) or fault.match not in subject:
            return False
        if fault.times is not None and armed.fired >= fault.times:
            return False
        armed.seen += 1
        if armed.seen <= fault.skip or self._random.random() >= fault.probability:
            return False
        armed.fired += 1
        return True
