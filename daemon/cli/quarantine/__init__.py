"""What the commands `quarantine list | show | replay | drop` share."""

from __future__ import annotations
