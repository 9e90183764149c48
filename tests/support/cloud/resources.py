"""One test's own topic, subscription, quarantine, bucket, templates and runs."""

from __future__ import annotations

import json
import secrets
import string
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx
from google.cloud import firestore, storage
from google.cloud.pubsub_v1 import PublisherClient, SubscriberClient

from daemon.cli.demo.resources import chart_step_id, flow_run, sample_templates
from localcloud.firestore.limits import MAX_DOCUMENT_BYTES, document_size
from tests.support.cloud.clouds import clients_find
from tests.support.process.daemons import DaemonUnderTest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from localcloud import LocalCloud

#: The characters that the schema of the manifest allows at the end of a run id.
SUFFIX = string.ascii_lowercase + string.digits
#: A limit for tests that are not about quota.
UNLIMITED = {"dailyLimit": 10**6, "ratePerSecond": 1000, "burst": 1000}
SECRET_KEY = "key-that-must-never-be-seen"  # noqa: S105 - the stand-in's


class Deployment:
    """One test's resources with unique names, and Google's own clients.

    Args:
        environment: The addresses of Pub/Sub, Firestore and Storage.
        cloud: The embedded cloud with the Chart-IMG stand-in and the call counters.
    """

    def __init__(self, environment: Mapping[str, str], cloud: LocalCloud) -> None:
        name = f"t-{secrets.token_hex(4)}"
        self.cloud = cloud
        self.environment = environment
        self.project = environment["GOOGLE_CLOUD_PROJECT"]
        self.bucket = f"bucket-{name}"
        self.publisher = PublisherClient()
        self.subscriber = SubscriberClient()
        self.documents = firestore.Client(project=self.project)
        self.objects = storage.Client(project=self.project)
        self.topic = f"projects/{self.project}/topics/{name}"
        self.subscription = f"projects/{self.project}/subscriptions/{name}"
        self.quarantine_topic = f"projects/{self.project}/topics/{name}-bad"
        self.quarantine = f"projects/{self.project}/subscriptions/{name}-bad"
        self._build()

    def _build(self) -> None:
        self.publisher.create_topic(name=self.topic)
        self.publisher.create_topic(name=self.quarantine_topic)
        self.subscriber.create_subscription(name=self.subscription, topic=self.topic, ack_deadline_seconds=10)
        self.subscriber.create_subscription(
            name=self.quarantine, topic=self.quarantine_topic, ack_deadline_seconds=60
        )
        self.objects.create_bucket(self.bucket)
        for template in sample_templates():
            self.documents.document(f"chart_templates/{template['id']}").set(template)

    def close(self) -> None:
        """Close the clients."""
        self.publisher.stop()
        self.publisher.transport.close()
        self.subscriber.close()
        self.documents.close()
        self.objects.close()

    def settings(self, **changed: str | None) -> dict[str, str]:
        """Return the daemon's environment for this deployment; None removes a setting."""
        settings: dict[str, str | None] = {
            **self.environment,
            "CHART_IMG_BASE_URL": self.cloud.chart_img.url,
            "PUBSUB_SUBSCRIPTION": self.subscription,
            "QUARANTINE_TOPIC": self.quarantine_topic,
            "CHARTS_BUCKET": f"gs://{self.bucket}",
            "CHARTS_API_MODE": "real",
            "CHART_IMG_ACCOUNTS_JSON": json.dumps(
                [
                    {
                        "id": "first",
                        "apiKey": SECRET_KEY,
                        "dailyLimit": 10**6,
                        "ratePerSecond": 1000,
                        "burst": 1000,
                    }
                ]
            ),
            "HEALTH_PORT": "0",
            "ACK_EXTENSION_SECONDS": "10",
            **changed,
        }
        return {name: value for name, value in settings.items() if value is not None}

    def daemon(
        self, *, module: str = "daemon", fresh: bool = False, **changed: str | None
    ) -> DaemonUnderTest:
        """Start a daemon process on this deployment; see `DaemonUnderTest` for `module` and `fresh`."""
        return DaemonUnderTest(self.settings(**changed), module=module, fresh=fresh)

    def run_id(self, symbol: str = "IBM") -> str:
        """Return a new run id. Among thousands none comes twice."""
        suffix = "".join(secrets.choice(SUFFIX) for _ in range(6))
        return f"20251215-102530_{symbol}_{suffix}"

    def put_run(
        self, *, steps: int = 1, charts: int = 2, symbol: str = "IBM", **step_fields: Any
    ) -> tuple[str, list[str]]:
        """Store a run with `steps` READY chart steps of `charts` charts; return its id and the steps' ids."""
        run_id = self.run_id(symbol)
        templates = [template["id"] for template in sample_templates()][:charts]
        document = flow_run(run_id, symbol, {"1d": f"gs://{self.bucket}/ohlcv.json"}, templates)
        chart_step = document["steps"].pop(chart_step_id("1d"))
        step_ids = [f"charts:1d:step{number:03d}" for number in range(steps)]
        for step_id in step_ids:
            document["steps"][step_id] = {**chart_step, **step_fields}
        self.documents.document(f"flow_runs/{run_id}").set(document)
        return run_id, step_ids

    def fill_run(self, run_id: str, *, free_bytes: int) -> None:
        """Make a run so large that `free_bytes` are left of Firestore's limit for a document."""
        reference = self.documents.document(f"flow_runs/{run_id}")
        filler = 1_000_000
        for _ in range(2):
            reference.update({"progress": {"filler": "x" * filler}})
            filler += MAX_DOCUMENT_BYTES - free_bytes - self._stored_size(reference)
        assert self._stored_size(reference) == MAX_DOCUMENT_BYTES - free_bytes

    def _stored_size(self, reference: firestore.DocumentReference) -> int:
        """Return the size of a document as the embedded Firestore counts it."""
        (answer,) = self.documents._firestore_api.batch_get_documents(
            request={"database": self.documents._database_string, "documents": [reference._document_path]},
            metadata=self.documents._rpc_metadata,
        )
        return document_size(type(answer.found).pb(answer.found))

    def run(self, run_id: str) -> dict[str, Any]:
        """Return the current run."""
        document = self.documents.document(f"flow_runs/{run_id}").get().to_dict()
        assert document is not None
        return document

    def step(self, run_id: str, step_id: str) -> dict[str, Any]:
        """Return the current step."""
        step: dict[str, Any] = self.run(run_id)["steps"][step_id]
        return step

    def publish(self, data: bytes = b"", **attributes: str) -> None:
        """Publish a message and wait until it is stored."""
        self.publisher.publish(self.topic, data, **attributes).result(timeout=20)

    def publish_step(self, run_id: str, step_id: str) -> None:
        """Publish the plain message that names a step."""
        self.publish(json.dumps({"runId": run_id, "stepId": step_id}).encode())

    def quarantined(self, count: int) -> list[Any]:
        """Receive and ack `count` messages of the quarantine."""
        found: list[Any] = []
        while len(found) < count:
            response = self.subscriber.pull(subscription=self.quarantine, max_messages=100, timeout=20)
            found += [received.message for received in response.received_messages]
            self.subscriber.acknowledge(
                subscription=self.quarantine,
                ack_ids=[received.ack_id for received in response.received_messages],
            )
        return found

    def object_names(self, prefix: str = "charts/") -> list[str]:
        """Return the names of the bucket's objects."""
        return [blob.name for blob in self.objects.list_blobs(self.bucket, prefix=prefix)]

    def manifest(self, run_id: str, step_id: str) -> dict[str, Any]:
        """Return a step's manifest."""
        blob = self.objects.bucket(self.bucket).blob(f"charts/{run_id}/{step_id}/manifest.json")
        manifest: dict[str, Any] = json.loads(blob.download_as_bytes())
        return manifest


@contextmanager
def deployment_on(environment: Mapping[str, str], cloud: LocalCloud) -> Iterator[Deployment]:
    """Return a deployment on the services that `environment` names."""
    with clients_find(environment):
        deployment = Deployment(environment, cloud)
        try:
            yield deployment
        finally:
            deployment.close()


def new_project() -> str:
    """Return a new project id, because all tests share the official emulators."""
    return f"demo-{secrets.token_hex(4)}"


def health(daemon: DaemonUnderTest, path: str) -> tuple[int, dict[str, str]]:
    """Return status and body of the daemon's `/livez` or `/readyz`, without its parts."""
    response = asked(daemon, path)
    body = response.json()
    del body["parts"]
    return response.status_code, body


def asked(daemon: DaemonUnderTest, path: str, **headers: str) -> httpx.Response:
    """Return a response of the daemon's health server."""
    port = daemon.named("daemon_started")[-1]["healthPort"]
    return httpx.get(f"http://127.0.0.1:{port}/{path}", headers=headers)


def ready(daemon: DaemonUnderTest) -> tuple[int, dict[str, str]]:
    """Return status and body of the daemon's `/readyz`."""
    return health(daemon, "readyz")
