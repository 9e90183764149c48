"""`doctor` on whole clouds: all correct, with each thing broken in turn, and stopped.

Output, exit code and signals are checked in a process; everything else in this process, which is quicker.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading

import pytest
from google.protobuf import duration_pb2

from daemon.cli.doctor.runner import run_checks
from daemon.settings.emulators import Emulators
from localcloud import Fault
from tests.support.cloud.clouds import clients_find
from tests.support.cloud.resources import SECRET_KEY
from tests.support.fakes import scope_of
from tests.support.process.commands import run_command
from tests.support.process.daemons import ROOT, clean_environment

EVERYWHERE = {
    "settings",
    "credentials",
    "pubsub.subscription",
    "pubsub.ack-deadline",
    "pubsub.retry-policy",
    "pubsub.dead-letter",
    "pubsub.dead-letter-topic",
    "pubsub.dead-letter-rights",
    "pubsub.ordering",
    "pubsub.exactly-once",
    "pubsub.expiration",
    "pubsub.consume",
    "pubsub.quarantine-topic",
    "firestore.database",
    "firestore.write",
    "firestore.lease-index",
    "firestore.steps-exemption",
    "storage.create",
    "storage.read",
    "storage.list",
    "storage.delete",
    "templates",
    "accounts",
}
NO_EMULATOR_TELLS = {
    "credentials",
    "pubsub.dead-letter-rights",
    "pubsub.expiration",
    "pubsub.consume",
    "firestore.lease-index",
    "firestore.steps-exemption",
}


def examined(deployment):
    """Return exit code, overall result, and check -> (status, summary, fix)."""
    done = run_command("doctor", "--output", "json", environment=deployment.settings())
    assert done.stderr == ""
    assert SECRET_KEY not in done.stdout
    report = json.loads(done.stdout)
    assert report["exitCode"] == done.returncode
    checks = {found["id"]: (found["status"], found["summary"], found["mend"]) for found in report["checks"]}
    assert len(checks) == len(report["checks"])
    return done.returncode, report["result"], checks


def examined_here(settings, *, call=False, **seconds):
    """Return the same, made in this process, with the summaries as printed."""
    with clients_find(settings):
        report = run_checks(Emulators.of(os.environ), scope_of(), call=call, **seconds)
    checks = {found.check: (found.status, str(found), found.fix) for found in report.results}
    assert len(checks) == len(report.results)
    assert SECRET_KEY not in repr(report)
    return report.exit_code, report.result, checks


def with_status(checks, status):
    """Return the checks with that status."""
    return {check for check, (found, _, _) in checks.items() if found == status}


def with_good_subscription(deployment):
    """Return the deployment with the subscription that `doctor` recommends."""
    seconds = {"minimum_backoff": 10, "maximum_backoff": 600}
    wanted = {
        "name": deployment.subscription,
        "ack_deadline_seconds": 60,
        "retry_policy": {name: duration_pb2.Duration(seconds=value) for name, value in seconds.items()},
        "dead_letter_policy": {"dead_letter_topic": deployment.quarantine_topic, "max_delivery_attempts": 20},
    }
    paths = ["ack_deadline_seconds", "retry_policy", "dead_letter_policy"]
    deployment.subscriber.update_subscription(
        request={"subscription": wanted, "update_mask": {"paths": paths}}
    )
    return deployment


def check_all_is_well(deployment, code, result, checks):
    """Check that every check is ok, except those that an emulator can't show, and the cloud unchanged."""
    assert (code, result) == (0, "ok"), checks
    assert set(checks) == EVERYWHERE
    assert with_status(checks, "not_checkable") == NO_EMULATOR_TELLS
    assert with_status(checks, "ok") == EVERYWHERE - NO_EMULATOR_TELLS
    check_nothing_is_left(deployment)


def check_nothing_is_left(deployment):
    """Check that no object and no document is left."""
    assert deployment.object_names("") == []
    assert list(deployment.documents.collection("chart_export_doctor").stream()) == []


def test_all_is_well_on_the_embedded_cloud(deployment):
    """On the embedded cloud everything created is deleted again, and no chart is requested."""
    before = made(deployment)
    check_all_is_well(deployment, *examined(with_good_subscription(deployment)))
    assert made(deployment) == before
    assert deployment.cloud.chart_img.requests == []


def made(deployment):
    """Return how often lasting resources were created."""
    pubsub, storage = deployment.cloud.pubsub.calls.as_dict(), deployment.cloud.storage.calls.as_dict()
    return pubsub["CreateTopic"], pubsub["CreateSubscription"], storage["buckets.insert"]


@pytest.mark.official
def test_all_is_well_on_the_official_emulators(official_deployment):
    """On the official emulators all checks have the result of the embedded cloud."""
    check_all_is_well(
        official_deployment, *examined_here(with_good_subscription(official_deployment).settings())
    )


@pytest.mark.official
def test_a_subscription_missing_from_the_official_emulator_is_reported(official_deployment):
    """A subscription that is missing on the official emulator is reported with the command to create it."""
    code, _, checks = examined_here(official_deployment.settings(PUBSUB_SUBSCRIPTION="nobody-made-this"))
    assert code == 3
    assert with_status(checks, "failure") == {"pubsub.subscription", "pubsub.consume"}
    assert "gcloud pubsub subscriptions create" in checks["pubsub.subscription"][2]


@pytest.mark.parametrize(
    ("changed", "code", "failed", "fix"),
    [
        (
            {"PUBSUB_SUBSCRIPTION": "nobody-made-this"},
            3,
            ["pubsub.subscription", "pubsub.consume"],
            "gcloud pubsub subscriptions create",
        ),
        ({"CHARTS_BUCKET": "gs://nobody-made-this"}, 3, ["storage.create"], "correct CHARTS_BUCKET"),
        ({"FIRESTORE_DB": "empty"}, 3, ["templates"], "templates push"),
    ],
)
def test_each_missing_thing_fails_alone(deployment, changed, code, failed, fix):
    """Each missing thing fails in one line with its fix; all other checks stay."""
    found_code, result, checks = examined_here(with_good_subscription(deployment).settings(**changed))
    assert (found_code, result) == (code, "failure")
    assert with_status(checks, "failure") == set(failed)
    assert fix in checks[failed[0]][2]
    assert with_status(checks, "ok") >= {"settings", "firestore.write", "accounts"}


def test_bad_accounts_and_a_bad_number_are_exit_2_and_hide_nothing(deployment):
    """Each wrong setting is one line with its value, except secrets, and the allowed values."""
    accounts = json.dumps([{"id": "first", "apiKey": SECRET_KEY, "dailyLimit": "many"}])
    changed = {"CHART_IMG_ACCOUNTS_JSON": accounts, "WORKER_CONCURRENCY": "many"}
    code, result, checks = examined_here(with_good_subscription(deployment).settings(**changed))
    assert (code, result) == (2, "failure")
    wrong = {"settings.CHART_IMG_ACCOUNTS_JSON", "settings.WORKER_CONCURRENCY"}
    assert with_status(checks, "failure") == wrong
    assert "got 'many'" in checks["settings.WORKER_CONCURRENCY"][1]
    assert "a whole number from 1 to 256" in checks["settings.WORKER_CONCURRENCY"][1]
    assert "[0].dailyLimit: expected a whole number above 0" in checks["settings.CHART_IMG_ACCOUNTS_JSON"][1]
    assert checks["accounts"][0] == "not_checkable"
    assert with_status(checks, "ok") >= {
        "pubsub.subscription",
        "firestore.write",
        "storage.create",
        "templates",
    }


def test_a_subscription_without_a_retry_policy_is_a_warning(deployment):
    """A missing retry policy is a warning with exit code 0 and a command as its fix."""
    code, result, checks = examined_here(deployment.settings())
    assert (code, result) == (0, "warning")
    assert with_status(checks, "warning") == {"pubsub.ack-deadline", "pubsub.retry-policy"}
    fix = f"gcloud pubsub subscriptions update {deployment.subscription} --min-retry-delay=10s"
    assert checks["pubsub.retry-policy"][2].startswith(fix)


@pytest.mark.parametrize(
    ("error", "status"), [("UNAVAILABLE", "failure"), ("PERMISSION_DENIED", "not_checkable")]
)
def test_an_unreadable_dead_letter_topic_spoils_no_other_line(deployment, error, status):
    """An unreadable dead-letter topic changes no other line, because the subscription was read before."""
    deployment.cloud.pubsub.faults.add(
        Fault(method="GetTopic", match=deployment.quarantine_topic, error=error)
    )
    _, _, checks = examined_here(with_good_subscription(deployment).settings(QUARANTINE_TOPIC=None))
    assert checks["pubsub.dead-letter-topic"][0] == status
    assert checks["pubsub.dead-letter-topic"][2]
    others = EVERYWHERE - {"pubsub.dead-letter-topic", "pubsub.quarantine-topic"}
    assert with_status(checks, "ok") & others == others - NO_EMULATOR_TELLS


def test_a_database_that_hangs_has_the_scratch_document_named(deployment):
    """When the database hangs, the scratch document is named with its fix, because it may be left over."""
    released = threading.Event()
    deployment.cloud.firestore.faults.add(Fault(method="Commit", before=lambda _: released.wait(30)))
    try:
        code, _, checks = examined_here(deployment.settings(), seconds=1.5)
    finally:
        released.set()
    status, summary, fix = checks["firestore.write"]
    assert (code, status) == (3, "failure")
    assert "it did not end in time; chart_export_doctor/" in summary
    assert fix.startswith("start the emulator")
    assert checks["storage.delete"][0] == "ok"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_deletes_what_was_written(deployment, number, code):
    """A signal during a commit and a read deletes the document and the object."""
    document_is_there, released = threading.Event(), threading.Event()

    def hold(_):
        document_is_there.set()
        released.wait(30)

    deployment.cloud.firestore.faults.add(Fault(method="Commit", skip=1, times=1, before=hold))
    deployment.cloud.storage.faults.add(Fault(method="objects.download", times=1, delay_seconds=0.5))
    command = [sys.executable, "-m", "daemon.cli", "doctor"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=clean_environment(deployment.settings()), cwd=ROOT, **pipes) as doctor:
        try:
            assert document_is_there.wait(30)
            doctor.send_signal(number)
            assert doctor.stderr.readline().startswith("deleting what was written")
        finally:
            released.set()
        output, errors = doctor.communicate(timeout=30)
    name = signal.Signals(number).name
    assert (doctor.returncode, output, errors) == (code, "", f"stopped by {name}; nothing is left over\n")
    check_nothing_is_left(deployment)


def test_an_unavailable_backend_hides_no_other_and_leaves_no_traceback(deployment):
    """Unavailable backends give a line per check with its fix, and no traceback."""
    deployment.cloud.pubsub.stop()
    done = run_command("doctor", environment=deployment.settings())
    assert done.returncode == 3
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"Emulators: pubsub at {deployment.environment['PUBSUB_EMULATOR_HOST']}, ")
    at = next(number for number, line in enumerate(lines) if line.startswith("FAILURE pubsub.subscription"))
    assert "pubsub is unavailable" in lines[at]
    assert lines[at + 1].strip().startswith("fix: start the emulator")
    assert any(line.startswith("ok      firestore.write") for line in lines)
    assert any(line.startswith("?       firestore.lease-index") for line in lines)
    assert lines[-1].endswith("Fix these first: pubsub.subscription, pubsub.consume, pubsub.quarantine-topic")


def test_an_invalid_proxy_is_reported_without_its_password(deployment, monkeypatch):
    """An invalid proxy is reported by the variables' names and without its password."""
    monkeypatch.setenv("ALL_PROXY", "http://quant:s3cret@proxy:99999")
    _, result, checks = examined_here(with_good_subscription(deployment).settings(NO_PROXY=""), call=True)
    assert result == "failure"
    assert with_status(checks, "failure") == {"storage.create", "accounts.call"}
    texts = {checks[check][1] for check in ("storage.create", "accounts.call")}
    assert all("HTTPS_PROXY, ALL_PROXY" in text and "internal" not in text for text in texts), texts
    assert "s3cret" not in repr(checks)


def test_call_spends_one_request_and_names_the_account(deployment):
    """`--call` makes one counted request and names the account."""
    code, _, checks = examined_here(deployment.settings(), call=True)
    assert code == 0
    assert checks["accounts.call"][0] == "ok"
    assert "account first" in checks["accounts.call"][1]
    assert len(deployment.cloud.chart_img.requests) == 1
    usage = deployment.documents.document("chart_img_accounts_usage/first").get().to_dict()
    assert usage["usageToday"] == 1


def test_without_credentials_there_is_one_failure_and_not_twenty():
    """Missing credentials are one failure; the checks that need them are not checkable."""
    settings = {
        "GOOGLE_CLOUD_PROJECT": "p-1",
        "PUBSUB_SUBSCRIPTION": "charts",
        "CHARTS_BUCKET": "gs://charts",
        "CHARTS_API_MODE": "local",
        "NO_GCE_CHECK": "true",
        "HOME": "/nonexistent",
    }
    done = run_command("doctor", environment=settings)
    assert (done.returncode, done.stderr) == (3, "")
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAILURE")]
    assert [line.split()[1] for line in failed] == ["credentials"]
    assert "fix: gcloud auth application-default login" in done.stdout
