"""What the demo plays on: topic, subscription, bucket, templates, candles and runs.

The one place of the whole project that creates cloud resources; it works on emulators only.
"""

from __future__ import annotations

import json
import os
import secrets
from contextlib import suppress
from datetime import UTC, datetime
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from google.api_core.exceptions import AlreadyExists, Conflict
from google.cloud import firestore
from google.cloud.pubsub_v1 import PublisherClient, SubscriberClient
from google.cloud.storage import Client as StorageClient

from daemon.cli.demo.scenario import SOUND_SCENES, DemoStep, messages_of
from daemon.tracing.publishing import PublisherSpans, note_published
from worker_chart_export.timing import rfc3339

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from daemon.cli.demo.scenario import Scene

EMULATORS = ("PUBSUB_EMULATOR_HOST", "FIRESTORE_EMULATOR_HOST", "STORAGE_EMULATOR_HOST")
TOPIC = "flow-steps"
SUBSCRIPTION = "chart-export"
QUARANTINE = "chart-export-quarantine"
DEMO_BUCKET = "charts-demo"


class DemoResources:
    """Builds the demo's resources on the emulators that the environment names.

    Args:
        environment: `GOOGLE_CLOUD_PROJECT`, `PUBSUB_EMULATOR_HOST`, `FIRESTORE_EMULATOR_HOST` and
            `STORAGE_EMULATOR_HOST`; put into this process's environment, where Google's clients look.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        # All must be there: a client without its emulator would go to Google Cloud itself.
        os.environ.update({name: environment[name] for name in ("GOOGLE_CLOUD_PROJECT", *EMULATORS)})
        self.project = environment["GOOGLE_CLOUD_PROJECT"]
        self._publisher = PublisherClient()
        self._subscriber = SubscriberClient()
        self.documents = firestore.Client(project=self.project)
        self.objects = StorageClient(project=self.project)
        self.topic = self._topic(TOPIC)

    def build(self, scenes: Sequence[Scene] = SOUND_SCENES) -> list[DemoStep]:
        """Make everything these scenes need and return their chart steps."""
        self._make_resources()
        self._load_templates()
        return [step for scene in scenes for step in self._make_run(scene)]

    def _topic(self, name: str) -> str:
        return f"projects/{self.project}/topics/{name}"

    def close(self) -> None:
        """Close the connections."""
        self._publisher.stop()
        self._publisher.transport.close()
        self._subscriber.close()
        self.documents.close()
        self.objects.close()

    def publish(self, steps: Sequence[DemoStep]) -> int:
        """Publish a message for each run of the steps, one after another; how many."""
        messages = messages_of(steps)
        with PublisherSpans(self.topic) as spans:
            for message in messages:
                with spans.message({}) as trace:
                    attributes = {**message.attributes, **trace}
                    taken = self._publisher.publish(self.topic, message.data, **attributes)
                    note_published(taken.result(timeout=20))
        return len(messages)

    def step_document(self, step: DemoStep) -> dict[str, Any]:
        """The step as it stands in its run."""
        run = self.documents.document(f"flow_runs/{step.run_id}").get().to_dict() or {}
        document: dict[str, Any] = run["steps"][step.step_id]
        return document

    def _make_resources(self) -> None:
        """What an earlier demo on the same emulators left there is used again."""
        for topic in (self.topic, self._topic(QUARANTINE)):
            with suppress(AlreadyExists):
                self._publisher.create_topic(name=topic)
        retry_policy = {"minimum_backoff": {"seconds": 10}, "maximum_backoff": {"seconds": 600}}
        for name, topic, more in (
            (SUBSCRIPTION, self.topic, {"retry_policy": retry_policy}),
            (QUARANTINE, self._topic(QUARANTINE), {}),
        ):
            with suppress(AlreadyExists):
                path = f"projects/{self.project}/subscriptions/{name}"
                self._subscriber.create_subscription(
                    {"name": path, "topic": topic, "ack_deadline_seconds": 60, **more}
                )
        with suppress(Conflict):
            self.objects.create_bucket(DEMO_BUCKET)

    def _load_templates(self) -> None:
        for template in sample_templates():
            self.documents.document(f"chart_templates/{template['id']}").set(template)

    def _make_run(self, scene: Scene) -> list[DemoStep]:
        run_id = f"{datetime.now(UTC):%Y%m%d-%H%M%S}_{scene.symbol}_{secrets.token_hex(3)}"
        uris = {timeframe: self._upload_candles(scene.symbol, timeframe) for timeframe in scene.timeframes}
        needed = [template["id"] for template in sample_templates()]
        asked = [*needed, *scene.more_templates]
        run = flow_run(run_id, scene.symbol, uris, asked, min_images=len(needed))
        self.documents.document(f"flow_runs/{run_id}").set(run)
        return [
            DemoStep(
                run_id=run_id,
                step_id=chart_step_id(timeframe),
                symbol=scene.symbol,
                timeframe=timeframe,
                requested=len(asked),
                needed=len(needed),
                expected=scene.expected,
                lesson=scene.lesson,
            )
            for timeframe in scene.timeframes
        ]

    def _upload_candles(self, symbol: str, timeframe: str) -> str:
        """Where the candles are; those of a timeframe that does not exist are not there either."""
        name = f"ohlcv/{symbol}_{timeframe}.json"
        sample = files("worker_chart_export").joinpath(f"data/samples/{name}")
        if sample.is_file():
            blob = self.objects.bucket(DEMO_BUCKET).blob(name)
            blob.upload_from_string(sample.read_bytes(), content_type="application/json")
        return f"gs://{DEMO_BUCKET}/{name}"


def sample_templates() -> list[dict[str, Any]]:
    """The five reference templates, by id."""
    folder = files("worker_chart_export").joinpath("data/samples/templates")
    documents = [
        json.loads(entry.read_text("utf-8")) for entry in folder.iterdir() if entry.name.endswith(".json")
    ]
    return sorted(documents, key=lambda document: str(document["id"]))


def chart_step_id(timeframe: str) -> str:
    """The id of the demo's chart step of a timeframe."""
    return f"charts:{timeframe}:reference_v1"


def flow_run(
    run_id: str,
    symbol: str,
    candles: Mapping[str, str],
    templates: list[str],
    *,
    min_images: int | None = None,
) -> dict[str, Any]:
    """A flow run as an orchestrator would write it: the candles are there, the charts are READY.

    Args:
        run_id: The run.
        symbol: Whose charts.
        candles: Timeframe -> URI of its candles; there is a chart step for each.
        templates: What each chart step asks for.
        min_images: How many of them it needs; None = all.
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
