"""Random faults on the four services; clients must survive each of them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from localcloud.faults import Fault

if TYPE_CHECKING:
    from random import Random

    from localcloud import LocalCloud

#: The faults of each service. `method` and `error` are chosen from the lists.
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
MAX_STRIKES = 3
#: A chart is requested up to six times. The provider's faults are rare enough that no chart meets only them:
#: then its step would fail correctly.
CHART_STRIKES, CHART_PAUSE_SECONDS = 2, 10.0


class RandomFaults:
    """Arm faults, and count how often they fired."""

    def __init__(self, cloud: LocalCloud, random: Random) -> None:
        self._cloud = cloud
        self._random = random
        self._armed: list[tuple[str, int, int]] = []
        self._struck = 0
        self._charts_from = 0.0

    @property
    def struck(self) -> int:
        """Return how often a fault has fired."""
        return self._struck + sum(self._fired(name, fault_id) for name, fault_id, _ in self._armed)

    def arm_one(self) -> str:
        """Arm one more random fault and return its description."""
        self._forget_spent()
        name = self._random.choice(self._possible())
        fields = dict(self._random.choice(KINDS[name]))
        for drawn in {"method", "error"}.intersection(fields):
            fields[drawn] = self._random.choice(fields[drawn])
        times = self._random.randint(1, CHART_STRIKES if name == "chart_img" else MAX_STRIKES)
        if name == "chart_img":
            self._charts_from = time.monotonic() + CHART_PAUSE_SECONDS
        fault_id = self._cloud.services[name].faults.add(
            Fault(times=times, probability=self._random.uniform(0.2, 1.0), **fields)
        )
        self._armed.append((name, fault_id, times))
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
        for name, fault_id, times in list(self._armed):
            if self._fired(name, fault_id) >= times:
                self._struck += times
                self._armed.remove((name, fault_id, times))
                self._cloud.services[name].faults.remove(fault_id)

    def _fired(self, name: str, fault_id: int) -> int:
        return self._cloud.services[name].faults.fired(fault_id)
