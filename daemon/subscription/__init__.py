"""The Pub/Sub subscription: the stream, its callback, settlement, the quarantine."""

from __future__ import annotations
