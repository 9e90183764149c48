"""Group commit: all changes that this process makes to one run share one commit."""

from __future__ import annotations
