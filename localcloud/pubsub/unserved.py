"""What the embedded Pub/Sub does not serve, and what to use instead."""

from __future__ import annotations

UNSERVED: dict[str, str] = {
    "SchemaService": "check the messages in the publisher, or use a real project",
    "IAMPolicy": "the embedded cloud has no permissions, every caller may do everything",
}
