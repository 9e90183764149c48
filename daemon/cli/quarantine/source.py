"""Find the subscription of the quarantine or of the dead letters, and open it."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer

from daemon.cli.places import asking_for
from daemon.cli.stop_signals import StopSignals
from daemon.settings import PubsubSettings, SettingsError, load_settings
from daemon.settings.emulators import Emulators
from daemon.subscription.admin import SubscriptionFacts, read_subscription
from daemon.subscription.held_messages import HeldMessages
from daemon.subscription.quarantined import QuarantinedMessage
from worker_chart_export.errors import BackendRefused

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import timedelta

#: The wait for the first message, and for each further one.
PUBSUB_WAITS_SECONDS = (2.0, 1.0)
#: An emulator says at once that it has no message.
EMULATOR_WAITS_SECONDS = (0.2, 0.2)
#: A retry policy hides a message that was given back. Longer ones need `--wait`.
MAX_BACKOFF_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The subscription that a command reads.

    Attributes:
        path: Its full path.
        settings: The settings of Pub/Sub.
        first_wait_seconds: How long to wait for the first message.
        next_seconds: How long to wait for each further message.
        is_emulator: An emulator serves the subscription.
    """

    path: str
    settings: PubsubSettings
    first_wait_seconds: float
    next_seconds: float
    is_emulator: bool

    @property
    def worker_subscription(self) -> str:
        """The full path of the subscription that the daemon pulls."""
        return self.settings.subscription_path

    @contextmanager
    def hold(self) -> Iterator[HeldMessages]:
        """Open the subscription; give back at the end what was not removed."""
        with (
            StopSignals() as stop,
            asking_for(f"subscription {self.path}"),
            HeldMessages(
                self.path,
                first_wait_seconds=self.first_wait_seconds,
                next_seconds=self.next_seconds,
                is_exact=self.is_emulator,
                check=stop.check,
            ) as held,
        ):
            yield held


def find_source(*, dead_letter: bool, subscription: str | None, wait: timedelta | None) -> Source:
    """Find the subscription, and warn if reading it has side effects.

    Args:
        dead_letter: The dead letters instead of the quarantine.
        subscription: The id or full path of the subscription; None = as the settings say.
        wait: How long to wait for the next message; None = the default.

    Raises:
        SettingsError: The settings are wrong, or name no quarantine.
        BackendRefused: The subscription is missing, or there is no dead-letter policy.
        BackendUnavailable: Pub/Sub is unavailable.
    """
    chosen = {} if subscription is None else {"quarantine_subscription": subscription}
    settings = load_settings(PubsubSettings, **chosen)
    if dead_letter and subscription is None:
        path = _dead_letter_subscription(settings)
    elif (path_or_none := settings.quarantine_subscription_path) is not None:
        path = path_or_none
    else:
        expected = "expected a subscription id or projects/<project>/subscriptions/<id>, got nothing"
        raise SettingsError([f"QUARANTINE_SUBSCRIPTION: {expected}, and QUARANTINE_TOPIC is not set"])
    with asking_for(f"subscription {path}"):
        facts = _facts(path)
    if facts is not None and facts.dead_letter is not None:
        attempts = facts.dead_letter.max_delivery_attempts
        typer.echo(
            f"warning: {path} has a dead-letter policy: each look at a message counts as one of its "
            f"{attempts} deliveries",
            err=True,
        )
    is_emulator = Emulators.of(os.environ).pubsub is not None
    first, following = EMULATOR_WAITS_SECONDS if is_emulator else PUBSUB_WAITS_SECONDS
    if wait is not None:
        first = following = wait.total_seconds()
    elif backoff := _backoff_seconds(facts):
        first, following = first + backoff, following + backoff
        typer.echo(
            f"note: {path} has a retry policy: messages that were read a moment ago come back later. "
            f"Waiting up to {first:g} s for the next one; --wait changes that",
            err=True,
        )
    return Source(
        path=path,
        settings=settings,
        first_wait_seconds=first,
        next_seconds=following,
        is_emulator=is_emulator,
    )


def each_message(held: HeldMessages) -> Iterator[QuarantinedMessage]:
    """Yield the messages of the subscription, each once."""
    for message in held.messages():
        yield QuarantinedMessage.of(message)


def _dead_letter_subscription(settings: PubsubSettings) -> str:
    path = settings.subscription_path
    with asking_for(f"subscription {path}"):
        facts = read_subscription(path)
        if facts.dead_letter is None:
            raise BackendRefused("pubsub", "the subscription has no dead-letter policy")
    return settings.path_of_subscription(facts.dead_letter.topic.rpartition("/")[2])


def _facts(path: str) -> SubscriptionFacts | None:
    """Return the settings of the subscription; None without the permission to read them."""
    try:
        return read_subscription(path)
    except BackendRefused as error:
        if "PermissionDenied" in str(error):
            return None
        raise


def _backoff_seconds(facts: SubscriptionFacts | None) -> float:
    if facts is None or facts.retry is None:
        return 0.0
    # An earlier look may have been the second delivery, and the wait doubles.
    seconds = min(2 * facts.retry.minimum_seconds, facts.retry.maximum_seconds, MAX_BACKOFF_SECONDS)
    return seconds if seconds >= 1 else 0.0
