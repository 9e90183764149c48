"""The work on one step, from its claim to its result."""

from __future__ import annotations
