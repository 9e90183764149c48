"""Publish to Pub/Sub: for the quarantine and for the commands."""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.api_core.exceptions import Aborted, InternalServerError, ServiceUnavailable, TooManyRequests
from google.api_core.retry import Retry, if_exception_type
from google.cloud.pubsub_v1 import PublisherClient
from google.pubsub_v1 import PublisherClient as PublisherApi
from google.pubsub_v1.types import PublishRequest, PubsubMessage

from worker_chart_export.backends.errors import client_errors

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Short, because the quarantine publishes in a handler thread that other messages need.
PUBLISH_TIMEOUT_SECONDS = 5.0
#: The client's own policy would retry for ten minutes.
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

    def publish(
        self, topic: str, data: bytes, attributes: Mapping[str, str], *, ordering_key: str = ""
    ) -> str:
        """Publish a message and return its id.

        Raises:
            GoogleAPICallError: Pub/Sub refuses.
            RetryError: Pub/Sub is unavailable, or does not answer within 5 s.
        """
        # The plain API call: the client's own `publish` batches in the background and takes attributes as
        # keyword arguments, so an attribute named `timeout` or `data` would be lost or refused.
        message = PubsubMessage(data=data, attributes=dict(attributes), ordering_key=ordering_key)
        request = PublishRequest(topic=topic, messages=[message])
        response = PublisherApi.publish(
            self._client, request=request, retry=PUBLISH_RETRY, timeout=PUBLISH_TIMEOUT_SECONDS
        )
        return str(response.message_ids[0])

    def close(self) -> None:
        """Close the connection."""
        self._client.stop()
        self._client.transport.close()
