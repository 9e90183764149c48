"""The inputs of a step: the flow run, the export request, the chart templates."""

from __future__ import annotations
