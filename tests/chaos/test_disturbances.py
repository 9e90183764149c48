"""The test harness: the disturbances of a storm have their effect, and it ends."""

from __future__ import annotations

import math
import random
import resource

import pytest
from google.api_core.exceptions import GoogleAPICallError, NotFound

from tests.chaos.disturbances import processes, services
from tests.chaos.disturbances.stage import Stage
from tests.chaos.world import world_on


@pytest.fixture
def stage(cloud):
    """Return the stage of a storm in a world whose subscription can seek back."""
    with world_on(cloud) as world:
        made = Stage(world=world, random=random.Random(1))  # noqa: S311 - repeatable on purpose
        services.keep_acked_messages(made)
        yield made


def _found(stage):
    """Call each service that may refuse; return the errors by service."""
    deployment, errors = stage.world.deployment, {}
    name = {"subscription": deployment.subscription}
    calls = {
        "pubsub": lambda: deployment.subscriber.get_subscription(request=name, retry=None),
        "firestore": lambda: deployment.documents.document("a/b").get(retry=None),
        "storage": lambda: deployment.objects.get_bucket(deployment.bucket, retry=None),
    }
    for service, call in calls.items():
        try:
            call()
        except GoogleAPICallError as error:
            errors[service] = error.code
    return errors


def test_a_service_refuses_everything_for_a_while(stage):
    """One service refuses its calls, with both kinds of refusal, and none does afterwards."""
    seen = set()
    while len(seen) < len(services.REFUSING) * len(services.REFUSALS):
        services.refuse_everything(stage)
        ((service, code),) = _found(stage).items()
        seen.add((service, int(code)))
        stage.do_what_is_due(at=math.inf)
        assert _found(stage) == {}
    assert {code for _, code in seen} == {403, 429}
    assert stage.refuses


def test_a_subscription_is_deleted_and_made_anew(stage):
    """It is missing; then the messages of what has not ended are in it, and after a seek again."""
    world = stage.world
    world.put_run()
    services.delete_subscription(stage)
    assert _found(stage) == {"pubsub": NotFound.code}
    stage.do_what_is_due(at=math.inf)
    assert world.unacked() == 1
    answer = world.deployment.subscriber.pull(subscription=world.deployment.subscription, max_messages=1)
    ack_ids = [received.ack_id for received in answer.received_messages]
    world.deployment.subscriber.acknowledge(subscription=world.deployment.subscription, ack_ids=ack_ids)
    assert world.unacked() == 0
    services.seek_back(stage)
    assert world.unacked() == 2


def test_resources_are_used_up_for_a_while(stage):
    """A daemon gets limits, and its own ones back."""
    worker = stage.world.worker().started()

    def limits():
        kinds = (resource.RLIMIT_NOFILE, resource.RLIMIT_AS)
        return [resource.prlimit(worker.process.pid, kind) for kind in kinds]

    before = limits()
    processes.use_up_descriptors(stage)
    processes.use_up_memory(stage)
    assert all(now < then or then == -1 for (now, _), (then, _) in zip(limits(), before, strict=True))
    assert limits() != before
    stage.do_what_is_due(at=math.inf)
    assert limits() == before
