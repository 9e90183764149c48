"""The positions of all parts of a chart: panes, scales, axes, legends. No pixels yet."""

from __future__ import annotations
