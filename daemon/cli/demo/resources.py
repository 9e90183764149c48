"""The demo's resources: topic, subscription, bucket, templates, candles and runs.

This is the only module that creates cloud resources. It works on emulators; on Google Cloud only for a caller
who says so.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from google.api_core.exceptions import Conflict, NotFound, PreconditionFailed
from google.cloud import firestore
from google.cloud.pubsub_v1 import PublisherClient, SubscriberClient
from google.cloud.storage import Client as StorageClient

from daemon.cli.demo.scenario import HEALTHY_RUNS, DemoStep, messages_for
from daemon.settings import SettingsError
from daemon.tracing.publishing import PublisherSpans, note_published
from worker_chart_export.backends.errors import backend_errors, client_errors
from worker_chart_export.timing import rfc3339

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from daemon.cli.demo.scenario import DemoRun

CONNECT_SECONDS = 2.0
DEFAULT_PORTS = {"http": 80, "https": 443}
EMULATORS = ("PUBSUB_EMULATOR_HOST", "FIRESTORE_EMULATOR_HOST", "STORAGE_EMULATOR_HOST")
TOPIC = "flow-steps"
SUBSCRIPTION = "chart-export"
QUARANTINE = "chart-export-quarantine"
DEMO_BUCKET = "charts-demo"


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceNames:
    """The names of the resources; topics and subscriptions with their full paths."""

    topic: str
    subscription: str
    quarantine_topic: str
    quarantine_subscription: str
    bucket: str = DEMO_BUCKET
    database: str = "(default)"

    @classmethod
    def of_demo(cls, project: str) -> Self:
        """Return the names that the demo uses."""
        return cls(
            topic=f"projects/{project}/topics/{TOPIC}",
            subscription=f"projects/{project}/subscriptions/{SUBSCRIPTION}",
            quarantine_topic=f"projects/{project}/topics/{QUARANTINE}",
            quarantine_subscription=f"projects/{project}/subscriptions/{QUARANTINE}",
        )


def random_run_id(symbol: str) -> str:
    """Return a run id that no other run has."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}_{symbol}_{secrets.token_hex(3)}"


def fixed_run_id(symbol: str) -> str:
    """Return the same run id each time, so that texts and scripts can name the run."""
    return f"20251215-102530_{symbol}_demo"


class DemoResources:
    """Creates the demo's resources on the emulators that the environment names.

    Args:
        environment: `GOOGLE_CLOUD_PROJECT`, `PUBSUB_EMULATOR_HOST`, `FIRESTORE_EMULATOR_HOST` and
            `STORAGE_EMULATOR_HOST`. They are copied into this process's environment, for Google's clients.
        names: The names of the resources; by default those of the demo.
        on_google_cloud: Use Google Cloud itself for the services without an emulator.

    Attributes:
        created: What `build` has created.
        found: What was there before, and was not changed.
        topic: The topic of the subscription.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        *,
        names: ResourceNames | None = None,
        on_google_cloud: bool = False,
    ) -> None:
        needed = [name for name in EMULATORS if name in environment or not on_google_cloud]
        # A missing variable must raise: the client would connect to Google Cloud itself.
        os.environ.update({name: environment[name] for name in ("GOOGLE_CLOUD_PROJECT", *needed)})
        project = environment["GOOGLE_CLOUD_PROJECT"]
        self.names = names or ResourceNames.of_demo(project)
        self.topic = self.names.topic
        self.created: list[str] = []
        self.found: list[str] = []
        with client_errors("pubsub"):
            self._publisher = PublisherClient()
            self._subscriber = SubscriberClient()
        with client_errors("firestore"):
            self.documents = firestore.Client(project=project, database=self.names.database)
        with client_errors("storage"):
            self.objects = StorageClient(project=project)

    def build(
        self,
        runs: Sequence[DemoRun] = HEALTHY_RUNS,
        *,
        new_run_id: Callable[[str], str] = random_run_id,
        replace_templates: bool = False,
    ) -> list[DemoStep]:
        """Create what is missing of everything that these runs need, and return their chart steps.

        Args:
            runs: The runs.
            new_run_id: Symbol -> run id. A run that exists is left as it is.
            replace_templates: Overwrite templates that exist.

        Raises:
            BackendUnavailable: A backend is unavailable.
            BackendRefused: A backend refuses.
        """
        self._make_resources()
        with backend_errors("firestore"):
            for template in demo_templates():
                document = self.documents.document(f"chart_templates/{template['id']}")
                if replace_templates:
                    document.set(template)
                else:
                    self._create(f"template {template['id']}", partial(document.create, template))
        return [step for run in runs for step in self._make_run(run, new_run_id(run.symbol))]

    def _create(self, what: str, create: Callable[[], object]) -> None:
        try:
            create()
        except (Conflict, PreconditionFailed):  # AlreadyExists is a Conflict
            self.found.append(what)
        else:
            self.created.append(what)

    def close(self) -> None:
        """Close the connections."""
        self._publisher.stop()
        self._publisher.transport.close()
        self._subscriber.close()
        self.documents.close()
        self.objects.close()

    def publish(self, steps: Sequence[DemoStep]) -> int:
        """Publish a message for each run of these steps; return the number of messages."""
        messages = messages_for(steps)
        with PublisherSpans(self.topic) as spans:
            for message in messages:
                with spans.message({}) as trace:
                    attributes = {**message.attributes, **trace}
                    published = self._publisher.publish(self.topic, message.data, **attributes)
                    note_published(published.result(timeout=20))
        return len(messages)

    def download(self, uri: str) -> bytes:
        """Download an object."""
        bucket, _, name = uri.removeprefix("gs://").partition("/")
        content: bytes = self.objects.bucket(bucket).blob(name).download_as_bytes()
        return content

    def _make_resources(self) -> None:
        """Create topics, subscriptions and bucket, unless they exist."""
        names = self.names
        with backend_errors("pubsub"):
            with suppress(NotFound):  # a subscription that exists may have another topic
                self.topic = self._subscriber.get_subscription(subscription=names.subscription).topic
            for topic in (self.topic, names.quarantine_topic):
                self._create(topic, partial(self._publisher.create_topic, name=topic))
            retry_policy = {"minimum_backoff": {"seconds": 10}, "maximum_backoff": {"seconds": 600}}
            for path, topic, more in (
                (names.subscription, self.topic, {"retry_policy": retry_policy}),
                (names.quarantine_subscription, names.quarantine_topic, {}),
            ):
                request = {"name": path, "topic": topic, "ack_deadline_seconds": 60, **more}
                self._create(path, partial(self._subscriber.create_subscription, request))
        with backend_errors("storage"):
            self._create(f"bucket {names.bucket}", partial(self.objects.create_bucket, names.bucket))

    def _make_run(self, run: DemoRun, run_id: str) -> list[DemoStep]:
        uris = {timeframe: self._upload_candles(run.symbol, timeframe) for timeframe in run.timeframes}
        needed = [template["id"] for template in demo_templates()]
        requested = [*needed, *run.more_templates]
        document = flow_run(run_id, run.symbol, uris, requested, min_images=len(needed))
        with backend_errors("firestore"):
            create = self.documents.document(f"flow_runs/{run_id}").create
            self._create(f"run {run_id}", partial(create, document))
        return [
            DemoStep(
                run_id=run_id,
                step_id=chart_step_id(timeframe),
                symbol=run.symbol,
                timeframe=timeframe,
                requested=len(requested),
                needed=len(needed),
                expected=run.expected,
                lesson=run.lesson,
            )
            for timeframe in run.timeframes
        ]

    def _upload_candles(self, symbol: str, timeframe: str) -> str:
        """Upload the candles, and return their URI. For an unknown timeframe nothing is uploaded."""
        name = f"ohlcv/{symbol}_{timeframe}.json"
        sample = files("worker_chart_export").joinpath(f"data/samples/{name}")
        if sample.is_file():
            blob = self.objects.bucket(self.names.bucket).blob(name)
            upload = partial(blob.upload_from_string, content_type="application/json", if_generation_match=0)
            with backend_errors("storage"):
                self._create(f"object {name}", partial(upload, sample.read_bytes()))
        return f"gs://{self.names.bucket}/{name}"


def unreachable_emulators(addresses: Mapping[str, str]) -> list[str]:
    """Return a sentence for each emulator that does not accept connections.

    Args:
        addresses: Variable -> the address in it.

    Raises:
        SettingsError: A variable does not hold an address.
    """
    sentences = []
    for name, value in addresses.items():
        host, port = _host_and_port(name, value)
        try:
            with socket.create_connection((host, port), timeout=CONNECT_SECONDS):
                pass
        except (OSError, UnicodeError):  # UnicodeError: not a valid host name
            sentences.append(f"{name}: nothing answers at {host}:{port}")
    return sentences


def _host_and_port(name: str, value: str) -> tuple[str, int]:
    parts = urlsplit(value if "://" in value else f"//{value}")
    try:
        host, port = parts.hostname, parts.port or DEFAULT_PORTS.get(parts.scheme)
    except ValueError:  # not a port number
        host, port = None, None
    if not host or not port:
        raise SettingsError([f"{name}: expected host:port, got {value!r:.100}"])
    return host, port


def demo_templates() -> list[dict[str, Any]]:
    """Return the reference templates, and more that show what else can be drawn."""
    return [*sample_templates(), *sample_templates("demo_templates")]


def sample_templates(name: str = "templates") -> list[dict[str, Any]]:
    """Return the templates of a folder of the samples, sorted by id; by default the five reference ones."""
    folder = files("worker_chart_export").joinpath(f"data/samples/{name}")
    documents = [
        json.loads(entry.read_text("utf-8")) for entry in folder.iterdir() if entry.name.endswith(".json")
    ]
    return sorted(documents, key=lambda document: str(document["id"]))


def chart_step_id(timeframe: str) -> str:
    """Return the id of the demo's chart step for a timeframe."""
    return f"charts:{timeframe}:reference_v1"


def flow_run(
    run_id: str,
    symbol: str,
    candles: Mapping[str, str],
    templates: list[str],
    *,
    min_images: int | None = None,
) -> dict[str, Any]:
    """Return a flow run as an orchestrator writes it: the candles exist, and the chart steps are READY.

    Args:
        run_id: The run.
        symbol: The symbol of the charts.
        candles: Timeframe -> URI of its candles; the run gets a chart step for each.
        templates: The ids of the templates that each chart step requests.
        min_images: How many charts each step needs; None = all.
    """
    now = rfc3339(datetime.now(UTC))
    steps: dict[str, Any] = {}
    for timeframe, uri in candles.items():
        steps[f"ohlcv_export:{timeframe}"] = _ohlcv_step(symbol, timeframe, uri, now)
        steps[chart_step_id(timeframe)] = _chart_step(timeframe, templates, min_images, now)
    return {
        "schemaVersion": 1,
        "runId": run_id,
        "flowKey": "demo_report_v1",
        "status": "RUNNING",
        "createdAt": now,
        "trigger": {"type": "USER", "source": "demo"},
        "scope": {"symbol": symbol},
        "steps": steps,
    }


def _ohlcv_step(symbol: str, timeframe: str, uri: str, now: str) -> dict[str, Any]:
    return {
        "stepType": "OHLCV_EXPORT",
        "status": "SUCCEEDED",
        "createdAt": now,
        "finishedAt": now,
        "timeframe": timeframe,
        "dependsOn": [],
        "inputs": {"source": "bigquery", "symbol": symbol, "timeframe": timeframe, "exportMode": "all"},
        "outputs": {"gcs_uri": uri},
    }


def _chart_step(timeframe: str, templates: list[str], min_images: int | None, now: str) -> dict[str, Any]:
    return {
        "stepType": "CHART_EXPORT",
        "status": "READY",
        "createdAt": now,
        "timeframe": timeframe,
        "dependsOn": [f"ohlcv_export:{timeframe}"],
        "inputs": {
            "minImages": len(templates) if min_images is None else min_images,
            "requests": [{"chartTemplateId": template_id} for template_id in templates],
        },
        "outputs": {},
    }
