"""Lists over all runs: of steps, of leases and of runs."""

from __future__ import annotations
