"""Checked input: candles, and the options of a Chart-IMG request."""

from __future__ import annotations
