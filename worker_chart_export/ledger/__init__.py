"""Claim, finalize and release steps, with leases and conditional commits.

Start with `step_ledger`. The pure functions of `decisions` and `intents` decide what may be done. `commit`
writes it, in one commit for all threads that work on the same run. `heartbeats` renews the leases.
"""

from __future__ import annotations
