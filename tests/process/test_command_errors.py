"""What commands say about backends that don't answer, things that aren't there, and wrong arguments."""

from __future__ import annotations

import json
import time

import pytest

from localcloud.faults import Fault
from tests.support.process.commands import run_command

#: Nothing listens there.
NOWHERE = "127.0.0.1:1"
PROJECT = "project demo-project"


@pytest.fixture
def run_file(deployment, tmp_path):
    """Return the path of a file with a run that is not stored."""
    run_id, _ = deployment.put_run()
    document = deployment.run(run_id) | {"runId": run_id}
    deployment.documents.document(f"flow_runs/{run_id}").delete()
    path = tmp_path / "run.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


@pytest.mark.parametrize("topic", [[], ["--topic", "flow-steps"]])
def test_publish_waits_some_seconds_for_an_absent_pubsub(deployment, topic):
    """`publish` gives up after 5 s and names what it asked."""
    started = time.monotonic()
    settings = deployment.settings(PUBSUB_EMULATOR_HOST=NOWHERE)
    done = run_command("publish", "r1", *topic, environment=settings)
    assert time.monotonic() - started < 20, "5 s of retries and the start of a process"
    assert done.returncode == 3
    assert "error: pubsub is unavailable" in done.stderr
    named = (
        "topic projects/demo-project/topics/flow-steps"
        if topic
        else f"subscription {deployment.subscription}"
    )
    assert f"({named}, run r1, emulator {NOWHERE})" in done.stderr


@pytest.mark.parametrize("arguments", [["status", "r1"], ["templates", "list"]])
def test_an_absent_firestore_is_named(deployment, arguments):
    """An unavailable Firestore is named by project, database and emulator."""
    settings = deployment.settings(FIRESTORE_EMULATOR_HOST=NOWHERE, FIRESTORE_DB="charts")
    done = run_command(*arguments, environment=settings)
    assert done.returncode == 3
    run = "run r1, " if "r1" in arguments else ""
    assert f"({run}{PROJECT}, database charts, emulator {NOWHERE})" in done.stderr


def test_run_local_names_the_absent_firestore(deployment, run_file):
    """`run-local` names the run, the project and the database that it asked."""
    settings = deployment.settings(FIRESTORE_EMULATOR_HOST=NOWHERE)
    done = run_command("run-local", "--flow-run-path", str(run_file), environment=settings)
    assert done.returncode == 3
    run_id = json.loads(run_file.read_text(encoding="utf-8"))["runId"]
    place = f"bucket {deployment.bucket}, {PROJECT}, database (default), emulator {NOWHERE}"
    assert f"(run {run_id}, {place})" in done.stderr


def test_run_local_says_that_a_stored_run_wins_over_the_file(deployment, run_file):
    """The run in Firestore is used if there is one, and a note says so."""
    settings = deployment.settings(CHARTS_API_MODE="local")
    first = run_command("run-local", "--flow-run-path", str(run_file), environment=settings)
    assert "note:" not in first.stderr
    second = run_command("run-local", "--flow-run-path", str(run_file), environment=settings)
    assert "note: the run is stored already and used as it is there, not as in the file" in second.stderr
    assert "status: NOTHING_ELIGIBLE" in second.stdout


def test_a_missing_run_is_named_with_its_database(deployment):
    """`status` names the run, the project and the database in which there is no such run."""
    place = deployment.environment["FIRESTORE_EMULATOR_HOST"]
    for settings, database in (({}, "(default)"), ({"FIRESTORE_DB": "other"}, "other")):
        done = run_command("status", "no-run", environment=deployment.settings(**settings))
        assert done.returncode == 1
        where = f"(run no-run, {PROJECT}, database {database}, emulator {place})"
        assert done.stderr.strip() == f"error: there is no such run {where}"


@pytest.mark.parametrize(
    ("step", "change", "why"),
    [
        ("charts:1d:all", {}, None),
        (None, {}, None),
        ("no-step", {}, "the step is not in its run"),
        ("charts:1d:all", {"steps.`charts:1d:all`.status": "FAILED"}, "the step has already ended"),
        (
            "charts:1d:all",
            {"steps.`charts:1d:all`.stepType": "REPORT"},
            "the step is not a CHART_EXPORT step",
        ),
        (None, {"steps.`charts:1d:all`.status": "PENDING"}, "no step of the run is eligible"),
        (None, {"status": "CANCELLED"}, "the run has ended"),
        (None, {"steps": 7}, "the run can't be read: steps"),
        (None, None, "the run does not exist"),
    ],
)
def test_publish_warns_when_its_message_has_no_effect(deployment, step, change, why):
    """`publish` sends the message and warns when no step would be exported."""
    run_id, (step_id,) = deployment.put_run()
    step = step_id if step == "charts:1d:all" else step
    reference = deployment.documents.document(f"flow_runs/{run_id}")
    if change is None:
        reference.delete()
    elif change:
        reference.update({name.replace("charts:1d:all", step_id): value for name, value in change.items()})
    done = run_command("publish", run_id, *([step] if step else []), environment=deployment.settings())
    assert done.returncode == 0
    assert "Published message" in done.stdout
    assert done.stderr.startswith(f"warning: {why}") if why else done.stderr == ""
    assert why is None or f"run {run_id}" in done.stderr


@pytest.mark.parametrize("emulator", [NOWHERE, None])
def test_publish_needs_no_firestore(deployment, emulator):
    """`publish` says nothing of the run without a Firestore that answers and belongs to the same cloud."""
    settings = deployment.settings(FIRESTORE_EMULATOR_HOST=emulator)
    done = run_command("publish", "no-run", environment=settings)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("method", "asked"), [("GetSubscription", "subscription projects/"), ("Publish", "topic projects/")]
)
def test_a_missing_permission_is_named_with_what_was_asked(deployment, method, asked):
    """`publish` says whether the subscription may not be read, or the topic not be published to."""
    deployment.cloud.pubsub.faults.add(Fault(method=method, error="PERMISSION_DENIED"))
    done = run_command("publish", "r1", environment=deployment.settings())
    assert done.returncode == 3
    assert f"({asked}" in done.stderr


def test_publish_to_a_subscription_whose_topic_was_deleted(deployment):
    """A subscription without a topic is refused in plain words."""
    deployment.publisher.delete_topic(topic=deployment.topic)
    done = run_command("publish", "r1", environment=deployment.settings())
    assert done.returncode == 3
    assert "the topic of the subscription was deleted (subscription projects/" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            ["healthcheck", "--port", "x"],
            "(env var: 'HEALTH_PORT'): expected a valid integer, got 'x'",
        ),
        (["healthcheck", "--host", ""], "--host: expected an address, got nothing"),
        (["emulators", "--pubsub-port", "70000"], "expected less than or equal to 65535, got '70000'"),
        (["emulators", "--project", "Bad Project"], "--project: expected a Google Cloud project id"),
        (["status", "r1", "--output", "xml"], "'xml' is not one of 'text', 'json'"),
        (["templates", "list", "--output", "xml"], "'xml' is not one of 'text', 'json'"),
        (["templates", "render", "a/b", "--output", "x.png"], "expected a readable file, got a/b"),
        (["templates", "render", "x" * 300, "--output", "x.png"], "File name too long"),
        (
            ["templates", "render", "/", "--output", "x.png"],
            "a readable file, got / (Is a directory)",
        ),
        (["run-local", "--flow-run-path", "README.md"], "README.md is not JSON (line 1 column 1)"),
    ],
)
def test_wrong_arguments_are_named_in_plain_words(arguments, text):
    """Wrong arguments are exit code 2, in words of this program and not of its libraries."""
    done = run_command(*arguments, environment={"COLUMNS": "500"})
    assert done.returncode == 2, done.stderr
    assert text in done.stderr
    assert not any(
        word in done.stderr for word in ("Input should", "Value error", "Expecting value", "internal")
    )


def test_an_empty_collection_of_templates_is_said(deployment):
    """`templates list` and `validate` say that there is no template, and where."""
    for command in ("list", "validate"):
        done = run_command("templates", command, environment=deployment.settings(FIRESTORE_DB="empty"))
        assert done.returncode == 0
        assert f"note: no template is stored ({PROJECT}, database empty, " in done.stderr
