"""Where everything goes: panes, scales, axes, labels. No pixels yet."""

from __future__ import annotations
