"""The raw protobuf classes behind Google's Pub/Sub types."""

from __future__ import annotations

from typing import Any

from google.pubsub_v1.types import pubsub

from localcloud.grpc_server import raw

Topic: Any = raw(pubsub.Topic)
Subscription: Any = raw(pubsub.Subscription)
PubsubMessage: Any = raw(pubsub.PubsubMessage)
ReceivedMessage: Any = raw(pubsub.ReceivedMessage)
StreamingPullRequest: Any = raw(pubsub.StreamingPullRequest)
StreamingPullResponse: Any = raw(pubsub.StreamingPullResponse)
Snapshot: Any = raw(pubsub.Snapshot)
