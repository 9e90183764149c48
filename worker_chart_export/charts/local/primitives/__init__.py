"""Colours, fonts and shapes, used by both `layout` and `drawing`."""

from __future__ import annotations
