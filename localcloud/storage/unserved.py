"""What the embedded Cloud Storage does not serve, and what to use instead."""

from __future__ import annotations

UNSERVED: dict[str, str] = {}
