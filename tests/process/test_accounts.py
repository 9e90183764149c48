"""`accounts`, `accounts limit` and `accounts test` as real processes on the embedded cloud."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from localcloud.faults import Fault
from tests.support.cloud.resources import SECRET_KEY
from tests.support.process.commands import run_command
from tests.support.process.fleet_daemon import FLEET
from worker_chart_export.charts.chart_img.usage_document import USAGE

ACCOUNTS = [
    {"id": "main", "apiKey": SECRET_KEY, "dailyLimit": 50, "ratePerSecond": 2.5, "burst": 4, "plan": "PRO"},
    {"id": "spare", "apiKey": f"another-{SECRET_KEY}"},
]


@pytest.fixture
def run(deployment):
    """Run a command with two accounts."""
    return commands_of(deployment)


def commands_of(deployment):
    """Return a function that runs a command with two accounts."""

    def command(*arguments, **changed):
        settings = deployment.settings(CHART_IMG_ACCOUNTS_JSON=json.dumps(ACCOUNTS), **changed)
        done = run_command("accounts", *arguments, environment=settings)
        assert SECRET_KEY not in done.stdout + done.stderr
        return done

    return command


def today(days=0):
    """Return the start of today's window, or of one so many days later."""
    return f"{datetime.now(UTC) + timedelta(days=days):%Y-%m-%dT00:00:00Z}"


def usage(deployment, account_id):
    """Return the document in which the calls of an account are counted."""
    return deployment.documents.document(f"{USAGE}/{account_id}")


def listed(run):
    """Return the accounts by id."""
    return {account["id"]: account for account in json.loads(run("--output", "json").stdout)}


def test_the_list_holds_usage_limit_window_and_rate_of_each_account(deployment, run):
    """Accounts without a document have used nothing; those that are not configured come last."""
    usage(deployment, "main").set({"windowStart": today(), "usageToday": 12})
    usage(deployment, "old").set({"windowStart": today(-3), "usageToday": 9, "dailyLimit": 7})
    found = listed(run)
    assert list(found) == ["main", "spare", "old"]
    assert found["main"] == {
        "id": "main",
        "usageToday": 12,
        "dailyLimit": 50,
        "limitFrom": "settings",
        "left": 38,
        "refusedBy": [],
        "windowStart": today(),
        "windowEnd": today(1),
        "isConfigured": True,
        "plan": "PRO",
        "ratePerSecond": 2.5,
        "burst": 4,
    }
    assert (found["spare"]["usageToday"], found["spare"]["left"]) == (0, 44)
    assert (found["old"]["usageToday"], found["old"]["limitFrom"]) == (0, "document")
    assert found["old"]["isConfigured"] is False
    text = run().stdout
    assert "2.5/s, burst 4" in text
    assert "not configured here" in text


def test_a_daemon_tells_of_a_refused_key_in_its_heartbeat(deployment, run):
    """The list shows it with the answer of the API."""
    deployment.cloud.chart_img.faults.add(Fault(answer="forbidden"))
    run_id, (step_id,) = deployment.put_run(charts=1)
    accounts = json.dumps(ACCOUNTS[:1])
    with deployment.daemon(module=FLEET, CHART_IMG_ACCOUNTS_JSON=accounts).started() as daemon:
        deployment.publish_step(run_id, step_id)
        daemon.wait_for_event("chart_api_key_refused", timeout_seconds=60)
        daemon.wait_until(lambda: listed(run)["main"]["refusedBy"], "a heartbeat", 60)
        (refusal,) = listed(run)["main"]["refusedBy"]
        assert refusal["reason"].startswith("its key is refused (403 ")
        assert refusal["owner"] == daemon.named("claim_attempt")[0]["owner"]


def test_the_list_says_which_daemons_found_a_key_refused(deployment, run):
    """Each daemon tells it in its heartbeat, so that an operator need not read the log."""
    heartbeat = {"owner": "host:1:boot", "refusedAccounts": {"spare": "its key is refused (403 no)"}}
    reference = deployment.documents.document("chart_export_workers/host:1:boot")
    reference.set({**heartbeat, "expiresAt": datetime.now(UTC) + timedelta(minutes=2)})
    found = listed(run)
    reason = {"owner": "host:1:boot", "reason": "its key is refused (403 no)"}
    assert (found["main"]["refusedBy"], found["spare"]["refusedBy"]) == ([], [reason])
    assert "by 1 daemon: its key is refused (403 no)" in run().stdout
    reference.delete()


def test_a_count_that_can_not_be_read_leaves_no_call(deployment, run):
    """It counts as used up for the workers, so the list says the same."""
    usage(deployment, "main").set({"windowStart": today(), "usageToday": "many"})
    assert (listed(run)["main"]["usageToday"], listed(run)["main"]["left"]) == (None, 0)


def test_without_accounts_the_list_is_that_of_the_documents(deployment):
    """An operator needs no keys to see the quota and to change it."""
    usage(deployment, "main").set({"windowStart": today(), "usageToday": 3})
    settings = deployment.settings(CHART_IMG_ACCOUNTS_JSON=None)
    done = run_command("accounts", "--output", "json", environment=settings)
    (found,) = json.loads(done.stdout)
    assert (found["id"], found["usageToday"], found["dailyLimit"], found["left"]) == ("main", 3, None, None)
    assert run_command("accounts", "limit", "main", "9", environment=settings).returncode == 0
    assert usage(deployment, "main").get().get("dailyLimit") == 9


def test_a_new_limit_changes_only_the_limit_and_is_logged(deployment, run):
    """`limit` keeps what was counted, and its audit line says who changed what."""
    usage(deployment, "main").set({"windowStart": today(), "usageToday": 12})
    done = run("limit", "main", "100", LOG_FORMAT="json")
    assert (done.returncode, done.stdout) == (
        0,
        "changed: account main may make 100 calls a day (before: 50, from the settings)\n",
    )
    (line,) = [json.loads(text) for text in done.stderr.splitlines()]
    assert (line["event"], line["command"], line["dailyLimit"]) == ("operator_action", "accounts limit", 100)
    assert "@" in line["operator"]
    stored = usage(deployment, "main").get().to_dict()
    assert stored == {"windowStart": today(), "usageToday": 12, "dailyLimit": 100}
    assert run("limit", "main", "100").stdout == "unchanged: account main may make 100 calls a day\n"


def test_a_limit_that_a_worker_overtakes_is_written_again(deployment, run):
    """A commit that is refused as stale, and one without an answer, are repeated after a new read."""
    usage(deployment, "main").set({"windowStart": today(), "usageToday": 12})
    faults = deployment.cloud.firestore.faults
    faults.add(Fault(method="Commit", match=USAGE, contend=True, times=1))
    faults.add(Fault(method="Commit", match=USAGE, error="UNAVAILABLE", after_effect=True, skip=1, times=1))
    done = run("limit", "main", "60")
    assert done.stdout.startswith("changed: account main may make 60 calls a day (before: 50")
    assert usage(deployment, "main").get().to_dict()["dailyLimit"] == 60


@pytest.mark.parametrize("arguments", [("limit", "mian", "5"), ("test", "mian", "--yes")])
def test_an_unknown_account_is_refused_with_the_known_ones(deployment, run, arguments):
    """A misspelt id gets no document and no call."""
    done = run(*arguments)
    assert done.returncode == 2
    assert "main, spare; got 'mian'" in " ".join(done.stderr.replace("│", " ").split())
    assert not usage(deployment, "mian").get().exists
    assert deployment.cloud.chart_img.requests == []


@pytest.mark.parametrize("number", ["-1", "many", "1.5"])
def test_a_limit_is_a_whole_number(run, number):
    """Other limits are refused."""
    assert run("limit", "main", "--", number).returncode == 2


def test_a_trial_makes_one_counted_call(deployment, run):
    """`test` says what it costs, makes one call with this account, counts it and logs it."""
    done = run("test", "spare", "--yes")
    assert (done.returncode, done.stdout) == (0, "account spare: a chart\n")
    assert "uses one of the 44 calls that are left" in done.stderr
    assert "operator_action" in done.stderr
    assert len(deployment.cloud.chart_img.requests) == 1
    assert usage(deployment, "spare").get().get("usageToday") == 1


def test_a_trial_without_a_terminal_needs_yes(deployment, run):
    """Without a terminal and without `--yes` no call is made."""
    done = run("test", "main")
    assert done.returncode == 2
    assert "--yes" in done.stderr
    assert deployment.cloud.chart_img.requests == []


def test_a_trial_with_nothing_left_makes_no_call(deployment, run):
    """A used-up account is not called."""
    usage(deployment, "main").set({"windowStart": today(), "usageToday": 50})
    done = run("test", "main", "--yes")
    assert done.returncode == 1
    assert "has no call left until" in done.stderr
    assert deployment.cloud.chart_img.requests == []


def test_a_refused_key_is_shown(deployment, run):
    """The answer to the call is shown, with exit code 1."""
    deployment.cloud.chart_img.faults.add(Fault(answer="forbidden"))
    done = run("test", "main", "--yes")
    assert done.returncode == 1
    assert done.stdout.startswith("account main: 403 ")


@pytest.mark.official
def test_a_limit_and_a_trial_on_the_official_emulator(official_deployment):
    """The guarded writes are those of Firestore."""
    deployment, run = official_deployment, commands_of(official_deployment)
    usage(deployment, "spare").set({"windowStart": today(), "usageToday": 12})
    assert run("limit", "spare", "20").returncode == 0
    assert run("test", "spare", "--yes").stdout == "account spare: a chart\n"
    spare = listed(run)["spare"]
    assert (spare["usageToday"], spare["dailyLimit"], spare["left"], spare["limitFrom"]) == (
        13,
        20,
        7,
        "document",
    )
