"""Disturbances of whole services: stopped, refusing, exhausted; and of the subscription."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any

from google.pubsub_v1 import types

from localcloud.faults import Fault

if TYPE_CHECKING:
    from localcloud.service import Service
    from tests.chaos.disturbances.stage import Stage

#: How long charts in flight can be lost after a service was away.
AFTERWARDS_SECONDS = 60.0
REFUSAL_SECONDS = 25.0
#: How an error is called over gRPC and over HTTP.
REFUSALS = {"permissions gone": ("PERMISSION_DENIED", 403), "exhausted": ("RESOURCE_EXHAUSTED", 429)}
REFUSING = ("firestore", "pubsub", "storage")


def reset_streams(stage: Stage) -> None:
    """End all streams of Pub/Sub."""
    stage.world.cloud.pubsub.reset_streams()
    stage.done["stream resets"] += 1


def outage(stage: Stage) -> None:
    """Stop a service for a few seconds."""
    name = stage.random.choice(sorted(stage.world.cloud.services))
    service = stage.world.cloud.services[name]
    if not service.running:
        return
    service.stop()
    stage.world.outage(name, seconds=AFTERWARDS_SECONDS)
    stage.later(stage.random.uniform(0.5, 5), partial(_start, stage, service))
    stage.done["outages"] += 1


def _start(stage: Stage, service: Service) -> None:
    """Start a service again as soon as its port is free: a client that knocked may have got it."""
    try:
        service.start()
    except (OSError, RuntimeError):
        stage.later(0.5, partial(_start, stage, service))


def refuse_everything(stage: Stage) -> None:
    """Let a service refuse every call, for 25 s or less."""
    service, kind = stage.random.choice(REFUSING), stage.random.choice(sorted(REFUSALS))
    over_grpc, over_http = REFUSALS[kind]
    seconds = stage.random.choice([REFUSAL_SECONDS, stage.random.uniform(1, REFUSAL_SECONDS)])
    if service == "pubsub":
        stage.may_refuse(seconds + AFTERWARDS_SECONDS)
    _refuse(stage, service, Fault(error=over_http if service == "storage" else over_grpc), seconds)
    stage.done[f"{service}: {kind}"] += 1


def refuse_objects(stage: Stage) -> None:
    """Let the bucket take no objects."""
    seconds = stage.random.uniform(1, REFUSAL_SECONDS)
    _refuse(stage, "storage", Fault(method="objects.insert", error=403), seconds)
    stage.done["bucket refuses"] += 1


def _refuse(stage: Stage, service: str, fault: Fault, seconds: float) -> None:
    faults = stage.world.cloud.services[service].faults
    fault_id = faults.add(fault)
    stage.world.outage(service, seconds=seconds + AFTERWARDS_SECONDS)
    stage.later(seconds, lambda: faults.remove(fault_id))


def delete_subscription(stage: Stage) -> None:
    """Delete the subscription, make it anew, and publish what has not ended: its messages are lost."""
    if not _exists(stage):
        return
    name = stage.world.deployment.subscription
    seconds = stage.random.uniform(0.5, 5)
    stage.may_refuse(seconds + AFTERWARDS_SECONDS)
    stage.world.outage("subscription", seconds=seconds + AFTERWARDS_SECONDS)
    _call(stage, "DeleteSubscription", types.DeleteSubscriptionRequest(subscription=name))

    def make() -> None:
        make_subscription(stage)
        _publish_again(stage)

    stage.later(seconds, make)
    stage.done["subscriptions deleted"] += 1


def _publish_again(stage: Stage) -> None:
    for expected in stage.world.unfinished():
        stage.send(expected.run_id, [expected.step_id])


def make_subscription(stage: Stage) -> None:
    """Make the subscription. It keeps acked messages, so that it can seek back."""
    deployment = stage.world.deployment
    subscription = types.Subscription(
        name=deployment.subscription,
        topic=deployment.topic,
        ack_deadline_seconds=10,
        retain_acked_messages=True,
        message_retention_duration={"seconds": 600},
    )
    _call(stage, "CreateSubscription", subscription)


def seek_back(stage: Stage) -> None:
    """Deliver the messages of the last minute again, acked or not. Older ones count as acked then."""
    if not _exists(stage):
        return
    back = time.time() - stage.random.uniform(5, 60)
    request = types.SeekRequest(subscription=stage.world.deployment.subscription, time={"seconds": int(back)})
    _call(stage, "Seek", request)
    _publish_again(stage)
    stage.done["seeks back"] += 1


def keep_acked_messages(stage: Stage) -> None:
    """Replace the subscription of a new world by one that can seek back."""
    name = stage.world.deployment.subscription
    _call(stage, "DeleteSubscription", types.DeleteSubscriptionRequest(subscription=name))
    make_subscription(stage)


def _exists(stage: Stage) -> bool:
    return stage.world.deployment.subscription in stage.world.cloud.pubsub._topics._subscriptions


def _call(stage: Stage, method: str, request: Any) -> Any:
    """Call Pub/Sub by a way without faults."""
    (handle,) = (
        methods[method].handle for methods in stage.world.cloud.pubsub.methods().values() if method in methods
    )
    return handle(type(request).pb(request))
