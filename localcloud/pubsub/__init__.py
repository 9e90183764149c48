"""The embedded Pub/Sub."""

from __future__ import annotations

from localcloud.pubsub.service import PubsubService

__all__ = ["PubsubService"]
