"""`doctor` on whole clouds: where all is well, with each thing broken in turn, and stopped in the middle.

What only a process has (output, exit code, signals) is looked at in one; all else in this, which is quicker.
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
    """Exit code, overall result, and check -> (status, summary, fix)."""
    done = run_command("doctor", "--output", "json", environment=deployment.settings())
    assert done.stderr == ""
    assert SECRET_KEY not in done.stdout
    report = json.loads(done.stdout)
    assert report["exitCode"] == done.returncode
    checks = {found["id"]: (found["status"], found["summary"], found["mend"]) for found in report["checks"]}
    assert len(checks) == len(report["checks"])
    return done.returncode, report["result"], checks


def seen(settings, *, call=False, **seconds):
    """The same, made by this process; the summaries as they are printed."""
    with clients_find(settings):
        report = run_checks(Emulators.of(os.environ), scope_of(), call=call, **seconds)
    checks = {found.check: (found.status, str(found), found.fix) for found in report.results}
    assert len(checks) == len(report.results)
    assert SECRET_KEY not in repr(report)
    return report.exit_code, report.result, checks


def with_status(checks, status):
    """The checks that ended so."""
    return {check for check, (found, _, _) in checks.items() if found == status}


def with_good_subscription(deployment):
    """The deployment with the subscription that `doctor` recommends."""
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
    """Every check ok, except for what an emulator can't show. The cloud is unchanged."""
    assert (code, result) == (0, "ok"), checks
    assert set(checks) == EVERYWHERE
    assert with_status(checks, "not_checkable") == NO_EMULATOR_TELLS
    assert with_status(checks, "ok") == EVERYWHERE - NO_EMULATOR_TELLS
    check_nothing_is_left(deployment)


def check_nothing_is_left(deployment):
    """Neither an object nor a document."""
    assert deployment.object_names("") == []
    assert list(deployment.documents.collection("chart_export_doctor").stream()) == []


def test_all_is_well_on_the_embedded_cloud(deployment):
    """Nothing is created there but what is deleted again; no request of Chart-IMG is spent."""
    before = made(deployment)
    check_all_is_well(deployment, *examined(with_good_subscription(deployment)))
    assert made(deployment) == before
    assert deployment.cloud.chart_img.requests == []


def made(deployment):
    """How often something was made that lasts."""
    pubsub, storage = deployment.cloud.pubsub.calls.as_dict(), deployment.cloud.storage.calls.as_dict()
    return pubsub["CreateTopic"], pubsub["CreateSubscription"], storage["buckets.insert"]


@pytest.mark.official
def test_all_is_well_on_the_official_emulators(official_deployment):
    """As on the embedded cloud, check by check."""
    check_all_is_well(official_deployment, *seen(with_good_subscription(official_deployment).settings()))


@pytest.mark.official
def test_a_subscription_missing_from_the_official_emulator_is_said(official_deployment):
    """With the command that makes one."""
    code, _, checks = seen(official_deployment.settings(PUBSUB_SUBSCRIPTION="nobody-made-this"))
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
def test_what_is_missing_fails_alone(deployment, changed, code, failed, fix):
    """One line for it, with the fix, and all other checks as before."""
    found_code, result, checks = seen(with_good_subscription(deployment).settings(**changed))
    assert (found_code, result) == (code, "failure")
    assert with_status(checks, "failure") == set(failed)
    assert fix in checks[failed[0]][2]
    assert with_status(checks, "ok") >= {"settings", "firestore.write", "accounts"}


def test_bad_accounts_and_a_bad_number_are_exit_2_and_hide_nothing(deployment):
    """Each wrong setting is a line with what was given, but for secrets, and what is allowed."""
    accounts = json.dumps([{"id": "first", "apiKey": SECRET_KEY, "dailyLimit": "many"}])
    changed = {"CHART_IMG_ACCOUNTS_JSON": accounts, "WORKER_CONCURRENCY": "many"}
    code, result, checks = seen(with_good_subscription(deployment).settings(**changed))
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
    """The daemon works with it, so the exit code is 0; the fix is a command."""
    code, result, checks = seen(deployment.settings())
    assert (code, result) == (0, "warning")
    assert with_status(checks, "warning") == {"pubsub.ack-deadline", "pubsub.retry-policy"}
    fix = f"gcloud pubsub subscriptions update {deployment.subscription} --min-retry-delay=10s"
    assert checks["pubsub.retry-policy"][2].startswith(fix)


@pytest.mark.parametrize(
    ("error", "status"), [("UNAVAILABLE", "failure"), ("PERMISSION_DENIED", "not_checkable")]
)
def test_an_unreadable_dead_letter_topic_spoils_no_other_line(deployment, error, status):
    """What the subscription says of itself was read before."""
    deployment.cloud.pubsub.faults.add(
        Fault(method="GetTopic", match=deployment.quarantine_topic, error=error)
    )
    _, _, checks = seen(with_good_subscription(deployment).settings(QUARANTINE_TOPIC=None))
    assert checks["pubsub.dead-letter-topic"][0] == status
    assert checks["pubsub.dead-letter-topic"][2]
    others = EVERYWHERE - {"pubsub.dead-letter-topic", "pubsub.quarantine-topic"}
    assert with_status(checks, "ok") & others == others - NO_EMULATOR_TELLS


def test_a_database_that_hangs_has_the_scratch_document_named(deployment):
    """With a fix. The document may be left over."""
    released = threading.Event()
    deployment.cloud.firestore.faults.add(Fault(method="Commit", before=lambda _: released.wait(30)))
    try:
        code, _, checks = seen(deployment.settings(), seconds=1.5)
    finally:
        released.set()
    status, summary, fix = checks["firestore.write"]
    assert (code, status) == (3, "failure")
    assert "it did not end in time; chart_export_doctor/" in summary
    assert fix.startswith("start the emulator")
    assert checks["storage.delete"][0] == "ok"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_has_deleted_what_was_written(deployment, number, code):
    """The document's next commit is under way, and the object is being read."""
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


def test_a_backend_that_is_away_hides_no_other_and_leaves_no_traceback(deployment):
    """As text: a line for each check, the fix below, no stack and no line of a library."""
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


def test_a_proxy_that_can_t_be_used_is_said_without_its_password(deployment, monkeypatch):
    """By the names of the variables, wherever it is needed."""
    monkeypatch.setenv("ALL_PROXY", "http://quant:s3cret@proxy:99999")
    _, result, checks = seen(with_good_subscription(deployment).settings(NO_PROXY=""), call=True)
    assert result == "failure"
    assert with_status(checks, "failure") == {"storage.create", "accounts.call"}
    texts = {checks[check][1] for check in ("storage.create", "accounts.call")}
    assert all("HTTPS_PROXY, ALL_PROXY" in text and "internal" not in text for text in texts), texts
    assert "s3cret" not in repr(checks)


def test_call_spends_one_request_and_names_the_account(deployment):
    """Counted as any other."""
    code, _, checks = seen(deployment.settings(), call=True)
    assert code == 0
    assert checks["accounts.call"][0] == "ok"
    assert "account first" in checks["accounts.call"][1]
    assert len(deployment.cloud.chart_img.requests) == 1
    usage = deployment.documents.document("chart_img_accounts_usage/first").get().to_dict()
    assert usage["usageToday"] == 1


def test_without_credentials_there_is_one_failure_and_not_twenty():
    """What needs them is not checkable; no line of a library is seen."""
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
