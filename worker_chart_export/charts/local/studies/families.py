"""Import all families of studies, so that each adds its formulas to the register."""

from __future__ import annotations

from worker_chart_export.charts.local.studies import (
    averages,
    channels,
    momentum,
    profile,
    statistics,
    trend,
    volatility,
    volume,
)
from worker_chart_export.charts.local.studies.registry import STUDIES

__all__ = [
    "STUDIES",
    "averages",
    "channels",
    "momentum",
    "profile",
    "statistics",
    "trend",
    "volatility",
    "volume",
]
