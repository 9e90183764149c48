"""A small test world: a cloud, daemons, an orchestrator that changes steps, and the final facts."""

from __future__ import annotations

import itertools
import json
import secrets
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from google.cloud import firestore
from google.cloud.firestore_v1.field_path import FieldPath

from daemon.cli.demo.resources import chart_step_id, flow_run
from localcloud.firestore.limits import MAX_DOCUMENT_BYTES
from localcloud.pubsub.messages import PubsubMessage
from tests.chaos.documents import Documents
from tests.chaos.end_state import GONE, SUCCEEDED, Disturbance, Expected
from tests.chaos.fleet import Worker
from tests.chaos.history import History
from tests.support.cloud.clouds import clients_find
from tests.support.cloud.resources import Deployment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from localcloud import LocalCloud

#: Short leases, so that a take-over needs only seconds.
SETTINGS = {
    "LEASE_SECONDS": "6",
    "CLOCK_SKEW_SECONDS": "1",
    "RESCUE_INTERVAL_SECONDS": "2",
    "ACK_EXTENSION_SECONDS": "10",
    "STEP_TIMEOUT_SECONDS": "60",
    "DRAIN_SECONDS": "10",
    "NOT_READY_GRACE_SECONDS": "20",
}
POLL_SECONDS = 0.1
#: The environment belongs to the whole process, so worlds are created one by one.
_making = threading.Lock()


class World:
    """The runs and daemons of one test.

    Every step has its own chart templates with their own symbols. So the provider's log shows the step and
    the chart of each request.

    Attributes:
        expected: The requested steps, by run and step id.
        documents: The orchestrator's access to Firestore.
        history: The changes of steps, from the log of the embedded Firestore.
        outages: Failing backends, which can cost charts in flight.
        clock_slack_seconds: The intended error of the daemons' clocks.
    """

    def __init__(self, deployment: Deployment, settings: Mapping[str, str]) -> None:
        self.deployment = deployment
        self.cloud: LocalCloud = deployment.cloud
        self.settings = {**SETTINGS, **settings}
        self.expected: dict[tuple[str, str], Expected] = {}
        embedded = deployment.environment["FIRESTORE_EMULATOR_HOST"] == self.cloud.firestore.address
        self.documents = Documents(deployment.documents, self.cloud.firestore if embedded else None)
        self.history = History(self.cloud.firestore.commits, self.documents.own_commits)
        self.workers: list[Worker] = []
        self.outages: list[Disturbance] = []
        self.clock_slack_seconds = 0.0
        self._open: dict[tuple[str, str], None] = {}
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()

    # Daemons

    def worker(
        self, *, module: str = "daemon", fresh: bool = False, python: Path | None = None, **settings: str
    ) -> Worker:
        """Start a daemon; `started()` waits for it. See `DaemonUnderTest` for `fresh` and `python`."""
        with self._lock:
            key = f"key-{next(self._numbers)}"
            environment = self.deployment.settings(**{**self.settings, **settings})
            worker = Worker(key, environment, module=module, fresh=fresh, python=python)
            self.workers.append(worker)
        return worker

    def outage(self, kind: str, *, seconds: float = 3600.0) -> None:
        """Record that a failing backend can cost any chart in flight from now on, for this time."""
        now = time.time()
        self.outages.append(Disturbance(kind=kind, at=now, until=now + seconds))

    # Runs

    def put_run(self, *, steps: int = 1, charts: int = 2, status: str = "READY") -> tuple[str, list[str]]:
        """Store a run with this number of chart steps and charts; return its id and the steps' ids."""
        run_id = self.deployment.run_id()
        names = [f"charts:1d:step{number:03d}" for number in range(steps)]
        templates = {name: self._templates(charts) for name in names}
        document = flow_run(run_id, "IBM", {"1d": f"gs://{self.deployment.bucket}/ohlcv.json"}, [])
        blank = document["steps"].pop(chart_step_id("1d"))
        for name in names:
            requests = [{"chartTemplateId": template_id} for template_id in templates[name]]
            inputs = {"minImages": charts, "requests": requests}
            document["steps"][name] = {**blank, "status": status, "inputs": inputs}
        self.documents.write(lambda batch: batch.set(self.documents.run(run_id), document))
        for name in names:
            self._expect(Expected(run_id=run_id, step_id=name, template_ids=templates[name]))
        return run_id, names

    def fill_run(self, run_id: str, *, free_bytes: int) -> None:
        """Make a run so large that `free_bytes` are left of Firestore's limit for a document."""
        filler = 1_000_000
        for _ in range(2):
            self._update(run_id, FieldPath("progress", "filler"), "x" * filler)
            filler += MAX_DOCUMENT_BYTES - free_bytes - self.documents.size(run_id)
        assert self.documents.size(run_id) == MAX_DOCUMENT_BYTES - free_bytes

    def _templates(self, charts: int) -> tuple[str, ...]:
        ids = tuple(f"tpl_{secrets.token_hex(5)}" for _ in range(charts))

        def put(batch: Any) -> None:
            for template_id in ids:
                reference = self.deployment.documents.document(f"chart_templates/{template_id}")
                batch.set(reference, _template(template_id))

        self.documents.write(put)
        return ids

    def expect(self, run_id: str, step_id: str, *statuses: str, meddled: bool = False) -> None:
        """Set the allowed final statuses of a step, if not only SUCCEEDED."""
        known = self.expected[run_id, step_id]
        self._expect(
            Expected(
                run_id=run_id,
                step_id=step_id,
                template_ids=known.template_ids,
                statuses=frozenset(statuses) or SUCCEEDED,
                meddled=meddled,
            )
        )

    def _expect(self, expected: Expected) -> None:
        key = (expected.run_id, expected.step_id)
        self.expected[key] = expected
        self._open[key] = None

    def publish(self, run_id: str, step_ids: list[str]) -> None:
        """Publish one message for each step."""
        bodies = [json.dumps({"runId": run_id, "stepId": step_id}).encode() for step_id in step_ids]
        futures = [self.deployment.publisher.publish(self.deployment.topic, body) for body in bodies]
        for future in futures:
            future.result(timeout=30)

    def publish_run(self, run_id: str) -> None:
        """Publish a message that names only the run."""
        self.deployment.publish(json.dumps({"runId": run_id}).encode())

    def deliver(self, bodies: list[dict[str, str]]) -> None:
        """Put messages directly into the embedded topic, unaffected by faults."""
        messages = [PubsubMessage(data=json.dumps(body).encode()) for body in bodies]
        self.cloud.pubsub._topics.publish(self.deployment.topic, messages)

    # The orchestrator

    def meddle(self, run_id: str, step_id: str, status: str) -> None:
        """Set a step's status as the orchestrator; GONE deletes the step."""
        if status == GONE:
            self.delete_step(run_id, step_id)
        else:
            self.set_status(run_id, step_id, status)

    def set_status(self, run_id: str, step_id: str, status: str) -> None:
        """Set a step's status without any condition."""
        self._update(run_id, FieldPath("steps", step_id, "status"), status)

    def delete_step(self, run_id: str, step_id: str) -> None:
        """Remove a step from its run."""
        self._update(run_id, FieldPath("steps", step_id), firestore.DELETE_FIELD)

    def note_progress(self, run_id: str, count: int) -> None:
        """Write a field of the run that only the orchestrator uses."""
        self._update(run_id, FieldPath("progress", "reads"), count)

    def delete_run(self, run_id: str) -> None:
        """Delete the run's document; its subcollections stay."""
        self.documents.write(lambda batch: batch.delete(self.documents.run(run_id)))

    def _update(self, run_id: str, path: FieldPath, value: Any) -> None:
        run = self.documents.run(run_id)
        self.documents.write(lambda batch: batch.update(run, {path.to_api_repr(): value}))

    # Waiting

    def wait_for(self, holds: Callable[[], bool], what: str, seconds: float = 40.0) -> None:
        """Poll until `holds()` is true; fail on a timeout."""
        if not self.holds_within(holds, seconds):
            raise AssertionError(f"waited {seconds:g} s for {what}")

    def holds_within(self, holds: Callable[[], bool], seconds: float) -> bool:
        """Poll until `holds()` is true; return False on a timeout."""
        deadline = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_SECONDS)
        return True

    def status(self, run_id: str, step_id: str) -> str:
        """Return a step's current status; GONE without the step."""
        return _status(self.documents.runs([run_id])[run_id], step_id)

    def result(self, run_id: str, step_id: str) -> tuple[Any, bytes, int]:
        """Return the current step, its manifest's bytes and their generation."""
        run = self.documents.runs([run_id])[run_id]
        bucket = self.deployment.objects.bucket(self.deployment.bucket)
        blob = bucket.get_blob(f"charts/{run_id}/{step_id}/manifest.json")
        return run and run["steps"][step_id], blob.download_as_bytes(), blob.generation

    def unfinished(self) -> list[Expected]:
        """Return the steps without an allowed final status. One that had it once is not read again."""
        open_now = list(self._open)
        runs = self.documents.runs(sorted({run_id for run_id, _ in open_now}))
        left = [
            expected
            for expected in map(self.expected.__getitem__, open_now)
            if _status(runs[expected.run_id], expected.step_id) not in expected.statuses
        ]
        self._open = {(expected.run_id, expected.step_id): None for expected in left}
        return left

    def read_runs(self) -> dict[str, dict[str, Any] | None]:
        """Return all runs by id; None = deleted."""
        return self.documents.runs(sorted({run_id for run_id, _ in self.expected}))

    def unacked(self) -> int | None:
        """Return the number of unsettled messages; None when Pub/Sub does not report it."""
        if self.deployment.environment["PUBSUB_EMULATOR_HOST"] != self.cloud.pubsub.address:
            return None
        return self.cloud.pubsub.unacked(self.deployment.subscription)

    def calm(self) -> bool:
        """Return whether every step has ended, no lease is left and every message is settled."""
        return not self.unacked() and not self.unfinished() and not self.documents.leases()


def _status(run: Mapping[str, Any] | None, step_id: str) -> str:
    return str(run["steps"].get(step_id, {}).get("status", GONE)) if run else GONE


def _template(template_id: str) -> dict[str, Any]:
    return {
        "id": template_id,
        "description": "A chart of one step only",
        "chartImgSymbolTemplate": f"{template_id}:{{symbol}}",
        "request": {"width": 400, "height": 300},
    }


@contextmanager
def world_on(
    cloud: LocalCloud, environment: Mapping[str, str] | None = None, **settings: str
) -> Iterator[World]:
    """Return a world on an embedded cloud, or on the services that `environment` names."""
    named = {**cloud.environment(), **(environment or {})}
    with _making, clients_find(named):
        deployment = Deployment(named, cloud)
        # It reads the environment at each call, while another world changes it.
        deployment.objects._http.trust_env = False
    world = World(deployment, settings)
    try:
        yield world
    finally:
        for worker in world.workers:
            worker.kill()
        deployment.close()
