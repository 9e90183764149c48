"""The main claims, each measured from outside."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from google.cloud import firestore
from google.pubsub_v1.types import DeadLetterPolicy, Subscription

from localcloud import LocalCloud
from localcloud.faults import Fault
from tests.chaos.gathering import finish
from tests.chaos.history import LEASES, RUNS
from tests.chaos.world import world_on
from tests.support.cloud.clouds import clients_find, official_emulators
from worker_chart_export.errors import BackendUnavailable
from worker_chart_export.orchestration import claim_step_transaction, finalize_step

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tests.chaos.end_state import Disturbance, EndState
    from tests.chaos.fleet import Worker
    from tests.chaos.world import World

PROJECT = "chaos"
MAX_SECONDS_ONE_BY_ONE = 60.0
ENDED = {
    "status": "SUCCEEDED",
    "finished_at": "2025-12-15T10:26:15Z",
    "outputs_manifest_gcs_uri": "gs://b/m.json",
}


@contextmanager
def _world(environment: Mapping[str, str] | None = None, **settings: str) -> Iterator[World]:
    with LocalCloud.start(project=PROJECT) as cloud, world_on(cloud, environment, **settings) as world:
        yield world


def kills() -> str:
    """Run 120 steps of 2 charts on 2 daemons and kill the holder of the most leases three times."""
    with _world(MAX_ATTEMPTS="5") as world:
        world.cloud.chart_img.faults.add(Fault(delay_seconds=0.5))
        for _ in range(2):
            world.worker().started()
        run_id, step_ids = world.put_run(steps=120, charts=2)
        started = time.monotonic()
        world.publish(run_id, step_ids)
        for done in (20, 50, 80):
            _kill_a_holder(world, done)
        world.wait_for(lambda: not world.unfinished(), "120 steps", 150)
        seconds = time.monotonic() - started
        state = finish(world)
        in_flight = [_in_flight(state, disturbance) for disturbance in state.disturbances]
        assert len(state.paid) <= 240 + sum(in_flight), (len(state.paid), in_flight)
        return (
            f"120 SUCCEEDED, 0 stuck, in {seconds:.1f} s; 3 kills, charts in flight at them {in_flight}; "
            f"{len(state.paid)} charts paid for, at most {240 + sum(in_flight)}; no PNG outside a manifest"
        )


def _kill_a_holder(world: World, done: int) -> None:
    """Kill a daemon with SIGKILL once this many steps are done, and start another."""
    world.wait_for(lambda: len(world.expected) - len(world.unfinished()) >= done, f"{done} steps", 90)
    holder: list[Worker] = []

    def find() -> bool:
        owners = [str(lease["owner"]).split(":")[-2] for lease in world.documents.leases().values()]
        alive = [worker for worker in world.workers if worker.alive]
        held = {worker: owners.count(str(worker.process.pid)) for worker in alive}
        most = max(held, key=lambda worker: held[worker])
        holder[:] = [most] if held[most] else []
        return bool(holder)

    world.wait_for(find, "a holder of leases", 20)
    holder[0].kill_now()
    world.worker()


def _in_flight(state: EndState, kill: Disturbance) -> int:
    """Return the charts that a daemon had requested but not stored when it was killed."""
    asked = {call.template_id for call in state.paid if call.daemon == kill.daemon and call.at <= kill.until}
    stored = [name for name, file in state.files.items() if file.created <= kill.until]
    return sum(not any(name.endswith(f"_{template_id}.png") for name in stored) for template_id in asked)


def contention() -> str:
    """Compare grouped with single commits: one run of 200 steps on the official Firestore."""
    threads = {"WORKER_CONCURRENCY": "16", "LEASE_SECONDS": "30"}
    with official_emulators() as official:
        firestore_only = {"FIRESTORE_EMULATOR_HOST": official.firestore}
        with _world(firestore_only, **threads) as world:
            grouped = _work_200(world)
            single = _one_by_one(world)
    with _world(**threads) as world:
        _work_200(world)
        commits = _commits_on_runs(world)
    assert grouped * 4 <= single, (grouped, single)
    assert commits <= 2 * 200 / 5, commits
    return (
        f"200 steps of one run, all SUCCEEDED, 2 daemons x 16 threads: {grouped:.1f} s "
        f"({200 / grouped:.0f} steps/s); one by one, 32 threads: {single:.1f} s "
        f"({200 / single:.1f} steps/s); "
        f"{single / grouped:.1f} times faster; {commits} commits on the run document instead of 400"
    )


def _work_200(world: World) -> float:
    """Return the seconds from the first message to the last finalize."""
    for _ in range(2):
        world.worker().started()
    run_id, step_ids = world.put_run(steps=200, charts=1)
    started = time.monotonic()
    world.publish(run_id, step_ids)
    world.wait_for(lambda: not world.unfinished(), "200 steps", 120)
    seconds = time.monotonic() - started
    finish(world)
    return seconds


def _one_by_one(world: World) -> float:
    """Return the seconds for the same claims and finalizes one by one, extrapolated from one minute."""
    run_id, step_ids = world.put_run(steps=200, charts=1)
    with clients_find(world.deployment.environment):
        client = firestore.Client(project=PROJECT)
    started = time.monotonic()
    until = started + MAX_SECONDS_ONE_BY_ONE

    def work(step_id: str) -> bool:
        step = {"client": client, "run_id": run_id, "step_id": step_id}
        end = partial(finalize_step, **step, **ENDED)
        return _insist(partial(claim_step_transaction, **step), until) and _insist(end, until)

    with ThreadPoolExecutor(32) as pool:
        done = sum(pool.map(work, step_ids))
    seconds = time.monotonic() - started
    client.close()
    return seconds * len(step_ids) / max(done, 1)


def _insist(call: Callable[[], Any], until: float) -> bool:
    """Repeat a call that lost a race until it succeeds; return False on a timeout."""
    while time.monotonic() < until:
        with suppress(BackendUnavailable):
            result = call()
            assert getattr(result, "claimed", False) or getattr(result, "updated", False), result
            return True
    return False


def _commits_on_runs(world: World) -> int:
    """Return the daemons' commits that named a run document, changed or not."""

    def names_a_run(committed: Any) -> bool:
        names = [document.name for document in committed.documents if document is not None]
        return any(RUNS in name and LEASES not in name for name in names)

    own = world.documents.own_commits
    return sum(names_a_run(c) and c.instant not in own for c in world.cloud.firestore.commits)


def outage() -> str:
    """Stop Firestore for 30 s under load."""
    with _world(WORKER_CONCURRENCY="8") as world:
        _add_dead_letters(world)
        world.cloud.chart_img.faults.add(Fault(delay_seconds=0.5))
        workers = [world.worker().started() for _ in range(2)]
        run_id, step_ids = world.put_run(steps=100, charts=1)
        world.publish(run_id, step_ids)
        world.wait_for(lambda: len(world.unfinished()) <= 80, "20 steps")
        world.outage("firestore")
        world.cloud.firestore.stop()
        stopped_at = time.monotonic()
        for worker in workers:
            worker.wait_for_event("intake_paused")
        time.sleep(max(0.0, 30 - (time.monotonic() - stopped_at)))
        world.cloud.firestore.start()
        for worker in workers:
            worker.wait_for_event("intake_resumed", timeout_seconds=45)
        world.wait_for(lambda: not world.unfinished(), "all steps", 150)
        seconds = time.monotonic() - stopped_at - 30
        finish(world, calm_seconds=90)
        attempts = [line["deliveryAttempt"] for w in workers for line in w.named("message_received")]
        dead = world.cloud.pubsub.unacked(world.deployment.quarantine)
        assert dead == 0, f"{dead} messages are dead-lettered"
        return (
            f"Firestore down for 30 s: 100 of 100 SUCCEEDED {seconds:.1f} s after its return, intake "
            f"paused and resumed on both daemons, 0 messages dead-lettered, at most {max(attempts)} "
            "deliveries of one"
        )


def _add_dead_letters(world: World) -> None:
    policy = DeadLetterPolicy(dead_letter_topic=world.deployment.quarantine_topic, max_delivery_attempts=20)
    world.deployment.subscriber.update_subscription(
        subscription=Subscription(name=world.deployment.subscription, dead_letter_policy=policy),
        update_mask={"paths": ["dead_letter_policy"]},
    )


CLAIMS: dict[str, Callable[[], str]] = {"kills": kills, "contention": contention, "outage": outage}
