"""`worker-chart-export quarantine`: read rejected messages, send them again, remove them."""

from __future__ import annotations

import getpass
import json
import signal
import socket
import subprocess
import sys
from contextlib import suppress

import pytest
from google.api_core.exceptions import DeadlineExceeded
from google.protobuf import duration_pb2
from google.pubsub_v1 import PublisherClient as PublisherApi

from daemon.cli.quarantine.report import line
from daemon.cli.quarantine.source import each_message
from daemon.subscription.held_messages import HeldMessages
from localcloud.faults import Fault
from tests.support.function_calls import counted_calls
from tests.support.process.commands import run_command
from tests.support.process.daemons import ROOT, clean_environment

ME = f"{getpass.getuser()}@{socket.gethostname()}"
BY = {"replayedBy": ME}
#: A third more than are made.
MAX_CALLS_A_MESSAGE = 75
EVENT = "google.cloud.firestore.document.v1.updated"


def quarantine(deployment, *arguments, code=0, **changed):
    """Run the command on the deployment and return it after a check of its exit code."""
    done = run_command("quarantine", *arguments, environment=deployment.settings(**changed))
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


def listed(deployment, *options, **changed):
    """Return the objects of `quarantine list`."""
    return json.loads(quarantine(deployment, "list", "--output", "json", *options, **changed).stdout)


def put(deployment, data=b"", *, reason="not_ready", **attributes):
    """Put a message into the quarantine as the daemon does, and return its id."""
    added = {
        "reason": reason,
        "detail": "what is wrong",
        "sourceMessageId": "77",
        "sourceSubscription": deployment.subscription,
    }
    return deployment.publisher.publish(deployment.quarantine_topic, data, **attributes, **added).result(
        timeout=20
    )


def kinds(run_id, step_id):
    """Return data and attributes of a message of each kind that names a run."""
    subject = f"documents/flow_runs/{run_id}"
    structured = {"specversion": "1.0", "id": "1", "source": "x", "type": EVENT, "subject": subject}
    return [
        (json.dumps({"runId": run_id, "stepId": step_id}).encode(), {}),
        (b"", {"runId": run_id, "stepId": step_id}),
        (b"\x00\xff protobuf", {"ce-type": EVENT, "ce-subject": subject, "ce-id": "1"}),
        (json.dumps(structured).encode(), {"content-type": "application/cloudevents+json"}),
    ]


def arrived(deployment, count):
    """Receive and ack `count` messages of the worker's subscription: data and attributes."""
    found = []
    while len(found) < count:
        answer = deployment.subscriber.pull(subscription=deployment.subscription, max_messages=99, timeout=20)
        found += [(each.message.data, dict(each.message.attributes)) for each in answer.received_messages]
        ack_ids = [each.ack_id for each in answer.received_messages]
        deployment.subscriber.acknowledge(subscription=deployment.subscription, ack_ids=ack_ids)
    return found


def drill(deployment):
    """Let a daemon reject three kinds of message, mend the runs, replay, and see the steps done."""
    runs = [deployment.put_run(status="PENDING", charts=1) for _ in range(3)]
    (plain, (plain_step,)), (attributes, (attributes_step,)), (event, (event_step,)) = runs
    reference = deployment.documents.document(f"flow_runs/{event}")
    steps = reference.get().to_dict()["steps"]
    reference.update({"steps": "none"})
    settings = {"NOT_READY_GRACE_SECONDS": "0"}
    with deployment.daemon(**settings).started() as daemon:
        sent = [
            kinds(plain, plain_step)[0],
            kinds(attributes, attributes_step)[1],
            kinds(event, event_step)[2],
            (b"not json", {}),
        ]
        for data, named in sent:
            deployment.publish(data, **named)
        daemon.wait_for_event("message_settled", count=len(sent), timeout_seconds=60)
        found = {each["reason"] + (each["runId"] or ""): each for each in listed(deployment)}
        assert set(found) == {
            f"not_ready{plain}",
            f"not_ready{attributes}",
            f"run_invalid{event}",
            "body_not_json",
        }
        reference.update({"steps": steps})
        for run, (step,) in runs:
            path = deployment.documents.field_path("steps", step, "status")
            deployment.documents.document(f"flow_runs/{run}").update({path: "READY"})
        done = quarantine(deployment, "replay", "--all", "--reason", "not_ready", "--yes")
        assert done.stdout.count("replayed ") == 2
        quarantine(deployment, "replay", found[f"run_invalid{event}"]["messageId"])
        ended = daemon.wait_for_event("step_completed", count=3, timeout_seconds=60)
        assert {line["replayedBy"] for line in ended} == {ME}
        daemon.wait_for_event("message_settled", count=len(sent) + 3, timeout_seconds=60)
        assert daemon.terminate() == 0
    assert [deployment.step(run, step)["status"] for run, (step,) in runs] == ["SUCCEEDED"] * 3
    (left,) = listed(deployment)
    assert (left["reason"], left["runId"]) == ("body_not_json", None)
    quarantine(deployment, "drop", left["messageId"])
    assert listed(deployment) == []


def test_the_drill_rejected_messages_are_mended_and_replayed(deployment):
    """Messages of a step that was late are found, understood, replayed and worked."""
    drill(deployment)


@pytest.mark.official
def test_the_drill_on_the_official_emulator(official_deployment):
    """The same on Google's emulator."""
    drill(official_deployment)


def test_list_and_show_leave_everything_where_it_is(deployment):
    """After any number of lists each message is still there, at once, with the same id."""
    ids = {put(deployment, b"{}", reason=f"r{number}") for number in range(150)}
    for _ in range(2):
        found = listed(deployment)
        assert sorted(each["messageId"] for each in found) == sorted(ids), "each once"
    (shown,) = json.loads(quarantine(deployment, "show", min(ids), "--output", "json").stdout)
    assert (shown["messageId"], shown["data"], shown["attributes"]) == (min(ids), "{}", {})
    assert len(listed(deployment, "--limit", "7")) == 7
    assert [each["reason"] for each in listed(deployment, "--reason", "r7")] == ["r7"]
    assert len(deployment.quarantined(150)) == 150


def put_many(deployment, count):
    """Put `count` equal messages into the quarantine with one call."""
    data = json.dumps({"runId": "r", "stepId": "s"}).encode()
    added = {"reason": "x", "sourceMessageId": "7", "sourceSubscription": deployment.subscription}
    message = {"data": data, "attributes": added}
    PublisherApi.publish(deployment.publisher, topic=deployment.quarantine_topic, messages=[message] * count)


def test_a_slow_emulator_ends_no_list_early(deployment):
    """The list ends after an empty answer, not after the time in which no answer came."""
    put_many(deployment, 101)  # one more than in one answer
    deployment.cloud.pubsub.faults.add(Fault(method="Pull", delay_seconds=0.6))
    with HeldMessages(deployment.quarantine, first_wait_seconds=0.1, next_seconds=0.1, is_exact=True) as held:
        assert len(list(held.messages())) == 101


def test_what_a_list_of_many_messages_costs(deployment):
    """A pull and a change of deadlines for each answer, and few calls of Python for each message.

    The embedded cloud puts at most 100 messages into an answer.
    """
    put_many(deployment, 900)
    calls = deployment.cloud.pubsub.calls
    before = calls.as_dict()
    with (
        HeldMessages(deployment.quarantine, first_wait_seconds=5, next_seconds=1) as held,
        counted_calls() as counted,
    ):
        lines = [line(each) for each in each_message(held)]
    assert len(set(lines)) == len(lines) == 900
    made = {name: count - before.get(name, 0) for name, count in calls.as_dict().items()}
    assert (made["Pull"], made["ModifyAckDeadline"]) == (10, 9 + 1)
    assert counted.calls < 900 * MAX_CALLS_A_MESSAGE


def test_a_list_that_takes_longer_than_the_ack_deadline_shows_each_message_once(deployment):
    """Held messages are not delivered again within one list."""
    slow = deployment.quarantine + "-slow"
    deployment.subscriber.create_subscription(
        name=slow, topic=deployment.quarantine_topic, ack_deadline_seconds=10
    )
    first = put(deployment)
    found = listed(deployment, "--wait", "11s", QUARANTINE_SUBSCRIPTION=slow)
    assert [each["messageId"] for each in found] == [first]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stopped_list_gives_its_messages_back(deployment, number):
    """A signal ends the list, and other readers receive the messages at once."""
    message_id = put(deployment)
    with subprocess.Popen(
        [sys.executable, "-m", "daemon.cli", "quarantine", "list", "--wait", "60s"],
        env=clean_environment(deployment.settings()),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        next(line for line in process.stdout if message_id in line)
        assert deployment.cloud.pubsub.leased(deployment.quarantine) == 1
        process.send_signal(number)
        assert process.wait(timeout=30) == 128 + number
    assert deployment.cloud.pubsub.leased(deployment.quarantine) == 0
    assert [message.message_id for message in deployment.quarantined(1)] == [message_id]


def test_all_kinds_are_replayed_with_their_own_data_and_attributes(deployment):
    """What arrives again is the original, without what the quarantine added, on the topic it came from.

    Only the operator is added.
    """
    sent = kinds("20251215-102530_IBM_k3f7a", "charts:1d:all")
    ids = [put(deployment, data, **attributes) for data, attributes in sent]
    text = quarantine(deployment, "list").stdout
    assert text.count("20251215-102530_IBM_k3f7a") == len(sent)
    done = quarantine(deployment, "replay", *ids)
    assert [text.split()[1] for text in done.stdout.splitlines()] == ids
    by_content = sorted(((data, {**attributes, **BY}) for data, attributes in sent), key=str)
    assert sorted(arrived(deployment, len(sent)), key=str) == by_content
    assert deployment.cloud.pubsub.unacked(deployment.quarantine) == 0
    assert done.stderr.count("operator_action") == 1


def test_what_can_t_be_published_stays_in_the_quarantine(deployment):
    """If Pub/Sub refuses or is unavailable, or the source is unknown, the message stays."""
    lost = put(deployment, b"{}")
    deployment.cloud.pubsub.faults.add(Fault(method="Publish", match=deployment.topic, error="UNAVAILABLE"))
    done = quarantine(deployment, "replay", lost, code=3)
    assert "replayed" not in done.stdout
    deployment.cloud.pubsub.faults.clear()
    gone = f"projects/{deployment.project}/subscriptions/nobody"
    origin = {"reason": "x", "sourceMessageId": "1", "sourceSubscription": gone}
    unknown = deployment.publisher.publish(deployment.quarantine_topic, b"{}", **origin).result(timeout=20)
    done = quarantine(deployment, "replay", unknown, "12345678", code=1)
    assert f"{unknown}: not sent: the topic of its subscription {gone}" in done.stderr
    assert "12345678: not found" in done.stderr
    assert {each["messageId"] for each in listed(deployment)} == {lost, unknown}
    quarantine(deployment, "replay", unknown, "--topic", deployment.topic)
    assert arrived(deployment, 1) == [(b"{}", BY)]


def test_nothing_is_replayed_without_consent(deployment):
    """Without a terminal and `--yes`, `--all` shows what it would do and exits with 2."""
    message_id = put(deployment, b"{}")
    done = quarantine(deployment, "replay", "--all", code=2)
    assert f"1 message (not_ready): to {deployment.topic}" in done.stderr
    assert "--yes" in done.stderr
    assert [each["messageId"] for each in listed(deployment)] == [message_id]
    assert quarantine(deployment, "replay", "--all", "--reason", "other", "--yes").stdout == ""


@pytest.mark.parametrize(
    ("arguments", "changed", "code", "message"),
    [
        (["replay"], {}, 2, "ids or --all"),
        (["replay", "1", "--all"], {}, 2, "ids or --all"),
        (["replay", "1", "--reason", "x"], {}, 2, "--all"),
        (["list"], {"QUARANTINE_TOPIC": None}, 2, "QUARANTINE_SUBSCRIPTION"),
        (["list"], {"QUARANTINE_SUBSCRIPTION": "a/b"}, 2, "QUARANTINE_SUBSCRIPTION"),
        (["list", "--wait", "soon"], {}, 2, "90s"),
        (["list"], {"QUARANTINE_SUBSCRIPTION": "nobody-made-this"}, 3, "nobody-made-this"),
        (["list", "--dead-letter"], {}, 3, "no dead-letter policy"),
    ],
)
def test_errors_of_arguments_and_places(deployment, arguments, changed, code, message):
    """Wrong arguments and settings are exit 2, a missing subscription is 3."""
    assert message in quarantine(deployment, *arguments, code=code, **changed).stderr


def test_a_message_that_is_rejected_again_is_not_sent_for_ever(deployment):
    """`--all` sends each message once, also if the daemon rejects it at once."""
    with deployment.daemon().started() as daemon:
        deployment.publish(b"not json")
        daemon.wait_for_event("message_rejected")
        done = quarantine(deployment, "replay", "--all", "--yes")
        assert done.stdout.count("replayed") == 1
        daemon.wait_for_event("message_rejected", count=2)
        daemon.wait_for_event("message_settled", count=2)
        assert daemon.terminate() == 0
    assert len(listed(deployment)) == 1


def subscribe(deployment, topic, name, **settings):
    """Create a subscription with settings that the client's own arguments lack."""
    deployment.subscriber.create_subscription(
        request={"name": name, "topic": topic, "ack_deadline_seconds": 10, **settings}
    )


def test_a_retry_policy_delays_no_command_unnoticed(deployment):
    """With a retry policy a message that was listed comes back later; the next command waits for it."""
    wait = duration_pb2.Duration(seconds=3)
    slow = deployment.quarantine + "-slow"
    policy = {"minimum_backoff": wait, "maximum_backoff": wait}
    subscribe(deployment, deployment.quarantine_topic, slow, retry_policy=policy)
    message_id = put(deployment)
    for _ in range(2):
        done = quarantine(deployment, "list", QUARANTINE_SUBSCRIPTION=slow)
        assert message_id in done.stdout
        assert "retry policy" in done.stderr


def test_a_subscription_that_counts_deliveries_is_warned_about(deployment):
    """On a subscription with a dead-letter policy each look counts, and the command says so."""
    name = deployment.quarantine + "-five"
    policy = {"dead_letter_topic": deployment.topic, "max_delivery_attempts": 5}
    subscribe(deployment, deployment.quarantine_topic, name, dead_letter_policy=policy)
    done = quarantine(deployment, "list", "--subscription", name)
    assert "each look at a message counts as one of its 5 deliveries" in done.stderr


def replay_a_dead_letter(deployment):
    """Let a message use up its deliveries, and replay it: it arrives as it was."""
    name = deployment.subscription + "-five"
    policy = {"dead_letter_topic": deployment.quarantine_topic, "max_delivery_attempts": 5}
    subscribe(deployment, deployment.topic, name, dead_letter_policy=policy)
    deployment.publish(b"dead", colour="red")
    assert arrived(deployment, 1) == [(b"dead", {"colour": "red"})]
    deliveries = 0
    while deliveries < policy["max_delivery_attempts"]:
        answer = deployment.subscriber.pull(subscription=name, max_messages=9, timeout=20)
        for each in answer.received_messages:
            deployment.subscriber.modify_ack_deadline(
                subscription=name, ack_ids=[each.ack_id], ack_deadline_seconds=0
            )
            deliveries += 1
    with suppress(DeadlineExceeded):  # the official emulator moves the message at the next pull
        deployment.subscriber.pull(subscription=name, max_messages=1, timeout=1, retry=None)
    found = listed(deployment, "--dead-letter", "--wait", "4s", PUBSUB_SUBSCRIPTION=name)
    assert [(each["reason"], each["sourceSubscription"]) for each in found] == [(None, name)]
    assert found[0]["deliveries"] >= 5
    quarantine(deployment, "replay", "--all", "--yes", "--dead-letter", PUBSUB_SUBSCRIPTION=name)
    assert arrived(deployment, 1) == [(b"dead", {"colour": "red", **BY})]
    assert listed(deployment) == []


def test_dead_letters_are_replayed_without_the_attributes_of_pubsub(deployment):
    """A dead letter goes back to the topic of the subscription that gave it up, as it was."""
    replay_a_dead_letter(deployment)


@pytest.mark.official
def test_dead_letters_of_the_official_emulator(official_deployment):
    """The same on Google's emulator."""
    replay_a_dead_letter(official_deployment)
