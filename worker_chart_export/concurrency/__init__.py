"""Building blocks for threads: cancel scopes, the combining queue, single flight, a thread cache."""

from __future__ import annotations
