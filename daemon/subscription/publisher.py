"""Publishing to Pub/Sub: for the quarantine and for the person's `publish` command."""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.api_core.exceptions import (
    Aborted,
    InternalServerError,
    MethodNotImplemented,
    NotFound,
    PermissionDenied,
    ServiceUnavailable,
    TooManyRequests,
)
from google.api_core.retry import Retry, if_exception_type
from google.cloud.pubsub_v1 import PublisherClient
from google.pubsub_v1 import PublisherClient as PublisherApi
from google.pubsub_v1.types import PublishRequest, PubsubMessage

from daemon.subscription.topic_facts import TopicFacts
from worker_chart_export.backends.errors import backend_errors, client_errors

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Short, because whoever publishes a bad message holds a thread that good ones need.
PUBLISH_TIMEOUT_SECONDS = 5.0
LOOK_TIMEOUT_SECONDS = 5.0
#: The client's own policy would go on for ten minutes.
PUBLISH_RETRY = Retry(
    predicate=if_exception_type(ServiceUnavailable, Aborted, InternalServerError, TooManyRequests),
    initial=0.1,
    maximum=2.0,
    timeout=PUBLISH_TIMEOUT_SECONDS,
)


class Publisher:
    """Publishes one message at a time and waits until it is stored. Shared by all threads.

    Raises:
        BackendRefused: There are no credentials.
    """

    def __init__(self) -> None:
        with client_errors("pubsub"):
            self._client = PublisherClient()

    def publish(self, topic: str, data: bytes, attributes: Mapping[str, str]) -> str:
        """Publish and return the message's id.

        Raises:
            GoogleAPICallError: Pub/Sub refuses.
            RetryError: Pub/Sub is away, or does not answer within 5 s.
        """
        # The plain API call: the client's own `publish` batches in the background and takes attributes as
        # keyword arguments, where one named `timeout` or `data` would be lost or refused.
        message = PubsubMessage(data=data, attributes=dict(attributes))
        request = PublishRequest(topic=topic, messages=[message])
        response = PublisherApi.publish(
            self._client, request=request, retry=PUBLISH_RETRY, timeout=PUBLISH_TIMEOUT_SECONDS
        )
        return str(response.message_ids[0])

    def close(self) -> None:
        """Close the connection."""
        self._client.stop()
        self._client.transport.close()


def read_topic(topic: str) -> TopicFacts:
    """What this account can see of a topic; publishes nothing.

    Raises:
        BackendRefused: There are no credentials, or Pub/Sub refuses.
        BackendUnavailable: Pub/Sub is away.
    """
    with client_errors("pubsub"):
        client = PublisherClient()
    with client, backend_errors("pubsub"):
        exists = _exists(client, topic)
        return TopicFacts(
            path=topic,
            exists=exists,
            subscriptions=_subscriptions(client, topic) if exists else None,
            may_publish=None if exists is False else _may_publish(client, topic),
        )


def _exists(client: PublisherClient, topic: str) -> bool | None:
    try:
        client.get_topic(topic=topic, timeout=LOOK_TIMEOUT_SECONDS, retry=None)
    except NotFound:
        return False
    except PermissionDenied:
        return None
    return True


def _subscriptions(client: PublisherClient, topic: str) -> int | None:
    try:
        return len(
            list(client.list_topic_subscriptions(topic=topic, timeout=LOOK_TIMEOUT_SECONDS, retry=None))
        )
    except PermissionDenied:
        return None


def _may_publish(client: PublisherClient, topic: str) -> bool | None:
    """Asked of IAM, which needs no permission itself; None from an emulator, which has no IAM."""
    permission = "pubsub.topics.publish"
    request = {"resource": topic, "permissions": [permission]}
    try:
        answer = client.test_iam_permissions(request=request, timeout=LOOK_TIMEOUT_SECONDS, retry=None)
    except MethodNotImplemented:
        return None
    return permission in answer.permissions
