"""The command line `worker-chart-export`."""

from __future__ import annotations
