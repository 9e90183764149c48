"""Check Pub/Sub: the subscription's settings, the permission to consume it, and its topics.

Sources of the verdicts: https://cloud.google.com/pubsub/docs/subscription-retry-policy,
.../handling-failures, .../exactly-once-delivery, .../ordering.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from google.api_core.exceptions import PermissionDenied

from daemon.cli.doctor.results import Fixes, backend_failure, failure, not_checkable, ok, warning
from daemon.reports.wording import plural
from daemon.subscription.admin import (
    DELETED_TOPIC,
    TopicFacts,
    probe_subscription,
    read_subscription,
    read_topic,
)
from worker_chart_export.errors import BackendRefused, BackendUnavailable

if TYPE_CHECKING:
    from daemon.cli.doctor.results import CheckResult
    from daemon.settings import PubsubSettings
    from daemon.subscription.admin import SubscriptionFacts

SUBSCRIPTION = "pubsub.subscription"
CONSUME = "pubsub.consume"
ACK_DEADLINE = "pubsub.ack-deadline"
RETRY_POLICY = "pubsub.retry-policy"
DEAD_LETTER = "pubsub.dead-letter"
DEAD_LETTER_TOPIC = "pubsub.dead-letter-topic"
DEAD_LETTER_RIGHTS = "pubsub.dead-letter-rights"
ORDERING = "pubsub.ordering"
EXACTLY_ONCE = "pubsub.exactly-once"
EXPIRATION = "pubsub.expiration"
QUARANTINE = "pubsub.quarantine-topic"
#: The checks that need the subscription's settings.
OF_SUBSCRIPTION = (SUBSCRIPTION, ACK_DEADLINE, RETRY_POLICY, DEAD_LETTER, ORDERING, EXACTLY_ONCE, EXPIRATION)

#: A process that stalls for this long must not lose the messages that it just received.
MIN_ACK_DEADLINE_SECONDS = 30
MIN_BACKOFF_SECONDS = 5.0
#: Deferred messages and rolling restarts count as deliveries.
MIN_DELIVERY_ATTEMPTS = 20
SECONDS_A_DAY = 86400


def check_subscription(settings: PubsubSettings, emulator: str | None) -> list[CheckResult]:
    """Read the subscription's settings and judge them, and look at its dead-letter topic."""
    path = settings.subscription_path
    try:
        facts = read_subscription(path)
    except (BackendRefused, BackendUnavailable) as error:
        if isinstance(error.__cause__, PermissionDenied):
            why = "this account may not read the subscription's settings"
            fix = f"{_grant(path)}roles/pubsub.viewer   (the daemon itself does not need it)"
            return [not_checkable(check, why, fix) for check in OF_SUBSCRIPTION]
        first, *others = OF_SUBSCRIPTION
        failed = backend_failure(first, error, _fixes(path, emulator))
        return [failed, *(not_checkable(check, f"{first} failed") for check in others)]
    results = subscription_verdicts(facts)
    if facts.dead_letter is None:
        return results
    try:
        topic = dead_letter_topic_verdict(_topic_facts(facts.dead_letter.topic))
    except (BackendRefused, BackendUnavailable) as error:
        topic = backend_failure(DEAD_LETTER_TOPIC, error, Fixes(emulator=emulator))
    return [*results, topic, dead_letter_rights(facts.dead_letter.topic, path)]


def check_consume(settings: PubsubSettings, emulator: str | None) -> list[CheckResult]:
    """Try the permission that the stream needs, without taking a message."""
    path = settings.subscription_path
    try:
        probe_subscription(path)
    except (BackendRefused, BackendUnavailable) as error:
        return [backend_failure(CONSUME, error, _fixes(path, emulator))]
    if emulator:
        return [not_checkable(CONSUME, "the call succeeded, but an emulator checks no permissions")]
    return [ok(CONSUME, "this account may consume")]


def check_quarantine(settings: PubsubSettings, emulator: str | None) -> list[CheckResult]:
    """Look at the topic for rejected messages."""
    topic = settings.quarantine_topic_path
    if topic is None:
        summary = "QUARANTINE_TOPIC is not set: rejected messages are only logged, or dead-lettered"
        return [warning(QUARANTINE, summary, "set QUARANTINE_TOPIC to a topic id or projects/P/topics/T")]
    try:
        return [quarantine_verdict(_topic_facts(topic))]
    except (BackendRefused, BackendUnavailable) as error:
        return [backend_failure(QUARANTINE, error, Fixes(emulator=emulator))]


def _topic_facts(topic: str) -> TopicFacts:
    """Read the topic, as far as this account may. In a foreign project it often may read nothing."""
    try:
        return read_topic(topic)
    except BackendRefused as error:
        if isinstance(error.__cause__, PermissionDenied):
            return TopicFacts(path=topic, exists=None)
        raise


def _fixes(path: str, emulator: str | None) -> Fixes:
    return Fixes(
        missing="correct PUBSUB_SUBSCRIPTION or GOOGLE_CLOUD_PROJECT, or: "
        f"gcloud pubsub subscriptions create {path} --topic=TOPIC --ack-deadline=60 "
        "--min-retry-delay=10s --max-retry-delay=600s --expiration-period=never",
        forbidden=f"{_grant(path)}roles/pubsub.subscriber",
        emulator=emulator,
    )


def _grant(path: str) -> str:
    return f"gcloud pubsub subscriptions add-iam-policy-binding {path} --member=ACCOUNT --role="


def subscription_verdicts(facts: SubscriptionFacts) -> list[CheckResult]:
    """Judge the subscription's settings, in the order of `OF_SUBSCRIPTION`. Pure."""
    judges = (_subscription, _ack_deadline, _retry_policy, _dead_letter)
    return [judge(facts) for judge in (*judges, _ordering, _exactly_once, _expiration)]


def _update(facts: SubscriptionFacts, flags: str) -> str:
    return f"gcloud pubsub subscriptions update {facts.path} {flags}"


def _subscription(facts: SubscriptionFacts) -> CheckResult:
    if facts.topic == DELETED_TOPIC:
        fix = f"delete {facts.path} and create it again on a topic"
        return failure(SUBSCRIPTION, "its topic was deleted: no more messages will arrive", fix)
    if facts.is_detached:
        fix = f"delete {facts.path} and create it again"
        return failure(SUBSCRIPTION, "it is detached from its topic", fix)
    if facts.delivers_elsewhere:
        summary = "it pushes or exports its messages: they can't be pulled"
        return failure(SUBSCRIPTION, summary, _update(facts, "--push-endpoint=''"))
    project, _, name = facts.path.partition("/subscriptions/")
    topic = facts.topic.removeprefix(f"{project}/")
    filtered = f", only messages where {facts.filter}" if facts.filter else ""
    return ok(SUBSCRIPTION, f"{name} on {topic} of {project}{filtered}")


def _ack_deadline(facts: SubscriptionFacts) -> CheckResult:
    seconds = facts.ack_deadline_seconds
    if seconds >= MIN_ACK_DEADLINE_SECONDS:
        return ok(ACK_DEADLINE, f"{seconds} s")
    summary = f"{seconds} s: if the process stalls for this long, messages are delivered twice"
    return warning(ACK_DEADLINE, summary, _update(facts, "--ack-deadline=60"))


def _retry_policy(facts: SubscriptionFacts) -> CheckResult:
    fix = _update(facts, "--min-retry-delay=10s --max-retry-delay=600s")
    if facts.retry is None:
        return warning(RETRY_POLICY, "none: nacked messages return at once, in a hot loop", fix)
    span = f"{facts.retry.minimum_seconds:g} s to {facts.retry.maximum_seconds:g} s"
    if facts.retry.minimum_seconds < MIN_BACKOFF_SECONDS:
        return warning(RETRY_POLICY, f"{span}: nacked messages return almost at once", fix)
    return ok(RETRY_POLICY, span)


def _dead_letter(facts: SubscriptionFacts) -> CheckResult:
    if facts.dead_letter is None:
        return ok(DEAD_LETTER, "no policy: messages are retried until they expire")
    attempts, topic = facts.dead_letter.max_delivery_attempts, facts.dead_letter.topic
    if attempts >= MIN_DELIVERY_ATTEMPTS:
        return ok(DEAD_LETTER, f"after {attempts} deliveries to {topic}")
    summary = (
        f"after {attempts} deliveries: waiting steps and restarts use deliveries up, "
        "so messages of healthy steps would be lost"
    )
    flags = f"--dead-letter-topic={topic} --max-delivery-attempts={MIN_DELIVERY_ATTEMPTS}"
    return failure(DEAD_LETTER, summary, _update(facts, flags))


def _ordering(facts: SubscriptionFacts) -> CheckResult:
    if not facts.is_ordered:
        return ok(ORDERING, "off")
    summary = "on: a message that waits blocks all others with its key, and they are redelivered with it"
    fix = f"can't be changed: create a subscription without --enable-message-ordering next to {facts.path}"
    return warning(ORDERING, summary, fix)


def _exactly_once(facts: SubscriptionFacts) -> CheckResult:
    if not facts.is_exactly_once:
        return ok(EXACTLY_ONCE, "off")
    summary = "on: slower, and not needed, because the claim in Firestore already prevents duplicate work"
    return warning(EXACTLY_ONCE, summary, _update(facts, "--no-enable-exactly-once-delivery"))


def _expiration(facts: SubscriptionFacts) -> CheckResult:
    if facts.expires_after_seconds is None:
        return not_checkable(EXPIRATION, "Pub/Sub did not send it; emulators never do")
    if facts.expires_after_seconds == math.inf:
        return ok(EXPIRATION, "never")
    days = facts.expires_after_seconds / SECONDS_A_DAY
    summary = f"deleted with its messages after {days:g} days without a daemon"
    return warning(EXPIRATION, summary, _update(facts, "--expiration-period=never"))


def dead_letter_topic_verdict(topic: TopicFacts) -> CheckResult:
    """Judge whether dead letters are kept, as far as this account may see. Pure."""
    if topic.exists is None or (topic.exists and topic.subscriptions is None):
        why = f"this account may not look at {topic.path}"
        return not_checkable(DEAD_LETTER_TOPIC, why, _viewer(topic.path))
    if not topic.exists:
        create = f"gcloud pubsub topics create {topic.path}"
        return failure(DEAD_LETTER_TOPIC, f"{topic.path} does not exist: dead letters are lost", create)
    if not topic.subscriptions:
        create = f"gcloud pubsub subscriptions create DEAD_LETTERS --topic={topic.path}"
        return failure(DEAD_LETTER_TOPIC, f"{topic.path} has no subscription: dead letters are lost", create)
    return ok(DEAD_LETTER_TOPIC, f"{topic.path}, {plural(topic.subscriptions, 'subscription')}")


def dead_letter_rights(topic: str, subscription: str) -> CheckResult:
    """Return the permissions that Pub/Sub itself needs to move dead letters. Only Pub/Sub can try them."""
    return not_checkable(
        DEAD_LETTER_RIGHTS,
        "the permissions of Pub/Sub's own service agent",
        "service-PROJECT_NUMBER@gcp-sa-pubsub.iam.gserviceaccount.com needs roles/pubsub.publisher on "
        f"{topic} and roles/pubsub.subscriber on {subscription}",
    )


def _viewer(topic: str) -> str:
    return f"gcloud pubsub topics add-iam-policy-binding {topic} --member=ACCOUNT --role=roles/pubsub.viewer"


def quarantine_verdict(topic: TopicFacts) -> CheckResult:
    """Judge whether rejected messages can be published to the topic. Pure."""
    if topic.exists is False:
        create = f"gcloud pubsub topics create {topic.path}"
        return failure(QUARANTINE, f"{topic.path} does not exist", create)
    if topic.may_publish is False:
        role = "--member=ACCOUNT --role=roles/pubsub.publisher"
        fix = f"gcloud pubsub topics add-iam-policy-binding {topic.path} {role}"
        return failure(QUARANTINE, f"this account may not publish to {topic.path}", fix)
    if topic.exists is None and topic.may_publish is None:
        why = f"this account may not look at {topic.path}"
        return not_checkable(QUARANTINE, why, _viewer(topic.path))
    if topic.subscriptions == 0:
        create = f"gcloud pubsub subscriptions create QUARANTINE --topic={topic.path}"
        return warning(QUARANTINE, f"{topic.path} has no subscription: published messages are lost", create)
    permission = "" if topic.may_publish else "; permission to publish not checkable here"
    return ok(QUARANTINE, f"{topic.path}{permission}")
