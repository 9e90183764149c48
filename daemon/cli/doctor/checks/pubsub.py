"""Pub/Sub: the subscription, the right to consume it, and the topics that belong to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.api_core.exceptions import PermissionDenied

from daemon.cli.doctor.checks import subscription_verdicts as verdicts
from daemon.cli.doctor.refusals import Mends, refused
from daemon.cli.doctor.results import not_checkable, ok
from daemon.subscription.admin import TopicFacts, probe_subscription, read_subscription, read_topic
from worker_chart_export.errors import BackendRefused, BackendUnavailable

if TYPE_CHECKING:
    from daemon.cli.doctor.results import CheckResult
    from daemon.settings import PubsubSettings
    from daemon.subscription.admin import DeadLetterPolicy


def check_subscription(settings: PubsubSettings, emulator: str | None) -> list[CheckResult]:
    """Read its settings and judge them."""
    path = settings.subscription_path
    first, *others = verdicts.OF_SUBSCRIPTION
    try:
        facts = read_subscription(path)
    except (BackendRefused, BackendUnavailable) as error:
        if isinstance(error.__cause__, PermissionDenied):
            return [not_checkable(check, *_unreadable(path)) for check in verdicts.OF_SUBSCRIPTION]
        rest = [not_checkable(check, f"{first} failed") for check in others]
        return [refused(first, error, _mends(path, emulator)), *rest]
    found = verdicts.subscription_verdicts(facts)
    return found + (_dead_letters(facts.dead_letter, path, emulator) if facts.dead_letter else [])


def _dead_letters(policy: DeadLetterPolicy, path: str, emulator: str | None) -> list[CheckResult]:
    """Look at their topic, whose troubles are none of the subscription."""
    try:
        topic = verdicts.dead_letter_topic_verdict(_look_at(policy.topic))
    except (BackendRefused, BackendUnavailable) as error:
        topic = refused(verdicts.DEAD_LETTER_TOPIC, error, Mends(emulator=emulator))
    return [topic, verdicts.dead_letter_rights(policy.topic, path)]


def _look_at(topic: str) -> TopicFacts:
    """What can be seen of it; nothing of one in a project that this account has no part in."""
    try:
        return read_topic(topic)
    except BackendRefused as error:
        if isinstance(error.__cause__, PermissionDenied):
            return TopicFacts(path=topic, exists=None)
        raise


def check_consume(settings: PubsubSettings, emulator: str | None) -> list[CheckResult]:
    """Try what the stream needs, with a message that nobody has."""
    path = settings.subscription_path
    try:
        probe_subscription(path)
    except (BackendRefused, BackendUnavailable) as error:
        return [refused(verdicts.CONSUME, error, _mends(path, emulator))]
    if emulator:
        return [not_checkable(verdicts.CONSUME, "the call succeeded, but an emulator asks for no permission")]
    return [ok(verdicts.CONSUME, "this account may consume")]


def check_quarantine(settings: PubsubSettings, emulator: str | None) -> list[CheckResult]:
    """Look at the topic for messages that nobody can work."""
    topic = settings.quarantine_topic_path
    if topic is None:
        return [verdicts.no_quarantine_verdict()]
    try:
        return [verdicts.quarantine_verdict(_look_at(topic))]
    except (BackendRefused, BackendUnavailable) as error:
        return [refused(verdicts.QUARANTINE, error, Mends(emulator=emulator))]


def _unreadable(path: str) -> tuple[str, str]:
    mend = f"{_grant(path)}roles/pubsub.viewer   (the daemon itself can do without)"
    return "this account may not read the subscription's settings", mend


def _mends(path: str, emulator: str | None) -> Mends:
    return Mends(
        missing="correct PUBSUB_SUBSCRIPTION or GOOGLE_CLOUD_PROJECT, or: "
        f"gcloud pubsub subscriptions create {path} --topic=TOPIC --ack-deadline=60 "
        "--min-retry-delay=10s --max-retry-delay=600s --expiration-period=never",
        forbidden=f"{_grant(path)}roles/pubsub.subscriber",
        emulator=emulator,
    )


def _grant(path: str) -> str:
    return f"gcloud pubsub subscriptions add-iam-policy-binding {path} --member=ACCOUNT --role="
