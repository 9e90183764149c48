"""What a subscription's settings mean for the daemon. Pure.

Sources: https://cloud.google.com/pubsub/docs/subscription-retry-policy, .../handling-failures,
.../exactly-once-delivery, .../ordering.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from daemon.cli.doctor.results import failure, not_checkable, ok, warning

if TYPE_CHECKING:
    from daemon.cli.doctor.results import CheckResult
    from daemon.subscription.admin import SubscriptionFacts, TopicFacts

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
#: What depends on reading the subscription.
OF_SUBSCRIPTION = (SUBSCRIPTION, ACK_DEADLINE, RETRY_POLICY, DEAD_LETTER, ORDERING, EXACTLY_ONCE, EXPIRATION)

#: A process that stalls for so long must not lose what it was just given.
MIN_ACK_DEADLINE_SECONDS = 30
MIN_BACKOFF_SECONDS = 5.0
#: Deferrals and rolling restarts count as deliveries.
MIN_DELIVERY_ATTEMPTS = 20
DELETED_TOPIC = "_deleted-topic_"
SECONDS_A_DAY = 86400


def subscription_verdicts(facts: SubscriptionFacts) -> list[CheckResult]:
    """Everything that its settings say."""
    judges = (_subscription, _ack_deadline, _retry_policy, _dead_letter)
    return [judge(facts) for judge in (*judges, _ordering, _exactly_once, _expiration)]


def _update(facts: SubscriptionFacts, flags: str) -> str:
    return f"gcloud pubsub subscriptions update {facts.path} {flags}"


def _subscription(facts: SubscriptionFacts) -> CheckResult:
    if facts.topic == DELETED_TOPIC:
        summary = "its topic was deleted: no message will ever come"
        return failure(SUBSCRIPTION, summary, f"delete {facts.path} and create it anew on a topic")
    if facts.is_detached:
        mend = f"delete {facts.path} and create it anew"
        return failure(SUBSCRIPTION, "it is detached from its topic", mend)
    if facts.delivers_elsewhere:
        summary = "it pushes or exports its messages: they can't be pulled"
        return failure(SUBSCRIPTION, summary, _update(facts, "--push-endpoint=''"))
    filtered = f", only messages where {facts.filter}" if facts.filter else ""
    return ok(SUBSCRIPTION, f"{_place(facts)}{filtered}")


def _place(facts: SubscriptionFacts) -> str:
    """Where it is; the project is said once where the topic has the same."""
    project, _, name = facts.path.partition("/subscriptions/")
    topic = facts.topic.removeprefix(f"{project}/")
    return f"{name} on {topic} of {project}"


def _ack_deadline(facts: SubscriptionFacts) -> CheckResult:
    seconds = facts.ack_deadline_seconds
    if seconds >= MIN_ACK_DEADLINE_SECONDS:
        return ok(ACK_DEADLINE, f"{seconds} s")
    summary = f"{seconds} s: a stall of that length has messages delivered twice"
    return warning(ACK_DEADLINE, summary, _update(facts, "--ack-deadline=60"))


def _retry_policy(facts: SubscriptionFacts) -> CheckResult:
    mend = _update(facts, "--min-retry-delay=10s --max-retry-delay=600s")
    if facts.retry is None:
        return warning(RETRY_POLICY, "none: what is given back comes again at once, in a hot loop", mend)
    span = f"{facts.retry.minimum_seconds:g} s to {facts.retry.maximum_seconds:g} s"
    if facts.retry.minimum_seconds < MIN_BACKOFF_SECONDS:
        summary = f"{span}: what is given back comes again nearly at once"
        return warning(RETRY_POLICY, summary, mend)
    return ok(RETRY_POLICY, span)


def _dead_letter(facts: SubscriptionFacts) -> CheckResult:
    if facts.dead_letter is None:
        return ok(DEAD_LETTER, "no policy: messages are retried for as long as they are kept")
    attempts, topic = facts.dead_letter.max_delivery_attempts, facts.dead_letter.topic
    if attempts >= MIN_DELIVERY_ATTEMPTS:
        return ok(DEAD_LETTER, f"after {attempts} deliveries to {topic}")
    summary = (
        f"after {attempts} deliveries: waiting steps and restarts use deliveries up, "
        "so healthy steps would be lost"
    )
    flags = f"--dead-letter-topic={topic} --max-delivery-attempts={MIN_DELIVERY_ATTEMPTS}"
    return failure(DEAD_LETTER, summary, _update(facts, flags))


def _ordering(facts: SubscriptionFacts) -> CheckResult:
    if not facts.is_ordered:
        return ok(ORDERING, "off")
    summary = "on: one message that waits holds up all that have its key, and redelivers them with it"
    mend = f"can't be changed: create a subscription without --enable-message-ordering beside {facts.path}"
    return warning(ORDERING, summary, mend)


def _exactly_once(facts: SubscriptionFacts) -> CheckResult:
    if not facts.is_exactly_once:
        return ok(EXACTLY_ONCE, "off")
    summary = "on: slower and of no use here, the claim in Firestore keeps steps single"
    return warning(EXACTLY_ONCE, summary, _update(facts, "--no-enable-exactly-once-delivery"))


def _expiration(facts: SubscriptionFacts) -> CheckResult:
    if facts.expires_after_seconds is None:
        return not_checkable(EXPIRATION, "Pub/Sub does not tell; emulators never do")
    if facts.expires_after_seconds == math.inf:
        return ok(EXPIRATION, "never")
    days = facts.expires_after_seconds / SECONDS_A_DAY
    summary = f"deleted with its messages after {days:g} days without a daemon"
    return warning(EXPIRATION, summary, _update(facts, "--expiration-period=never"))


def dead_letter_topic_verdict(topic: TopicFacts) -> CheckResult:
    """Whether dead letters arrive somewhere, as far as this account may see."""
    if topic.exists is None or (topic.exists and topic.subscriptions is None):
        why = f"this account may not look at {topic.path}"
        return not_checkable(DEAD_LETTER_TOPIC, why, _viewer(topic.path))
    if not topic.exists:
        create = f"gcloud pubsub topics create {topic.path}"
        return failure(DEAD_LETTER_TOPIC, f"{topic.path} does not exist: letters are lost", create)
    if not topic.subscriptions:
        create = f"gcloud pubsub subscriptions create DEAD_LETTERS --topic={topic.path}"
        return failure(DEAD_LETTER_TOPIC, f"{topic.path} has no subscription: letters are lost", create)
    plural = "" if topic.subscriptions == 1 else "s"
    return ok(DEAD_LETTER_TOPIC, f"{topic.path}, {topic.subscriptions} subscription{plural}")


def dead_letter_rights(topic: str, subscription: str) -> CheckResult:
    """What Pub/Sub needs to move dead letters, which nobody but it can try."""
    return not_checkable(
        DEAD_LETTER_RIGHTS,
        "whether Pub/Sub's own service agent may move letters there",
        "service-PROJECT_NUMBER@gcp-sa-pubsub.iam.gserviceaccount.com needs roles/pubsub.publisher on "
        f"{topic} and roles/pubsub.subscriber on {subscription}",
    )


def _viewer(topic: str) -> str:
    return f"gcloud pubsub topics add-iam-policy-binding {topic} --member=ACCOUNT --role=roles/pubsub.viewer"


def quarantine_verdict(topic: TopicFacts) -> CheckResult:
    """Whether messages that nobody can work can be published there."""
    if topic.exists is False:
        create = f"gcloud pubsub topics create {topic.path}"
        return failure(QUARANTINE, f"{topic.path} does not exist", create)
    if topic.may_publish is False:
        role = "--member=ACCOUNT --role=roles/pubsub.publisher"
        mend = f"gcloud pubsub topics add-iam-policy-binding {topic.path} {role}"
        return failure(QUARANTINE, f"this account may not publish to {topic.path}", mend)
    if topic.exists is None and topic.may_publish is None:
        why = f"this account may not look at {topic.path}"
        return not_checkable(QUARANTINE, why, _viewer(topic.path))
    if topic.subscriptions == 0:
        create = f"gcloud pubsub subscriptions create QUARANTINE --topic={topic.path}"
        return warning(QUARANTINE, f"{topic.path} has no subscription: what is published is gone", create)
    permission = "" if topic.may_publish else "; permission to publish not checkable here"
    return ok(QUARANTINE, f"{topic.path}{permission}")


def no_quarantine_verdict() -> CheckResult:
    """There is no quarantine topic."""
    summary = "QUARANTINE_TOPIC is not set: messages that nobody can work are only logged, or dead-lettered"
    return warning(QUARANTINE, summary, "set QUARANTINE_TOPIC to a topic id or projects/P/topics/T")
