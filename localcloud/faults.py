"""Faults: errors that a service makes on purpose, for chosen calls and a chosen number of times.

The design is the same for all four services. Of the armed faults that match a call's method and subject, only
the first one fires. The subject is a text that names the target of the call: document names, a subscription,
`bucket/object`, or a Chart-IMG key with symbol and interval.
"""

from __future__ import annotations

import random
import threading
from dataclasses import dataclass, fields
from types import NoneType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """One fault to inject.

    Attributes:
        method: The method at which it fires, as counted in `calls`; `*` is every method. Pub/Sub also has
            `Deliver`, which counts each delivered message.
        match: Text that the call's subject must contain; empty matches every call.
        error: The error that the caller gets: a gRPC status name (`UNAVAILABLE`) or an HTTP status (503).
        message: The message of that error.
        after_effect: The call takes effect first, then fails.
        drop: gRPC: the call returns OK without any effect (a lost ack, a lost write, a lost delivery).
        reset: HTTP: the connection is closed without a response. Over gRPC use `error="UNAVAILABLE"`.
        truncate_bytes: HTTP: the response's body ends after so many bytes; its content length matches.
        inflated_bytes: HTTP: the response's body is gzip instead, which inflates to so many bytes.
        interim: HTTP: so many interim responses (status 100 to 103) come before the response.
        trickle_seconds: HTTP: the response comes in twenty pieces over this time.
        duplicate: Pub/Sub `Deliver`: the message is delivered twice.
        contend: Firestore `Commit` and `BatchWrite`: each document written is rewritten unchanged just
            before, so that its `update_time` moves and preconditions on it fail as in a lost race.
        commits_per_second: Firestore `Commit` and `BatchWrite`: each document takes at most so many commits a
            second; 0 is no limit. More commits wait in a queue, and end with ABORTED after five seconds.
        answer: Chart-IMG: the name of a scripted response in `localcloud/chart_img/answers.py`.
        delay_seconds: The wait before the effect (after it with `after_effect`).
        skip: The number of matching calls that pass first.
        times: The number of times that it fires; null (None) = always.
        probability: The probability that it fires at a matching call, from the seeded generator.
        before: In-process only: called with the request just before the effect, e.g. to force a race.
    """

    method: str = "*"
    match: str = ""
    error: str | int | None = None
    message: str = "injected fault"
    after_effect: bool = False
    drop: bool = False
    reset: bool = False
    truncate_bytes: int | None = None
    inflated_bytes: int = 0
    interim: int = 0
    trickle_seconds: float = 0.0
    duplicate: bool = False
    contend: bool = False
    commits_per_second: float = 0.0
    answer: str = ""
    delay_seconds: float = 0.0
    skip: int = 0
    times: int | None = None
    probability: float = 1.0
    before: Callable[[object], None] | None = None


_DEFAULT = Fault()
#: The types of a fault's fields in JSON. The defaults of the others say theirs.
_OPTIONAL = {"error": (str, int, NoneType), "truncate_bytes": (int, NoneType), "times": (int, NoneType)}
_KINDS: dict[str, tuple[type, ...]] = {
    field.name: _OPTIONAL.get(field.name, (float, int) if field.type == "float" else (type(field.default),))
    for field in fields(Fault)
    if field.name != "before"
}
# Only some services support these fields.
_SPECIAL = frozenset(
    {
        "drop",
        "reset",
        "truncate_bytes",
        "inflated_bytes",
        "interim",
        "trickle_seconds",
        "duplicate",
        "contend",
        "commits_per_second",
        "answer",
    }
)


def check_fault(fault: Fault, *, methods: Collection[str], supported_faults: Collection[str]) -> None:
    """Refuse a fault that a service does not support: a test with it would test nothing.

    Args:
        fault: The fault.
        methods: The service's methods.
        supported_faults: The special fields that the service supports.

    Raises:
        ValueError: The message names the wrong field.
    """
    if fault.method not in ("*", *methods):
        raise ValueError(f"no method {fault.method!r}, only {', '.join(sorted(methods))}")
    for name in sorted(_SPECIAL.difference(supported_faults)):
        if getattr(fault, name) != getattr(_DEFAULT, name):
            raise ValueError(f"this service has no fault {name!r}")


def fault_of(values: Mapping[str, Any]) -> Fault:
    """Return the fault with these fields, as they come in JSON.

    Raises:
        ValueError: A field is unknown or has a value of a wrong kind; the message names it.
    """
    for name, value in values.items():
        kinds = _KINDS.get(name)
        if kinds is None:
            raise ValueError(f"{name}: unknown field, expected one of {', '.join(_KINDS)}")
        if type(value) not in kinds:
            expected = " or ".join(kind.__name__ for kind in kinds)
            raise ValueError(f"{name}: expected {expected}, got {value!r}")
    return Fault(**values)


@dataclass(slots=True)
class _Armed:
    fault: Fault
    seen: int = 0
    fired: int = 0


def _changed_fields(fault: Fault) -> dict[str, Any]:
    values = ((name, getattr(fault, name)) for name in _KINDS)
    return {name: value for name, value in values if value != getattr(_DEFAULT, name)}


class Faults:
    """The armed faults of one service. Thread-safe.

    Args:
        seed: Seeds the chance of faults with a probability.
        check: Raises ValueError for a fault that the service does not support.
    """

    def __init__(self, seed: int = 0, check: Callable[[Fault], None] = lambda _: None) -> None:
        self._check = check
        self._lock = threading.Lock()
        self._armed: dict[int, _Armed] = {}
        self._next_id = 1
        self._random = random.Random(seed)  # noqa: S311 - chance for tests, repeatable on purpose

    def add(self, fault: Fault) -> int:
        """Arm `fault` and return its id.

        Raises:
            ValueError: It could never fire here: an unknown method, or a field this service does not support.
        """
        self._check(fault)
        with self._lock:
            fault_id = self._next_id
            self._next_id += 1
            self._armed = {**self._armed, fault_id: _Armed(fault)}
            return fault_id

    def remove(self, fault_id: int) -> None:
        """Disarm one fault. An unknown id has no effect."""
        with self._lock:
            self._armed = {key: armed for key, armed in self._armed.items() if key != fault_id}

    def clear(self) -> None:
        """Disarm all faults."""
        with self._lock:
            self._armed = {}

    def fired(self, fault_id: int) -> int:
        """Return how often the fault with this id has fired; 0 after it was disarmed."""
        with self._lock:
            armed = self._armed.get(fault_id)
            return armed.fired if armed else 0

    def as_list(self) -> list[dict[str, Any]]:
        """Return the armed faults: `id`, `fired`, and the fields that differ from the defaults."""
        with self._lock:
            return [
                {"id": fault_id, "fired": armed.fired, **_changed_fields(armed.fault)}
                for fault_id, armed in self._armed.items()
            ]

    @property
    def armed(self) -> bool:
        """Return whether any fault is armed. No lock: `_armed` is replaced and never changed."""
        return bool(self._armed)

    def take(self, method: str, subject: str = "") -> Fault | None:
        """Return the fault for this call and count it as fired; None when no fault applies."""
        with self._lock:
            return next(
                (armed.fault for armed in self._armed.values() if self._fires(armed, method, subject)), None
            )

    def _fires(self, armed: _Armed, method: str, subject: str) -> bool:
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
