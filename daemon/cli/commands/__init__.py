"""The commands of `worker-chart-export`, one module each."""

from __future__ import annotations
