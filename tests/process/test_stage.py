"""`stage` makes everything that a daemon needs, once, and on Google Cloud only when it is asked to."""

from __future__ import annotations

import shlex

import pytest

from tests.support.cloud.resources import new_project
from tests.support.process.commands import run_command

RUN = "20251215-102530_IBM_demo"
EMULATORS = ("PUBSUB_EMULATOR_HOST", "FIRESTORE_EMULATOR_HOST", "STORAGE_EMULATOR_HOST")
#: Nothing must be found: a test that reaches Google Cloud would cost money.
NO_CREDENTIALS = {"GOOGLE_APPLICATION_CREDENTIALS": "/no/such/file"}


def exports(done):
    """Return the variables that the command printed."""
    words = [shlex.split(line) for line in done.stdout.splitlines()]
    assert {first for first, _ in words} == {"export"}
    return dict(assignment.split("=", 1) for _, assignment in words)


def contents(deployment):
    """Return the version of each template and run."""
    return {
        document.reference.path: document.update_time
        for collection in ("chart_templates", "flow_runs")
        for document in deployment.documents.collection(collection).stream()
    }


def check_two_stages(deployment):
    """Run it twice: the second call changes nothing. The daemon takes the settings that it prints."""
    environment = {name: deployment.environment[name] for name in ("GOOGLE_CLOUD_PROJECT", *EMULATORS)}
    first = run_command("stage", environment=environment)
    assert first.returncode == 0, first.stderr
    assert f"made run {RUN}\n" in first.stderr
    assert f"start it with: worker-chart-export publish {RUN}\n" in first.stderr
    made = contents(deployment)
    second = run_command("stage", environment=exports(first))
    assert second.returncode == 0, second.stderr
    assert "made" not in second.stderr
    assert "not changed: " in second.stderr
    assert contents(deployment) == made
    assert exports(second) == exports(first)
    settings = exports(first)
    assert settings.items() >= {**environment, "CHARTS_API_MODE": "local"}.items()
    checked = run_command("daemon", "--check", environment=settings)
    assert checked.returncode == 0, checked.stderr


def test_a_second_stage_changes_nothing(deployment):
    """The first call makes all resources on the embedded cloud, the second none."""
    check_two_stages(deployment)


def test_a_second_stage_changes_nothing_on_the_official_emulators(official_deployment):
    """The same on Google's emulators of Pub/Sub and Firestore."""
    check_two_stages(official_deployment)


def test_it_uses_the_names_of_the_environment(deployment):
    """A subscription that exists keeps its topic, and the messages of new runs arrive there."""
    named = deployment.settings()
    done = run_command("stage", "--new-runs", "--publish", environment=named)
    assert done.returncode == 0, done.stderr
    assert "published 3 messages" in done.stderr
    assert exports(done)["CHARTS_BUCKET"] == named["CHARTS_BUCKET"]
    assert exports(done)["PUBSUB_SUBSCRIPTION"] == named["PUBSUB_SUBSCRIPTION"]
    pulled = deployment.subscriber.pull(subscription=deployment.subscription, max_messages=10, timeout=10)
    assert len(pulled.received_messages) > 0
    again = run_command("stage", "--new-runs", environment=named)
    assert again.stderr.count("made run ") == 3


@pytest.mark.parametrize("missing", [EMULATORS, EMULATORS[2:]])
def test_it_refuses_google_cloud(cloud, missing):
    """Without an emulator for each service nothing is made, and one line says what to do."""
    environment = {name: value for name, value in cloud.environment().items() if name not in missing}
    done = run_command("stage", environment={**environment, **NO_CREDENTIALS})
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {', '.join(missing)}: expected emulators, got nothing.")
    assert "--google-cloud PROJECT" in done.stderr


@pytest.mark.parametrize(
    ("change", "project", "code", "message"),
    [
        ({}, "my-project", 3, "DefaultCredentialsError"),
        (
            {"GOOGLE_CLOUD_PROJECT": "other-one"},
            "my-project",
            2,
            "GOOGLE_CLOUD_PROJECT, other-one, got my-project",
        ),
        ({"CHARTS_BUCKET": ""}, "my-project", 2, "CHARTS_BUCKET: expected gs://<bucket name>; required"),
        (dict.fromkeys(EMULATORS, "localhost:1"), "my-project", 2, "an emulator for each service"),
    ],
)
def test_google_cloud_must_be_named_exactly(change, project, code, message):
    """On Google Cloud the project and the bucket must be named, and credentials be there."""
    environment = {"CHARTS_BUCKET": "gs://my-charts", **NO_CREDENTIALS, **change}
    done = run_command("stage", "--google-cloud", project, environment=environment)
    assert (done.returncode, done.stdout) == (code, "")
    assert message in done.stderr


def test_emulators_that_do_not_answer_are_named():
    """An emulator that is not there is an error of a backend, found at once."""
    environment = dict.fromkeys(EMULATORS, "127.0.0.1:1") | {"GOOGLE_CLOUD_PROJECT": new_project()}
    done = run_command("stage", environment=environment)
    assert done.returncode == 3
    assert done.stderr.splitlines() == [
        f"error: {name}: nothing answers at 127.0.0.1:1" for name in EMULATORS
    ]
