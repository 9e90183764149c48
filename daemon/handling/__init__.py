"""From a message to its disposition."""

from __future__ import annotations
