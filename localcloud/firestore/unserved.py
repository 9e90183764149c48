"""What the embedded Firestore does not serve, and what to use instead."""

from __future__ import annotations

UNSERVED: dict[str, str] = {}
