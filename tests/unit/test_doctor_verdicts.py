"""What `doctor` makes of the facts, without any backend."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace

import pytest
from google.api_core import exceptions as google_errors
from google.protobuf import duration_pb2
from google.pubsub_v1.types import Subscription
from rich.console import Console

from daemon.cli.doctor import as_json, show
from daemon.doctor.bucket import BucketTrial, bucket_verdicts
from daemon.doctor.chart_call import CallTrial, call_verdict
from daemon.doctor.chart_templates import template_verdicts
from daemon.doctor.emulators import Emulators
from daemon.doctor.findings import Report, Status, failure, not_checkable, ok, warning
from daemon.doctor.firestore import WriteTrial, steps_exemption, write_verdict
from daemon.doctor.refusals import LOG_IN, Mends, refused
from daemon.doctor.subscription_verdicts import (
    dead_letter_verdicts,
    quarantine_verdict,
    subscription_verdicts,
)
from daemon.exit_codes import ExitCode
from daemon.settings import FirestoreSettings
from daemon.subscription_facts import DeadLetterPolicy, RetryPolicy, SubscriptionFacts
from daemon.template_review import review
from daemon.topic_facts import TopicFacts
from tests.unit.chart_img.material import account
from tests.unit.doubles import template_document
from worker_chart_export.charts.chart_img.answers import Meaning
from worker_chart_export.errors import BackendRefused, BackendUnavailable, ObjectRefused
from worker_chart_export.retry import backend_errors

PATH = "projects/p/subscriptions/charts"
TOPIC = "projects/p/topics/steps"
LETTERS = "projects/p/topics/letters"
GOOD = SubscriptionFacts(
    path=PATH,
    topic=TOPIC,
    ack_deadline_seconds=60,
    retry=RetryPolicy(minimum_seconds=10, maximum_seconds=600),
    dead_letter=DeadLetterPolicy(topic=LETTERS, max_delivery_attempts=20),
    expires_after_seconds=math.inf,
)
NO_EMULATORS = Emulators(pubsub=None, firestore=None, storage=None)


def troubles(findings):
    """Check -> finding, of those that are not ok."""
    return {found.check: found for found in findings if found.status is not Status.OK}


def google_error(error):
    """Our error as it comes from a call that ended in Google's."""
    with pytest.raises((BackendRefused, BackendUnavailable)) as raised, backend_errors("pubsub"):
        raise error
    return raised.value


def test_a_subscription_as_it_should_be_has_no_troubles():
    """The values are said all the same."""
    findings = subscription_verdicts(GOOD)
    assert troubles(findings) == {}
    words = " ".join(found.summary for found in findings)
    for value in ("charts on topics/steps of projects/p", "60 s", "10 s to 600 s", "20 deliveries", LETTERS):
        assert value in words


@pytest.mark.parametrize(
    ("change", "check", "status", "words", "mend"),
    [
        ({"topic": "_deleted-topic_"}, "subscription", "failure", "deleted", "create it anew"),
        ({"is_detached": True}, "subscription", "failure", "detached", "create it anew"),
        ({"delivers_elsewhere": True}, "subscription", "failure", "can't be pulled", "--push-endpoint=''"),
        ({"ack_deadline_seconds": 29}, "ack-deadline", "warning", "29 s", "--ack-deadline=60"),
        ({"retry": None}, "retry-policy", "warning", "none", "--min-retry-delay=10s --max-retry-delay=600s"),
        (
            {"retry": RetryPolicy(minimum_seconds=4.9, maximum_seconds=16)},
            "retry-policy",
            "warning",
            "4.9 s to 16 s",
            "--min-retry-delay=10s",
        ),
        (
            {"dead_letter": DeadLetterPolicy(topic=LETTERS, max_delivery_attempts=19)},
            "dead-letter",
            "failure",
            "19 deliveries",
            f"--dead-letter-topic={LETTERS} --max-delivery-attempts=20",
        ),
        ({"is_ordered": True}, "ordering", "warning", "on", "without --enable-message-ordering"),
        ({"is_exactly_once": True}, "exactly-once", "warning", "on", "--no-enable-exactly-once-delivery"),
        ({"expires_after_seconds": 31 * 86400}, "expiration", "warning", "31 days", "never"),
        ({"expires_after_seconds": None}, "expiration", "not_checkable", "not tell", ""),
    ],
)
def test_each_bad_setting_has_its_own_line_and_mend(change, check, status, words, mend):
    """And spoils no other line."""
    found = troubles(subscription_verdicts(replace(GOOD, **change)))
    assert set(found) == {f"pubsub.{check}"}
    (finding,) = found.values()
    assert finding.status == status
    assert words in finding.summary
    assert mend in finding.mend
    assert finding.mend == "" or PATH in finding.mend


def test_a_subscription_may_do_without_a_dead_letter_policy():
    """Then messages are retried, and rejected ones go to the quarantine."""
    assert troubles(subscription_verdicts(replace(GOOD, dead_letter=None))) == {}


def test_the_facts_are_those_that_pubsub_tells():
    """Policies left out are told apart from policies with bounds left out."""
    bare = Subscription(name=PATH, topic=TOPIC, ack_deadline_seconds=10)
    assert SubscriptionFacts.of(bare) == SubscriptionFacts(path=PATH, topic=TOPIC, ack_deadline_seconds=10)
    full = Subscription(
        name=PATH,
        topic=TOPIC,
        ack_deadline_seconds=60,
        retry_policy={"minimum_backoff": duration_pb2.Duration(seconds=0)},
        dead_letter_policy={"dead_letter_topic": LETTERS},
        enable_message_ordering=True,
        enable_exactly_once_delivery=True,
        detached=True,
        push_config={"push_endpoint": "https://example.com"},
        filter='attributes.a = "b"',
        expiration_policy={"ttl": duration_pb2.Duration(seconds=86400)},
    )
    assert SubscriptionFacts.of(full) == SubscriptionFacts(
        path=PATH,
        topic=TOPIC,
        ack_deadline_seconds=60,
        retry=RetryPolicy(minimum_seconds=0, maximum_seconds=600),
        dead_letter=DeadLetterPolicy(topic=LETTERS, max_delivery_attempts=5),
        is_ordered=True,
        is_exactly_once=True,
        is_detached=True,
        delivers_elsewhere=True,
        filter='attributes.a = "b"',
        expires_after_seconds=86400,
    )
    assert SubscriptionFacts.of(Subscription(expiration_policy={})).expires_after_seconds == math.inf


@pytest.mark.parametrize(
    ("exists", "subscriptions", "status", "words"),
    [
        (True, 1, "ok", "1 subscription"),
        (True, 0, "failure", "no subscription"),
        (False, None, "failure", "does not exist"),
        (None, None, "not_checkable", "may not look"),
        (True, None, "not_checkable", "may not look"),
    ],
)
def test_dead_letters_need_a_topic_that_somebody_reads(exists, subscriptions, status, words):
    """Whether Pub/Sub itself may write there, nobody here can see."""
    topic = TopicFacts(path=LETTERS, exists=exists, subscriptions=subscriptions)
    found, rights = dead_letter_verdicts(topic, PATH)
    assert found.status == status
    assert words in found.summary
    assert (rights.check, rights.status) == ("pubsub.dead-letter-rights", "not_checkable")
    assert LETTERS in rights.mend
    assert PATH in rights.mend


@pytest.mark.parametrize(
    ("exists", "may_publish", "status", "words"),
    [
        (True, True, "ok", LETTERS),
        (True, None, "ok", "not checkable"),
        (None, True, "ok", LETTERS),
        (None, None, "not_checkable", "may not look"),
        (False, None, "failure", "does not exist"),
        (True, False, "failure", "may not publish"),
        (None, False, "failure", "may not publish"),
    ],
)
def test_the_quarantine_needs_a_topic_and_the_right_to_publish(exists, may_publish, status, words):
    """As far as either can be seen."""
    found = quarantine_verdict(TopicFacts(path=LETTERS, exists=exists, may_publish=may_publish))
    assert (found.check, found.status) == ("pubsub.quarantine-topic", status)
    assert words in found.summary


@pytest.mark.parametrize(
    ("error", "mend"),
    [
        (google_errors.NotFound("x"), "make it"),
        (google_errors.PermissionDenied("x"), "allow it"),
        (google_errors.Unauthenticated("x"), LOG_IN),
        (google_errors.InvalidArgument("x"), ""),
        (google_errors.ServiceUnavailable("x"), "start the emulator, or correct the variable that says h:1"),
    ],
)
def test_the_mend_follows_the_kind_of_error(error, mend):
    """Missing, forbidden, unknown to the backend, away."""
    mends = Mends(missing="make it", forbidden="allow it", emulator="h:1")
    found = refused("c", google_error(error), mends)
    assert (found.status, found.mend) == ("failure", mend)


def test_what_was_met_at_each_try_is_said():
    """The client's own words are that it tried for ten seconds."""
    error = google_errors.RetryError(
        "Timeout of 10.0s exceeded", cause=google_errors.ServiceUnavailable("no")
    )
    found = refused("c", google_error(error), Mends())
    assert "ServiceUnavailable: no" in found.summary
    assert "googleapis.com" in found.mend


FORBIDDEN = ObjectRefused("Cloud Storage refused it (403).", httpStatus=403)
MISSING = ObjectRefused("Cloud Storage refused it (404).", httpStatus=404)


@pytest.mark.parametrize(
    ("change", "check", "status", "mend"),
    [
        ({"create": MISSING}, "create", "failure", "correct CHARTS_BUCKET"),
        ({"create": FORBIDDEN}, "create", "failure", "roles/storage.objectUser"),
        ({"create": BackendUnavailable("storage", "x")}, "create", "failure", "googleapis.com"),
        ({"replaced": True}, "create", "failure", "preconditions"),
        ({"read": FORBIDDEN}, "read", "failure", "roles/storage.objectUser"),
        ({"differs": True}, "read", "failure", "proxy"),
        ({"listed": FORBIDDEN}, "list", "failure", "roles/storage.objectUser"),
        ({"delete": FORBIDDEN}, "delete", "warning", "gcloud storage rm gs://b/x"),
    ],
)
def test_each_trouble_with_the_bucket_has_its_line(change, check, status, mend):
    """A delete that is forbidden is a warning that names what was left over."""
    found = bucket_verdicts(BucketTrial(uri="gs://b/x", **change), "b", None)
    assert [finding.check for finding in found] == [
        f"storage.{n}" for n in ("create", "read", "list", "delete")
    ]
    trouble = next(iter(troubles(found).values()))
    assert (trouble.check, trouble.status) == (f"storage.{check}", status)
    assert mend in trouble.mend


def test_without_an_object_nothing_else_can_be_seen_of_the_bucket():
    """No line says ok of what was not tried."""
    found = bucket_verdicts(BucketTrial(uri="gs://b/x", create=MISSING), "b", None)
    assert [finding.status for finding in found] == ["failure", *["not_checkable"] * 3]


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({}, "ok", "refused when outdated"),
        ({"error": BackendRefused("firestore", "no")}, "failure", "no"),
        ({"stale_accepted": True}, "failure", "two workers"),
        ({"left_over": BackendRefused("firestore", "no")}, "warning", "s/1 was written but not deleted"),
    ],
)
def test_the_scratch_document_tells_of_conditional_writes(change, status, words):
    """Accepting an outdated precondition is the worst of all."""
    found = write_verdict(WriteTrial(path="s/1", **change), Mends())
    assert found.status == status
    assert words in found.summary


def test_the_exemption_of_steps_is_to_be_looked_at_by_hand():
    """With the command for it, but on an emulator."""
    settings = FirestoreSettings(google_cloud_project="p", firestore_db="d")
    found = steps_exemption(settings, None)
    assert found.status is Status.NOT_CHECKABLE
    for words in ("describe steps", "--collection-group=flow_runs", "--database='d'", "--project=p"):
        assert words in found.mend
    assert steps_exemption(settings, "h:1").mend == ""


def test_templates_are_counted_and_the_bad_ones_named():
    """Invalid = failure with the field; unknown keys, and fitting no account, = warning."""
    good = template_document()
    del good["id"]
    documents = {
        "good": good,
        "odd": {**good, "colour": "red"},
        "bad": {**good, "chartImgSymbolTemplate": "NASDAQ"},
        "large": {**good, "request": {**good["request"], "width": 1920, "height": 1080}},
    }
    accounts = [account(plan="BASIC")]
    found = template_verdicts([review(name, document, accounts) for name, document in documents.items()])
    assert found[0] == ok("templates", "3 of 4 can be used")
    statuses = {finding.check: finding.status for finding in found[1:]}
    assert statuses == {"templates.odd": "warning", "templates.bad": "failure", "templates.large": "warning"}
    words = {finding.check: finding.summary for finding in found}
    assert "chartImgSymbolTemplate" in words["templates.bad"]
    assert "colour" in words["templates.odd"]
    assert "800x600" in words["templates.large"]


@pytest.mark.parametrize("documents", [{}, {"bad": {}}])
def test_without_a_usable_template_no_chart_can_be_made(documents):
    """None at all, or none that is valid."""
    found = template_verdicts([review(name, document) for name, document in documents.items()])
    assert (found[0].check, found[0].status) == ("templates", "failure")
    assert "templates push" in found[0].mend


@pytest.mark.parametrize("meaning", Meaning)
def test_every_answer_of_chart_img_has_its_verdict(meaning):
    """The account that answered is named."""
    found = call_verdict("accounts.call", CallTrial(account_id="main", meaning=meaning, words="403 no"))
    assert "main" in found.summary
    assert (found.status is Status.OK) is (meaning is Meaning.CHART)
    assert bool(found.mend) is (meaning is not Meaning.CHART)


def test_the_exit_code_is_the_worst_of_all():
    """Bad settings before failures; warnings and what can't be seen are none."""
    fine = [ok("a", "x"), warning("b", "x", "y"), not_checkable("c", "x")]
    bad = [*fine, failure("d", "x")]
    assert Report(findings=tuple(fine), settings_are_good=True).exit_code is ExitCode.OK
    assert Report(findings=tuple(fine), settings_are_good=True).result is Status.WARNING
    assert Report(findings=tuple(bad), settings_are_good=True).exit_code is ExitCode.REFUSED
    assert Report(findings=tuple(bad), settings_are_good=False).exit_code is ExitCode.BAD_SETTINGS
    assert Report(findings=tuple(fine[:1]), settings_are_good=True).result is Status.OK


def test_json_is_one_object_with_all_checks():
    """Ids, statuses, summaries, mends, and the result of all."""
    report = Report(findings=(ok("a", "x"), failure("b", "y", "z")), settings_are_good=True)
    assert json.loads(as_json(report, NO_EMULATORS)) == {
        "result": "failure",
        "exitCode": 3,
        "emulators": {},
        "checks": [
            {"id": "a", "status": "ok", "summary": "x", "mend": None},
            {"id": "b", "status": "failure", "summary": "y", "mend": "z"},
        ],
    }


def test_a_terminal_gets_folded_lines_and_whole_commands():
    """At 80 columns too; a command that was cut could not be copied."""
    command = "gcloud pubsub subscriptions update " + "x" * 100 + " --ack-deadline=60"
    findings = (ok("a", "words " * 40), warning("b", "short", command), not_checkable("c", "words " * 40))
    emulators = Emulators(pubsub="h:1", firestore=None, storage=None)
    page = io.StringIO()
    console = Console(file=page, force_terminal=True, width=80, color_system=None, highlight=False)
    show(console, Report(findings=findings, settings_are_good=True), emulators)
    lines = [line.rstrip() for line in page.getvalue().splitlines()]
    assert f"        mend: {command}" in lines
    assert all(len(line) <= 80 for line in lines if command not in line)
    assert sum(line.startswith("ok ") for line in lines) == 1
    assert lines[-1].startswith("1 ok, 1 warning, 0 failures, 1 not checkable here.")
