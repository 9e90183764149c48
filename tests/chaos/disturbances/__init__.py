"""What a storm does to daemons, backends, the subscription and runs, each with its name in the figures."""

from __future__ import annotations
