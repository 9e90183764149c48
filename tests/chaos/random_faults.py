"""Random faults on the four services; clients must survive each of them."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from localcloud.faults import Fault

if TYPE_CHECKING:
    from collections.abc import Mapping
    from random import Random

    from localcloud import LocalCloud

#: What a small compressed body inflates to.
BOMB_BYTES = 200_000_000
#: The faults of each service. `method`, `error` and `answer` are chosen from the lists.
KINDS: dict[str, list[dict[str, Any]]] = {
    "firestore": [
        {
            "method": ["Commit"],
            "error": ["UNAVAILABLE", "DEADLINE_EXCEEDED", "INTERNAL"],
            "after_effect": True,
        },
        {"method": ["Commit", "RunQuery"], "error": ["UNAVAILABLE", "ABORTED", "RESOURCE_EXHAUSTED"]},
        {"method": ["BatchGetDocuments"], "error": ["UNAVAILABLE", "INTERNAL"]},
        {"method": ["Commit"], "contend": True},
        {"method": ["Commit", "BatchGetDocuments", "BatchWrite", "RunQuery"], "delay_seconds": 1.0},
    ],
    "storage": [
        {"method": ["objects.insert", "objects.list", "objects.get"], "error": [503, 500, 429]},
        {"method": ["objects.insert"], "error": [503], "after_effect": True},
        {"method": ["objects.insert", "objects.list"], "reset": True},
        {"method": ["objects.insert"], "delay_seconds": 1.0},
    ],
    "chart_img": [
        {"method": ["advanced-chart"], "error": [500, 503]},
        {"method": ["advanced-chart"], "reset": True},
        {"method": ["advanced-chart"], "delay_seconds": 2.0},
    ],
    "pubsub": [
        {"method": ["Acknowledge", "ModifyAckDeadline"], "drop": True},
        {"method": ["Acknowledge", "ModifyAckDeadline", "StreamingPull"], "error": ["UNAVAILABLE"]},
        {"method": ["Deliver"], "drop": True},
        {"method": ["Deliver"], "duplicate": True},
    ],
}
#: Faults that the former version can't bear.
HARDER: dict[str, list[dict[str, Any]]] = {
    "firestore": [{"method": ["BatchGetDocuments", "BatchWrite"], "error": ["RESOURCE_EXHAUSTED"]}],
    "storage": [
        {"method": ["objects.insert", "objects.list", "objects.get"], "interim": 3},
        {"method": ["objects.insert", "objects.list", "objects.get"], "trickle_seconds": 2.0},
        {"method": ["objects.insert", "objects.list"], "error": [503], "inflated_bytes": BOMB_BYTES},
    ],
    "chart_img": [
        {"method": ["advanced-chart"], "answer": ["too_many_requests"]},
        {"method": ["advanced-chart"], "interim": 3},
        {"method": ["advanced-chart"], "trickle_seconds": 3.0},
        {"method": ["advanced-chart"], "error": [503], "inflated_bytes": BOMB_BYTES},
    ],
    "pubsub": [
        {"method": ["Acknowledge", "ModifyAckDeadline", "StreamingPull"], "error": ["RESOURCE_EXHAUSTED"]}
    ],
}
#: What a fault is called in the figures: the first of these that it has.
EFFECTS = {
    "contend": "lost races",
    "inflated_bytes": "gzip bombs",
    "interim": "interim answers",
    "trickle_seconds": "trickling answers",
    "reset": "resets",
    "drop": "drops",
    "duplicate": "duplicates",
    "after_effect": "errors after the effect",
    "delay_seconds": "slow answers",
}
EXHAUSTED = frozenset({"RESOURCE_EXHAUSTED", 429, "too_many_requests"})
MAX_STRIKES = 3
#: A chart is requested up to six times. The provider's faults are rare enough that no chart meets only them:
#: then its step would fail correctly.
CHART_STRIKES, CHART_PAUSE_SECONDS = 2, 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Armed:
    """An armed fault: its service, its id, how often it fires, and what it is called in the figures."""

    service: str
    fault_id: int
    times: int
    kind: str


class RandomFaults:
    """Arm faults, and count how often they fired."""

    def __init__(self, cloud: LocalCloud, random: Random) -> None:
        self._cloud = cloud
        self._random = random
        self._armed: list[Armed] = []
        self._struck: Counter[str] = Counter()
        self._charts_from = 0.0

    @property
    def struck(self) -> Counter[str]:
        """Return how often a fault of each kind has fired."""
        counted = self._struck.copy()
        for one in self._armed:
            counted[one.kind] += self._fired(one)
        return counted

    def arm_one(self, *, harder: bool = True) -> str:
        """Arm one more random fault, of `HARDER` too if wanted, and return its description."""
        self._forget_spent()
        name = self._random.choice(self._possible())
        fields = dict(self._random.choice([*KINDS[name], *(HARDER[name] if harder else ())]))
        for drawn in sorted({"method", "error", "answer"}.intersection(fields)):
            fields[drawn] = self._random.choice(fields[drawn])
        times = self._random.randint(1, CHART_STRIKES if name == "chart_img" else MAX_STRIKES)
        if name == "chart_img":
            self._charts_from = time.monotonic() + CHART_PAUSE_SECONDS
        fault_id = self._cloud.services[name].faults.add(
            Fault(times=times, probability=self._random.uniform(0.2, 1.0), **fields)
        )
        self._armed.append(Armed(service=name, fault_id=fault_id, times=times, kind=_kind(fields)))
        return f"{name} {fields}"

    def clear(self) -> None:
        """Disarm all faults."""
        self._struck = self.struck
        self._armed = []
        for service in self._cloud.services.values():
            service.faults.clear()

    def _possible(self) -> list[str]:
        resting = {"chart_img"} if time.monotonic() < self._charts_from else set()
        return sorted(set(KINDS) - resting)

    def _forget_spent(self) -> None:
        """Remove faults that can't fire again; they only make calls slower."""
        for one in list(self._armed):
            if self._fired(one) >= one.times:
                self._struck[one.kind] += one.times
                self._armed.remove(one)
                self._cloud.services[one.service].faults.remove(one.fault_id)

    def _fired(self, one: Armed) -> int:
        return self._cloud.services[one.service].faults.fired(one.fault_id)


def _kind(fields: Mapping[str, Any]) -> str:
    """Return what the fault with these fields is called in the figures."""
    if EXHAUSTED.intersection({fields.get("error"), fields.get("answer")}):
        return "exhausted"
    return next((name for field, name in EFFECTS.items() if fields.get(field)), "errors")
