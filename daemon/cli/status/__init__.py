"""What the command `status` shows: a run's steps, who works them, what became of them."""

from __future__ import annotations
