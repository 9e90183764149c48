"""One file for each command of `worker-chart-export`."""

from __future__ import annotations
