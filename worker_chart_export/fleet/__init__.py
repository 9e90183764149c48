"""What all daemons of one database share: the pause by an operator, and a heartbeat of each daemon."""

from __future__ import annotations
