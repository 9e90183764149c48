"""A stand-in for the Chart-IMG API."""

from __future__ import annotations

from localcloud.chart_img.server import ChartCall, ChartImgService

__all__ = ["ChartCall", "ChartImgService"]
