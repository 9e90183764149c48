"""The command `release`: a step whose holder is frozen is finished by another daemon."""

from __future__ import annotations

import json
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from localcloud.faults import Fault
from tests.support.process.commands import run_command
from worker_chart_export.ledger.lease import LEASES

#: Leases and rescues that are far longer than the test: only the release can end a lease.
LONG = {"LEASE_SECONDS": "600", "RESCUE_INTERVAL_SECONDS": "600", "REQUEST_CONCURRENCY": "1"}
CHARTS = 3


def _lease(deployment, run_id, step_id):
    return deployment.documents.document(f"flow_runs/{run_id}/{LEASES}/{step_id}")


def _release(deployment, *arguments):
    return run_command("release", *arguments, environment=deployment.settings())


def _running(deployment, daemon):
    """Start a step; its daemon has stored the first chart and hangs in the second. Return run and step."""
    deployment.cloud.chart_img.faults.add(Fault(delay_seconds=600, skip=1, times=1))
    run_id, (step_id,) = deployment.put_run(charts=CHARTS)
    deployment.publish_step(run_id, step_id)
    assert deployment.cloud.chart_img.calls.wait_for("advanced-chart", 2, timeout_seconds=30)
    assert daemon.wait_for_event("chart_stored")
    return run_id, step_id


def _check_taken_over(deployment, daemon, run_id, step_id):
    """Wait until the daemon has finished the step, as the second attempt of it."""
    (line,) = daemon.wait_for_event("step_completed")
    assert (line["runId"], line["attempt"], line["status"]) == (run_id, 2, "SUCCEEDED")
    (taken,) = daemon.named("lease_taken_over")
    assert "@" in taken["releasedBy"]
    assert daemon.named("chart_reused"), "the stored chart was paid for again"
    assert deployment.step(run_id, step_id)["status"] == "SUCCEEDED"


def test_a_step_whose_holder_is_frozen_is_finished_by_another(each_deployment):
    """It takes seconds, although the lease lasts for ten minutes. The frozen daemon changes nothing."""
    deployment = each_deployment
    with deployment.daemon(**LONG).started() as frozen:
        run_id, step_id = _running(deployment, frozen)
        frozen.signal(signal.SIGSTOP)
        with deployment.daemon(**LONG).started() as other:
            started = time.monotonic()
            done = _release(deployment, run_id, step_id)
            assert done.returncode == 0, done.stderr
            assert f"Released step {step_id}, held by " in done.stdout
            assert "operator_action" in done.stderr
            _check_taken_over(deployment, other, run_id, step_id)
            assert time.monotonic() - started < 30
            result = deployment.step(run_id, step_id)
            blobs = {blob.name: blob.generation for blob in deployment.objects.list_blobs(deployment.bucket)}
            frozen.signal(signal.SIGCONT)
            assert frozen.terminate() == 0
    assert frozen.named("step_completed") == []
    assert deployment.step(run_id, step_id) == result
    assert {blob.name: blob.generation for blob in deployment.objects.list_blobs(deployment.bucket)} == blobs
    assert not _lease(deployment, run_id, step_id).get().exists


def test_a_message_that_a_frozen_holder_got_does_not_delay_the_take_over(deployment):
    """The frozen process is the only one that receives; the message that it got stays there for a minute."""
    slow = {**LONG, "ACK_EXTENSION_SECONDS": "60"}
    with deployment.daemon(**slow).started() as frozen, ThreadPoolExecutor(1) as threads:
        run_id, step_id = _running(deployment, frozen)
        frozen.signal(signal.SIGSTOP)
        sent = deployment.cloud.pubsub.calls.as_dict()["Publish"]
        releasing = threads.submit(_release, deployment, run_id, step_id, "--wait", "40s")
        assert deployment.cloud.pubsub.calls.wait_for("Publish", sent + 1, timeout_seconds=30)
        with deployment.daemon(**slow).started() as other:
            _check_taken_over(deployment, other, run_id, step_id)
            done = releasing.result()
            owner = other.named("claim_attempt")[0]["owner"]
            assert done.returncode == 0
            # The command looks twice a second.
            assert done.stdout.splitlines()[1] in {f"Taken over by {owner}", "Another worker has finished it"}
            frozen.kill()


def test_without_a_daemon_the_release_ends_with_a_warning(deployment):
    """The step is released all the same."""
    run_id, (step_id,) = deployment.put_run(status="RUNNING")
    _put_lease(deployment, run_id, step_id)
    done = _release(deployment, run_id, step_id, "--wait", "3s")
    assert done.returncode == 0
    assert "nobody took the step over within 3 s" in done.stderr
    assert deployment.cloud.pubsub.calls.as_dict()["Publish"] == 2


def test_a_live_holder_stops_within_a_heartbeat(deployment):
    """It finds out that the token is gone, and another daemon or itself starts again."""
    short = {**LONG, "LEASE_SECONDS": "6"}
    with deployment.daemon(**short).started() as holder:
        run_id, step_id = _running(deployment, holder)
        assert _release(deployment, run_id, step_id).returncode == 0
        holder.wait_for_event("lease_lost", timeout_seconds=15)
        (line,) = holder.wait_for_event("step_completed")
        assert line["attempt"] == 2
    assert deployment.step(run_id, step_id)["status"] == "SUCCEEDED"
    assert sum(deployment.cloud.chart_img.charts_per_key.as_dict().values()) == CHARTS


def _put_lease(deployment, run_id, step_id, **fields):
    now = datetime.now(UTC)
    lease = {
        "owner": "unknown",
        "token": "t",
        "attempt": 1,
        "released": 0,
        "startedAt": now,
        "acquiredAt": now,
        "expiresAt": now + timedelta(hours=1),
        "messageId": "",
    }
    _lease(deployment, run_id, step_id).set(lease | fields)


def test_the_lease_of_an_unknown_owner_is_ended(deployment):
    """The lease document says who did it and when; the JSON output says what was released."""
    run_id, (step_id,) = deployment.put_run(status="RUNNING")
    _put_lease(deployment, run_id, step_id)
    done = _release(deployment, run_id, step_id, "--output", "json", "--wait", "0s")
    (row,) = json.loads(done.stdout)
    assert (row["runId"], row["stepId"], row["released"], row["owner"]) == (run_id, step_id, True, "unknown")
    lease = _lease(deployment, run_id, step_id).get().to_dict()
    assert (lease["token"], lease["released"], lease["attempt"]) == ("", 1, 1)
    assert "@" in lease["releasedBy"]
    assert lease["expiresAt"] <= datetime.now(UTC)
    again = json.loads(_release(deployment, run_id, step_id, "--output", "json", "--wait", "0s").stdout)
    assert (again[0]["released"], again[0]["reason"]) == (False, "released")
    assert _lease(deployment, run_id, step_id).get().to_dict() == lease


def test_a_step_without_a_lease_needs_force(deployment):
    """Without --force nothing changes. With it the step can be taken over at once."""
    run_id, (step_id,) = deployment.put_run(status="RUNNING")
    refused = _release(deployment, run_id, step_id)
    assert refused.returncode == 1
    assert "RUNNING without a lease" in refused.stderr
    assert "--force" in refused.stderr
    assert not _lease(deployment, run_id, step_id).get().exists
    with deployment.daemon(**LONG).started() as daemon:
        assert _release(deployment, run_id, step_id, "--force").returncode == 0
        (line,) = daemon.wait_for_event("step_completed")
        assert (line["stepId"], line["attempt"]) == (step_id, 2)


@pytest.mark.parametrize(
    ("fields", "why"),
    [({}, "the step is not RUNNING"), ({"status": "SUCCEEDED"}, "not RUNNING"), (None, "does not exist")],
)
def test_any_other_step_is_refused_with_exit_1(deployment, fields, why):
    """The sentence says why, and no message is sent."""
    run_id, (step_id,) = deployment.put_run(**(fields or {}))
    sent = deployment.cloud.pubsub.calls.as_dict().get("Publish", 0)
    done = _release(deployment, run_id if fields is not None else "no-such-run", step_id)
    assert done.returncode == 1
    assert why in done.stderr
    assert deployment.cloud.pubsub.calls.as_dict().get("Publish", 0) == sent


def test_a_missing_subscription_is_found_before_anything_changes(deployment):
    """Exit code 3, and the lease stays as it is."""
    run_id, (step_id,) = deployment.put_run(status="RUNNING")
    _put_lease(deployment, run_id, step_id)
    before = _lease(deployment, run_id, step_id).get().to_dict()
    settings = deployment.settings(PUBSUB_SUBSCRIPTION="no-such-subscription")
    done = run_command("release", run_id, step_id, environment=settings)
    assert done.returncode == 3
    assert _lease(deployment, run_id, step_id).get().to_dict() == before


@pytest.mark.official
def test_release_on_the_official_emulators(official_deployment):
    """A released step is taken over there too."""
    deployment = official_deployment
    run_id, (step_id,) = deployment.put_run(status="RUNNING")
    _put_lease(deployment, run_id, step_id)
    with deployment.daemon(**LONG).started() as daemon:
        assert _release(deployment, run_id, step_id).returncode == 0
        (line,) = daemon.wait_for_event("step_completed", timeout_seconds=60)
        assert (line["stepId"], line["attempt"]) == (step_id, 2)
