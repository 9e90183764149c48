"""The floor: a bare subscriber that makes the same calls for a step as the worker, and does nothing else.

Per step: 1 read of the run, 1 commit that claims it and writes a lease, R charts over HTTP in parallel, each
uploaded as it arrives, 1 manifest upload, 1 commit that finalizes the step and deletes the lease, an ack.
It renews no lease, counts no quota, checks no picture and logs one line per step; its bodies are smaller.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import requests
from google.cloud import firestore, storage
from google.cloud.pubsub_v1 import SubscriberClient
from google.cloud.pubsub_v1.subscriber.scheduler import ThreadScheduler
from google.cloud.pubsub_v1.types import FlowControl
from requests.adapters import HTTPAdapter

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from google.cloud.pubsub_v1.subscriber.message import Message

CHARTS_AT_ONCE = 4
PATH = "/v2/tradingview/advanced-chart"
STOP_SIGNALS = {signal.SIGTERM, signal.SIGINT}


class Floor:
    """The callback and its clients.

    Args:
        documents: A Firestore client.
        bucket: The charts bucket.
        ask: Posts a request to the chart provider and returns the picture.
        connections: The number of parallel HTTP calls.
    """

    def __init__(
        self, *, documents: firestore.Client, bucket: Any, ask: Callable[[bytes], bytes], connections: int
    ) -> None:
        self._documents, self._bucket, self._ask = documents, bucket, ask
        self._pool = ThreadPoolExecutor(connections)

    def __call__(self, message: Message) -> None:
        """Execute the step that the message names."""
        named = json.loads(message.data)
        run_id, step_id = named["runId"], named["stepId"]
        run = self._documents.collection("flow_runs").document(run_id)
        lease = run.collection("chart_export_leases").document(step_id)
        snapshot = run.get()
        step = snapshot.get(firestore.Client.field_path("steps", step_id))
        claimed = self._claim(run, lease, step_id, snapshot.update_time)
        names = [request["chartTemplateId"] for request in step["inputs"]["requests"]]
        prefix = f"charts/{run_id}/{step_id}"
        items = list(self._pool.map(lambda name: self._chart(prefix, name), names))
        self._upload(f"{prefix}/manifest.json", json.dumps({"items": items}).encode(), "application/json")
        self._finalize(run, lease, step_id, claimed)
        message.ack()
        sys.stdout.write('{"event": "message_settled"}\n')
        sys.stdout.flush()

    def _claim(self, run: Any, lease: Any, step_id: str, update_time: Any) -> Any:
        now = datetime.now(UTC)
        batch = self._documents.batch()
        status = firestore.Client.field_path("steps", step_id, "status")
        option = self._documents.write_option(last_update_time=update_time)
        batch.update(run, {status: "RUNNING"}, option=option)
        batch.set(lease, {"owner": "floor", "acquiredAt": now, "expiresAt": now + timedelta(seconds=120)})
        return batch.commit(retry=None)[1].update_time

    def _chart(self, prefix: str, name: str) -> dict[str, Any]:
        body = {"symbol": "NYSE:IBM", "interval": "1D", "width": 800, "height": 600}
        png = self._ask(json.dumps(body).encode())
        self._upload(f"{prefix}/{name}.png", png, "image/png")
        return {"chartTemplateId": name, "sizeBytes": len(png)}

    def _upload(self, name: str, content: bytes, content_type: str) -> None:
        blob = self._bucket.blob(name)
        blob.upload_from_string(content, content_type=content_type, if_generation_match=0, retry=None)

    def _finalize(self, run: Any, lease: Any, step_id: str, claimed: Any) -> None:
        path = firestore.Client.field_path("steps", step_id)
        batch = self._documents.batch()
        batch.update(run, {f"{path}.status": "SUCCEEDED", f"{path}.finishedAt": "2026-01-01T00:00:00Z"})
        batch.delete(lease, option=self._documents.write_option(last_update_time=claimed))
        batch.commit(retry=None)


def http_connections(environment: Mapping[str, str]) -> int:
    """Return the number of HTTP calls that a process may make in parallel."""
    return (int(environment["WORKER_CONCURRENCY"]) + 1) * CHARTS_AT_ONCE


def provider_of(environment: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """Return the address of the chart provider and the headers of a request."""
    key = json.loads(environment["CHART_IMG_ACCOUNTS_JSON"])[0]["apiKey"]
    return environment["CHART_IMG_BASE_URL"] + PATH, {"x-api-key": key, "content-type": "application/json"}


def bucket_of(environment: Mapping[str, str]) -> str:
    """Return the name of the bucket."""
    return environment["CHARTS_BUCKET"].removeprefix("gs://")


def _plain_floor(environment: Mapping[str, str]) -> Floor:
    """Build the floor from Google's clients and requests as they are, with large enough connection pools."""
    project, connections = environment["GOOGLE_CLOUD_PROJECT"], http_connections(environment)
    objects, session = storage.Client(project=project), requests.Session()
    url, headers = provider_of(environment)
    for http in (objects._http, session):  # noqa: SLF001 - no setting for it
        http.mount("http://", HTTPAdapter(pool_maxsize=connections))

    def ask(body: bytes) -> bytes:
        answer = session.post(url, data=body, headers=headers, timeout=60)
        answer.raise_for_status()
        return answer.content

    return Floor(
        documents=firestore.Client(project=project),
        bucket=objects.bucket(bucket_of(environment)),
        ask=ask,
        connections=connections,
    )


def serve(build: Callable[[Mapping[str, str]], Floor]) -> None:
    """Pull messages until SIGTERM or SIGINT."""
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    environment = dict(os.environ)
    threads = int(environment["WORKER_CONCURRENCY"])
    with SubscriberClient() as subscriber:
        future = subscriber.subscribe(
            environment["PUBSUB_SUBSCRIPTION"],
            build(environment),
            flow_control=FlowControl(max_messages=threads),
            scheduler=ThreadScheduler(ThreadPoolExecutor(threads)),
            await_callbacks_on_shutdown=True,
        )
        sys.stdout.write('{"event": "daemon_started"}\n')
        sys.stdout.flush()
        signal.sigwait(STOP_SIGNALS)
        future.cancel()
        future.result()


if __name__ == "__main__":
    serve(_plain_floor)
