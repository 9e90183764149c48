"""The person's command, `worker-chart-export`; one file for each sub-command."""

from __future__ import annotations
