"""The cloud under a benchmark: its process, and the queues, bucket and runs on it."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import secrets
import shlex
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import httpx
from google.cloud import firestore, storage
from google.cloud.pubsub_v1 import PublisherClient, SubscriberClient

from benchmarks.processes import END_SECONDS, ROOT, cpu_seconds_of
from benchmarks.queues import open_queue
from benchmarks.rendering import CANDLES
from daemon.cli.demo.resources import chart_step_id, flow_run, sample_templates
from tests.support.cloud.clouds import official_emulators
from worker_chart_export.charts.local.input.candles import parse_candles
from worker_chart_export.charts.local.render import render

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager

    from benchmarks.queues import Queue

ACCOUNT = [
    {"id": "bench", "apiKey": "bench-key", "dailyLimit": 10**7, "ratePerSecond": 1000, "burst": 10_000}
]
#: One Firestore batch takes at most 500 writes.
RUNS_A_BATCH = 200


@contextlib.contextmanager
def embedded_cloud() -> Iterator[tuple[dict[str, str], int]]:
    """Start the embedded cloud in its own process and yield its environment and its process id."""
    process = subprocess.Popen(
        [sys.executable, "-m", "localcloud"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        environment: dict[str, str] = {}
        for line in process.stdout or ():
            name, _, value = line.removeprefix("export ").partition("=")
            environment[name] = shlex.split(value)[0]
            if name == "LOCALCLOUD_CONTROL_URL":
                break
        yield environment, process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            raise


@contextlib.contextmanager
def open_cloud(*, official: bool) -> Iterator[tuple[BenchCloud, Control]]:
    """Open the embedded cloud, or the official Pub/Sub and Firestore with the other two services embedded."""
    with contextlib.ExitStack() as running:
        environment: Mapping[str, str]
        environment, pid = running.enter_context(embedded_cloud())
        if official:
            emulators = running.enter_context(official_emulators())
            environment = {**environment, **emulators.environment()}
        cloud, control = BenchCloud(environment), Control(environment, pid)
        running.callback(cloud.close)
        running.callback(control.close)
        yield cloud, control


class Control:
    """The embedded cloud's control port, and its process."""

    def __init__(self, environment: Mapping[str, str], pid: int) -> None:
        self._pid = pid
        self._client = httpx.Client(base_url=environment["LOCALCLOUD_CONTROL_URL"], timeout=30)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def delay_charts(self, seconds: float) -> None:
        """Delay each chart of the provider by `seconds`."""
        self._client.delete("/faults").raise_for_status()
        if seconds:
            fault = {"service": "chart_img", "delay_seconds": seconds}
            self._client.post("/faults", json=fault).raise_for_status()

    def limit_commits(self, per_second: float) -> None:
        """Hold the commits on each Firestore document to a rate."""
        fault = {"service": "firestore", "method": "Commit", "commits_per_second": per_second}
        self._client.post("/faults", json=fault).raise_for_status()

    def cpu_seconds(self) -> float:
        """Return the processor time of the embedded cloud so far."""
        return cpu_seconds_of(self._pid)

    def calls(self) -> dict[str, dict[str, int]]:
        """Return the number of calls so far: service -> method -> count."""
        answer = self._client.get("/calls").raise_for_status()
        counts: dict[str, dict[str, int]] = answer.json()
        return counts

    def documents_mib_read(self) -> float:
        """Return the MiB of document reads so far."""
        answer = self._client.get("/bytes-read").raise_for_status()
        return float(answer.json().get("BatchGetDocuments", 0)) / 2**20


@dataclass(frozen=True, slots=True)
class ReadySteps:
    """Steps that are READY and not published yet."""

    steps: list[tuple[str, str]]


class BenchCloud:
    """A bucket, templates and queues for one benchmark, on the cloud that the environment names.

    Args:
        environment: The addresses of the services and the base URL of the provider.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = dict(environment)
        self._project = environment["GOOGLE_CLOUD_PROJECT"]
        with mock.patch.dict(os.environ, environment):
            self._publisher = PublisherClient()
            self._subscriber = SubscriberClient()
            self.documents = firestore.Client(project=self._project)
            objects = storage.Client(project=self._project)
        self._bucket = f"bench-{secrets.token_hex(4)}"
        self._numbers = itertools.count()
        objects.create_bucket(self._bucket)
        objects.bucket(self._bucket).blob("ohlcv.json").upload_from_string(CANDLES.read_bytes())
        self._templates = [template["id"] for template in sample_templates()]
        self._fixtures = tempfile.TemporaryDirectory()
        for template in sample_templates():
            self.documents.document(f"chart_templates/{template['id']}").set(template)

    def queue(self) -> AbstractContextManager[Queue]:
        """Open a queue for one process."""
        return open_queue(self._project, self._publisher, self._subscriber)

    def settings(self, queue: Queue, **changed: str) -> dict[str, str]:
        """Return the environment of a worker or floor process that pulls from this queue."""
        return {
            **self._environment,
            "PUBSUB_SUBSCRIPTION": queue.subscription,
            "CHARTS_BUCKET": f"gs://{self._bucket}",
            "CHARTS_API_MODE": "real",
            "CHART_IMG_ACCOUNTS_JSON": json.dumps(ACCOUNT),
            "HEALTH_PORT": "0",
            "ACK_EXTENSION_SECONDS": "10",
            **changed,
        }

    def put_runs(self, count: int, *, steps: int = 1, charts: int = 3) -> ReadySteps:
        """Store `count` runs with `steps` READY steps of `charts` charts each."""
        runs = [self._run(steps, charts) for _ in range(count)]
        for start in range(0, count, RUNS_A_BATCH):
            batch = self.documents.batch()
            for run in runs[start : start + RUNS_A_BATCH]:
                batch.set(self.documents.document(f"flow_runs/{run['runId']}"), run)
            batch.commit()
        return ReadySteps(
            [
                (run["runId"], step_id)
                for run in runs
                for step_id, step in run["steps"].items()
                if step["stepType"] == "CHART_EXPORT"
            ]
        )

    def statuses(self, ready: ReadySteps) -> set[str]:
        """Read the current statuses of the steps."""
        run_ids = {run_id for run_id, _ in ready.steps}
        references = [self.documents.document(f"flow_runs/{run_id}") for run_id in run_ids]
        runs = {snapshot.id: snapshot.to_dict() for snapshot in self.documents.get_all(references)}
        return {(runs[run_id] or {})["steps"][step_id]["status"] for run_id, step_id in ready.steps}

    def fixtures(self) -> dict[str, str]:
        """Write fixture charts and return the setting for them; used where the provider is not measured."""
        folder = Path(self._fixtures.name)
        candles = parse_candles(CANDLES.read_bytes(), symbol="IBM", timeframe="1d")
        for template in sample_templates():
            symbol = template["chartImgSymbolTemplate"].replace("{symbol}", "IBM").replace(":", "_")
            drawn = render(candles, template["request"], symbol="IBM", timeframe="1d")
            folder.joinpath(f"{symbol}__1d__{template['id']}.png").write_bytes(drawn.png)
        return {"CHARTS_FIXTURES_DIR": str(folder)}

    def close(self) -> None:
        """Close the connections and delete the files."""
        self._fixtures.cleanup()
        self._publisher.stop()
        self._publisher.transport.close()
        self._subscriber.close()
        self.documents.close()

    def _run(self, steps: int, charts: int) -> dict[str, Any]:
        run_id = f"20251215-102530_IBM_{next(self._numbers):06x}"
        document = flow_run(
            run_id, "IBM", {"1d": f"gs://{self._bucket}/ohlcv.json"}, self._templates[:charts]
        )
        step = document["steps"].pop(chart_step_id("1d"))
        for number in range(steps):
            document["steps"][f"charts:1d:step{number:04d}"] = step
        return document
