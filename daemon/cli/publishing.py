"""Publish the messages that name runs and steps, for the commands."""

from __future__ import annotations

import json
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from daemon.cli.places import asking_for, topic_path
from daemon.settings import PubsubSettings, load_settings
from daemon.subscription.admin import topic_of
from daemon.subscription.publisher import Publisher
from daemon.tracing.publishing import PublisherSpans, note_published
from worker_chart_export.backends.errors import backend_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def target_topic(topic: str | None, *things: str) -> str:
    """Return the full path of the topic to publish to. None: the topic of the subscription.

    Args:
        topic: A topic id or full path.
        *things: What is asked for, for example `run r1`, for the errors.

    Raises:
        BadParameter: It is no topic.
        SettingsError: The project or the subscription is not set.
        BackendUnavailable: Pub/Sub is unavailable.
        BackendRefused: Pub/Sub refuses, or the subscription is missing.
    """
    if topic is not None:
        return topic_path(topic)
    subscription = load_settings(PubsubSettings).subscription_path
    with asking_for(f"subscription {subscription}", *things):
        return topic_of(subscription)


@contextmanager
def step_messages(topic: str) -> Iterator[Callable[[str, str | None], str]]:
    """Open a publisher. Yield a function that publishes a message for a run and perhaps a step.

    The function returns the id of the message, and may be called by any thread. It raises
    `BackendUnavailable` and `BackendRefused`.
    """
    with PublisherSpans(topic) as spans, closing(Publisher()) as publisher:

        def publish(run_id: str, step_id: str | None) -> str:
            body = {"runId": run_id} | ({} if step_id is None else {"stepId": step_id})
            with (
                asking_for(f"topic {topic}", f"run {run_id}"),
                backend_errors("pubsub"),
                spans.message(body) as attributes,
            ):
                message_id = publisher.publish(topic, json.dumps(body).encode(), attributes)
                note_published(message_id)
                return message_id

        yield publish
