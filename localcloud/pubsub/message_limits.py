"""The limits of a published message. Source: https://cloud.google.com/pubsub/quotas#resource_limits."""

from __future__ import annotations

from typing import Any

from localcloud.grpc_server import invalid

MAX_ATTRIBUTES = 100
MAX_KEY_BYTES = 256
MAX_VALUE_BYTES = 1024
MAX_ORDERING_KEY_BYTES = 1024
MAX_MESSAGE_BYTES = 10_000_000


def check_message(message: Any) -> None:
    """Refuse an empty or too large message, as production does."""
    if not message.data and not message.attributes:
        raise invalid("Some messages in the request are empty: one needs data or an attribute.")
    if len(message.attributes) > MAX_ATTRIBUTES:
        raise invalid(f"A message may have at most {MAX_ATTRIBUTES} attributes.")
    for key, value in message.attributes.items():
        if not key or len(key.encode()) > MAX_KEY_BYTES or len(value.encode()) > MAX_VALUE_BYTES:
            raise invalid("An attribute's key holds 1 to 256 bytes, its value at most 1024.")
    if message.ordering_key and len(message.ordering_key.encode()) > MAX_ORDERING_KEY_BYTES:
        raise invalid(f"An ordering_key has at most {MAX_ORDERING_KEY_BYTES} bytes.")
    if message.ByteSize() > MAX_MESSAGE_BYTES:
        raise invalid(f"A message may have at most {MAX_MESSAGE_BYTES} bytes.")
