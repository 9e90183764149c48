"""From a laid-out chart to marks, pixels and a PNG file."""

from __future__ import annotations
