"""Strikes at exact moments: the calls at which a step passes from one stage to the next.

The embedded service reports a call to the strike just before it takes effect. The strike acts on the daemon
while it waits for the response. The call can still take effect, or be lost with its sender.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc

from localcloud.faults import Fault
from localcloud.grpc_server import GrpcService, Refused
from localcloud.http_server import ConnectionDropped
from tests.chaos.history import LEASES, RUNS

if TYPE_CHECKING:
    from collections.abc import Callable

    from localcloud.http_server import HttpService
    from tests.chaos.world import World

STRIKE_SECONDS = 25.0


def commit_kind(request: Any) -> str:
    """Return the kind of a commit: `claim`, `finalize`, `lease` (only a lease) or `other`."""
    runs = [w.update for w in request.writes if RUNS in w.update.name and LEASES not in w.update.name]
    written = {status for run in runs for status in _written_statuses(run)}
    if written & {"SUCCEEDED", "FAILED"}:
        return "finalize"
    if "RUNNING" in written:
        return "claim"
    touched = [write.update.name or write.delete for write in request.writes]
    return "lease" if touched and all(LEASES in name for name in touched) else "other"


def _written_statuses(run: Any) -> list[str]:
    """Return the statuses in a patch. It contains no step types."""
    steps = run.fields["steps"].map_value.fields if "steps" in run.fields else {}
    found = [step.map_value.fields for step in steps.values()]
    return [fields["status"].string_value for fields in found if "status" in fields]


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A call at a stage boundary.

    Attributes:
        service: The service's name in the cloud.
        method: The method called.
        match: Text that the call's subject contains.
        kind: The kind of a commit, see `commit_kind`; empty = any.
        nth: The number of the matching call, from 1.
        lands: The call takes effect without a response; else it is lost.
    """

    service: str
    method: str
    match: str = ""
    kind: str = ""
    nth: int = 1
    lands: bool = True

    def fits(self, request: Any) -> bool:
        """Return whether this point is at a call of that method."""
        return not self.kind or commit_kind(request) == self.kind


POINTS = {
    "reading the run": Point(service="firestore", method="BatchGetDocuments", match="flow_runs"),
    "claim lost": Point(service="firestore", method="Commit", kind="claim", lands=False),
    "claim landed": Point(service="firestore", method="Commit", kind="claim"),
    "first chart asked": Point(service="chart_img", method="advanced-chart"),
    "first upload lost": Point(service="storage", method="objects.insert", match=".png", lands=False),
    "first upload landed": Point(service="storage", method="objects.insert", match=".png"),
    "second chart asked": Point(service="chart_img", method="advanced-chart", nth=2),
    "second upload lost": Point(service="storage", method="objects.insert", match=".png", nth=2, lands=False),
    "second upload landed": Point(service="storage", method="objects.insert", match=".png", nth=2),
    "manifest lost": Point(service="storage", method="objects.insert", match="manifest.json", lands=False),
    "manifest landed": Point(service="storage", method="objects.insert", match="manifest.json"),
    "finalize lost": Point(service="firestore", method="Commit", kind="finalize", lands=False),
    "finalize landed": Point(service="firestore", method="Commit", kind="finalize"),
    "ack lost": Point(service="pubsub", method="Acknowledge", lands=False),
    "ack landed": Point(service="pubsub", method="Acknowledge"),
}


class Strike:
    """Run an action at a point, once."""

    def __init__(self, world: World, point: Point, do: Callable[[], None]) -> None:
        self._service: GrpcService | HttpService = world.cloud.services[point.service]
        self._point = point
        self._do = do
        self._lock = threading.Lock()
        self._seen = 0
        self._done = threading.Event()
        self._failure: Exception | None = None
        self._fault = self._service.faults.add(
            Fault(method=point.method, match=point.match, before=self._before)
        )

    def wait(self) -> None:
        """Wait until the action is done; fail when it did not run or raised an error."""
        assert self._done.wait(STRIKE_SECONDS), f"nothing came to {self._point}"
        if self._failure:
            raise self._failure

    def _before(self, request: object) -> None:
        if not self._is_now(request):
            return
        try:
            self._do()
        except Exception as error:  # noqa: BLE001 - shown to the test, which waits for it
            self._failure = error
        finally:
            self._service.faults.remove(self._fault)
            self._done.set()
        if not self._point.lands:
            raise self._lost()

    def _is_now(self, request: object) -> bool:
        with self._lock:
            self._seen += self._point.fits(request)
            return self._point.fits(request) and self._seen == self._point.nth

    def _lost(self) -> Exception:
        if isinstance(self._service, GrpcService):
            return Refused(grpc.StatusCode.UNAVAILABLE, "lost on the way")
        return ConnectionDropped()


class Gate:
    """Hold the calls of one method until it is opened."""

    def __init__(self, world: World, service: str, method: str, match: str = "") -> None:
        self._reached = threading.Event()
        self._open = threading.Event()
        faults = world.cloud.services[service].faults
        self._disarm = lambda: faults.remove(fault)
        fault = faults.add(Fault(method=method, match=match, before=self._hold))

    def _hold(self, _request: object) -> None:
        self._reached.set()
        self._open.wait(STRIKE_SECONDS)

    def wait_until_reached(self) -> None:
        """Wait for the first call."""
        assert self._reached.wait(STRIKE_SECONDS), "nothing came to the gate"

    def open(self) -> None:
        """Let all calls pass from now on."""
        self._disarm()
        self._open.set()
