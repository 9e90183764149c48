"""`pause`, `resume` and `workers` as processes, with real daemons on the embedded cloud."""

from __future__ import annotations

import getpass
import json
import os
import re
import signal
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from daemon.handling.fleet_member import LOOK_SECONDS, LOOKS_PER_HEARTBEAT, READ_SECONDS
from localcloud.faults import Fault
from tests.support.cloud.resources import asked, ready
from tests.support.process.commands import run_command
from tests.support.process.fleet_daemon import FLEET
from worker_chart_export.fleet.heartbeat import EXPIRES_SECONDS, WORKERS
from worker_chart_export.fleet.pause import CONTROL, PAUSE

ME = f"{getpass.getuser()}@{socket.gethostname()}"
REASON = "maintenance of Chart-IMG"


def run(deployment, *arguments, code=0, **environment):
    """Run the command with the place of Firestore only; check its exit code."""
    names = ("GOOGLE_CLOUD_PROJECT", "FIRESTORE_EMULATOR_HOST")
    done = run_command(
        *arguments, environment={**{name: deployment.environment[name] for name in names}, **environment}
    )
    assert done.returncode == code, done.stderr
    return done


def listed(deployment):
    """Return the objects of `workers --output json`."""
    return json.loads(run(deployment, "workers", "--output", "json").stdout)


def publish(deployment, run_id, step_ids):
    """Publish each of the steps."""
    for step_id in step_ids:
        deployment.publish_step(run_id, step_id)


def statuses(deployment, run_id):
    """Return the set of the statuses of all chart steps of a run."""
    steps = deployment.run(run_id)["steps"].values()
    return {step["status"] for step in steps if step["stepType"] == "CHART_EXPORT"}


def wait_until_done(deployment, daemon, run_id):
    """Wait until all steps have succeeded.

    A message that Pub/Sub sent to a stream which was just closed comes again after its deadline. On the
    official emulator the last one has taken more than a minute.
    """
    daemon.wait_until(lambda: statuses(deployment, run_id) == {"SUCCEEDED"}, "all steps", 180)


def pause(deployment, *daemons):
    """Pause the fleet, and wait until these daemons have seen it."""
    done = run(deployment, "pause", "--reason", REASON)
    for daemon in daemons:
        daemon.wait_for_event("intake_paused")
    return done


@pytest.mark.timeout(300)
def test_a_pause_under_load_loses_nothing_and_pays_nothing_twice(each_deployment):
    """Two daemons finish what runs, start nothing while they are paused, and do all the rest afterwards."""
    deployment = each_deployment
    deployment.cloud.chart_img.faults.add(Fault(delay_seconds=0.3))
    run_id, step_ids = deployment.put_run(steps=30, charts=1)
    settings = {"module": FLEET, "WORKER_CONCURRENCY": "2"}
    with deployment.daemon(**settings).started() as one, deployment.daemon(**settings).started() as two:
        publish(deployment, run_id, step_ids)
        one.wait_for_event("step_completed")
        done = pause(deployment, one, two)
        assert "2 daemons will see it within 30 s" in done.stdout
        (line,) = one.named("intake_paused")
        assert (line["backend"], line["reason"].rpartition(" at ")[0]) == (
            "operator",
            f"operator {ME} paused the fleet",
        )
        one.wait_until(lambda: "RUNNING" not in statuses(deployment, run_id), "what ran is finished", 20)
        one.wait_until(lambda: {w["stepsRunning"] for w in listed(deployment)} == {0}, "no step", 20)
        assert "READY" in statuses(deployment, run_id)
        claims = len(one.named("claim_attempt")) + len(two.named("claim_attempt"))
        for daemon in (one, two):  # the long pause closes the stream
            daemon.wait_for_event("stream_ended")
        assert len(one.named("claim_attempt")) + len(two.named("claim_attempt")) == claims
        assert f"Resumed: operator {ME} paused the fleet" in run(deployment, "resume").stdout
        wait_until_done(deployment, one, run_id)
        assert (one.terminate(), two.terminate()) == (0, 0)
    assert sum(deployment.cloud.chart_img.charts_per_key.as_dict().values()) == 30
    assert one.named("internal_error") + two.named("internal_error") == []


def test_everything_says_who_paused_and_why(deployment):
    """/readyz, the page, the metrics, the log and `workers` name the operator and the reason."""
    with deployment.daemon(module=FLEET).started() as daemon:
        pause(deployment, daemon)
        sentence = daemon.named("intake_paused")[0]["reason"]
        assert re.fullmatch(
            rf"operator {re.escape(ME)} paused the fleet at [0-9-]+ [0-9:]+ UTC: {REASON}", sentence
        )
        status, body = ready(daemon)
        assert (status, body["reason"]) == (503, f"intake is paused: {sentence}")
        assert asked(daemon, "livez").status_code == 200
        assert asked(daemon, "state.json").json()["readiness"]["parts"]["intake"] == f"paused: {sentence}"
        text = asked(daemon, "metrics").text
        assert f'chart_export_fleet_paused{{operator="{ME}",reason="{REASON}"}} 1.0' in text
        assert 'chart_export_intake_paused{backend="operator"} 1.0' in text
        daemon.wait_until(lambda: listed(deployment)[0]["state"] == "paused", "the next heartbeat", 20)
        (worker,) = listed(deployment)
        assert worker["reason"] == f"intake is paused: {sentence}"
        assert run(deployment, "workers").stderr == f"paused: {sentence}\n"

        run(deployment, "resume")
        daemon.wait_for_event("intake_resumed")
        # A pause that lasted longer has closed the stream, which opens again first.
        daemon.wait_until(lambda: ready(daemon)[0] == 200, "an open stream", 20)
        text = asked(daemon, "metrics").text
        assert re.findall("^chart_export_fleet_paused.*", text, re.MULTILINE) == [
            'chart_export_fleet_paused{operator="",reason=""} 0.0'
        ]
        assert 'chart_export_intake_paused{backend="operator"} 0.0' in text
        assert daemon.terminate() == 0


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("dark", [False, True])
def test_the_page_has_a_badge_with_who_paused_and_why(deployment, chromium, width, dark):
    """The badge of the page names the pause with its operator and reason, and fits into the window."""
    with (
        deployment.daemon(module=FLEET).started() as daemon,
        chromium.tab(width=width, height=900, dark=dark) as tab,
    ):
        tab.open(f"http://127.0.0.1:{daemon.named('daemon_started')[0]['healthPort']}/")
        tab.wait_for("document.title.includes('Ready')")
        pause(deployment, daemon)
        tab.wait_for("document.querySelector('#state .word').textContent === 'Intake paused'")
        assert re.search(f"operator {re.escape(ME)} paused the fleet at .* UTC: {REASON}", tab.text("#state"))
        assert tab.run("document.documentElement.scrollWidth <= innerWidth")
        if folder := os.environ.get("PAGE_PICTURES"):
            Path(folder, f"paused-{width}{'-dark' * dark}.png").write_bytes(tab.picture())
        run(deployment, "resume")
        tab.wait_for("document.querySelector('#state .word').textContent === 'Ready'")
        assert daemon.terminate() == 0


def test_a_daemon_that_starts_meanwhile_starts_paused(deployment):
    """It logs the pause before it pulls, works on nothing, and starts to work at the end of the pause."""
    run_id, step_ids = deployment.put_run(steps=2, charts=1)
    publish(deployment, run_id, step_ids)
    run(deployment, "pause")
    with deployment.daemon(module=FLEET, RESCUE_INTERVAL_SECONDS="1").started() as daemon:
        events = [line["event"] for line in daemon.events]
        assert events.index("intake_paused") < events.index("daemon_started")
        daemon.wait_for_event("stream_ended")
        assert daemon.named("claim_attempt") == []
        run(deployment, "resume")
        wait_until_done(deployment, daemon, run_id)
        assert daemon.terminate() == 0


def test_a_start_without_firestore_waits_until_the_pause_is_known(deployment):
    """No step is started in an outage at the start, nor after it if the fleet is paused."""
    run_id, step_ids = deployment.put_run(steps=2, charts=1)
    publish(deployment, run_id, step_ids)
    run(deployment, "pause")
    outage = deployment.cloud.firestore.faults.add(Fault(match=CONTROL, error="DEADLINE_EXCEEDED"))
    with deployment.daemon(module=FLEET).started() as daemon:
        assert daemon.named("intake_paused")[0]["backend"] == "firestore"
        assert ready(daemon)[0] == 503
        deployment.cloud.firestore.faults.remove(outage)
        daemon.wait_for_event("intake_paused", count=2)
        daemon.wait_until(lambda: "firestore" not in ready(daemon)[1]["reason"], "no outage", 20)
        assert daemon.named("claim_attempt") == []
        run(deployment, "resume")
        wait_until_done(deployment, daemon, run_id)
        assert daemon.terminate() == 0


def test_an_outage_does_not_end_a_pause(deployment):
    """While the pause can't be read, what was known before stays true."""
    with deployment.daemon(module=FLEET).started() as daemon:
        pause(deployment, daemon)
        outage = deployment.cloud.firestore.faults.add(Fault(match=CONTROL, error="UNAVAILABLE"))
        daemon.wait_until(lambda: deployment.cloud.firestore.faults.fired(outage) >= 3, "reads", 20)
        assert "paused the fleet" in ready(daemon)[1]["reason"]
        assert len(daemon.named("backend_unavailable")) == 1  # one line for one outage
        assert daemon.terminate() == 0


def test_pause_and_resume_may_be_repeated(deployment):
    """A second pause keeps the first one; a second resume changes nothing. Each change has one audit line."""
    log_lines = {"LOG_FORMAT": "json"}
    first = run(deployment, "pause", "--reason", REASON, **log_lines)
    (line,) = map(json.loads, first.stderr.splitlines())
    assert (line["event"], line["command"], line["operator"], line["reason"]) == (
        "operator_action",
        "pause",
        ME,
        REASON,
    )
    assert "No daemon runs now" in first.stdout
    second = run(deployment, "pause", "--reason", "another", **log_lines)
    assert second.stdout.startswith(f"The fleet was paused already, and nothing was changed: operator {ME}")
    assert second.stdout.endswith(f"{REASON}\n")
    assert second.stderr == ""
    (line,) = map(json.loads, run(deployment, "resume", **log_lines).stderr.splitlines())
    assert (line["command"], line["pausedBy"], line["reason"]) == ("resume", ME, REASON)
    third = run(deployment, "resume", **log_lines)
    assert (third.stdout, third.stderr) == ("The fleet was not paused, and nothing was changed\n", "")


@pytest.mark.parametrize("reason", ["x" * 201, "two\nlines"])
def test_a_reason_that_no_label_can_hold_is_refused(deployment, reason):
    """A long reason or one with control characters is a wrong argument, and nothing is paused."""
    assert "--reason: expected" in run(deployment, "pause", "--reason", reason, code=2).stderr
    assert not deployment.documents.document(f"{CONTROL}/{PAUSE}").get().exists


def test_a_pause_made_by_hand_counts(deployment):
    """The document pauses the fleet, whatever its fields are."""
    deployment.documents.document(f"{CONTROL}/{PAUSE}").set({"reason": 5})
    with deployment.daemon(module=FLEET).started() as daemon:
        assert "operator unknown paused the fleet" in ready(daemon)[1]["reason"]
        assert daemon.terminate() == 0


def test_workers_lists_those_that_are_there(deployment):
    """A daemon is listed with its slots and steps until it stops; one that was killed, until it expires."""
    deployment.cloud.chart_img.faults.add(Fault(delay_seconds=60))
    run_id, (step_id,) = deployment.put_run(charts=1)
    assert listed(deployment) == []
    assert "nothing found" in run(deployment, "workers").stderr
    with deployment.daemon(module=FLEET, WORKER_CONCURRENCY="3").started() as daemon:
        deployment.publish_step(run_id, step_id)
        daemon.wait_until(lambda: [w["stepsRunning"] for w in listed(deployment)] == [1], "the step", 20)
        (worker,) = listed(deployment)
        assert set(worker) == {
            *(
                "owner",
                "version",
                "subscription",
                "mode",
                "state",
                "reason",
                "slots",
                "stepsRunning",
                "refusedAccounts",
            ),
            *("startedAt", "lastSeenAt", "lastSeenSeconds"),
        }
        assert (worker["state"], worker["reason"], worker["slots"]) == ("ready", None, 3)
        assert worker["owner"] == daemon.named("claim_attempt")[0]["owner"]
        assert worker["subscription"] == deployment.subscription
        assert worker["startedAt"] <= worker["lastSeenAt"]
        title, line = run(deployment, "workers").stdout.splitlines()
        assert title.split() == ["OWNER", "STATE", "STEPS", "UP", "SEEN", "VERSION", "REASON"]
        assert worker["owner"] in line
        assert "1 of 3" in line
        daemon.kill()
    assert len(listed(deployment)) == 1  # nobody deleted it


def test_the_first_heartbeat_of_a_daemon_says_that_it_is_ready(deployment):
    """It stands for half a minute, so it waits until the stream is open."""
    with deployment.daemon().started() as daemon:
        daemon.wait_until(lambda: listed(deployment), "a heartbeat", 20)
        (worker,) = listed(deployment)
        assert (worker["state"], worker["reason"]) == ("ready", None)


def test_a_clean_stop_removes_the_heartbeat(deployment):
    """A daemon that stopped is listed no more, and the next one deletes old heartbeats of killed ones."""
    old = deployment.documents.document(f"{WORKERS}/host:1:old")
    expired = datetime.now(UTC) - timedelta(seconds=1)
    old.set({"owner": "host:1:old", "expiresAt": expired})
    assert listed(deployment) == []
    with deployment.daemon(module=FLEET).started() as daemon:
        daemon.wait_until(lambda: not old.get().exists, "the old one is gone", 20)
        daemon.wait_until(lambda: len(listed(deployment)) == 1, "a heartbeat", 20)
        (document,) = deployment.documents.collection(WORKERS).get()
        lasts = document.get("expiresAt") - document.get("lastSeenAt")
        assert lasts.total_seconds() == EXPIRES_SECONDS
        daemon.signal(signal.SIGTERM)
        assert daemon.wait() == 0
    assert deployment.documents.collection(WORKERS).get() == []


def test_each_daemon_looks_in_time_and_writes_seldom():
    """A pause is seen within 30 s, also if a read takes all its time; heartbeats are at least 30 s apart."""
    assert LOOK_SECONDS + READ_SECONDS <= 30
    assert LOOK_SECONDS * LOOKS_PER_HEARTBEAT >= 30
    assert EXPIRES_SECONDS >= 3 * (LOOK_SECONDS + READ_SECONDS) * LOOKS_PER_HEARTBEAT


@pytest.mark.official
def test_pause_resume_and_workers_on_the_official_emulator(official_deployment):
    """The commands and the daemon agree on Google's Firestore emulator too."""
    deployment = official_deployment
    old = deployment.documents.document(f"{WORKERS}/host:1:old")
    old.set({"owner": "host:1:old", "expiresAt": datetime.now(UTC) - timedelta(seconds=1)})
    run_id, step_ids = deployment.put_run(steps=2, charts=1)
    run(deployment, "pause", "--reason", REASON)
    assert run(deployment, "pause").stdout.endswith(f"{REASON}\n")
    with deployment.daemon(module=FLEET).started() as daemon:
        publish(deployment, run_id, step_ids)
        daemon.wait_until(lambda: [w["state"] for w in listed(deployment)] == ["paused"], "the list", 30)
        daemon.wait_until(lambda: not old.get().exists, "the old one is gone", 20)
        assert daemon.named("claim_attempt") == []
        run(deployment, "resume")
        wait_until_done(deployment, daemon, run_id)
        assert daemon.terminate() == 0
    assert listed(deployment) == []
    assert run(deployment, "resume").stdout.startswith("The fleet was not paused")
