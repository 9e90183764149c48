"""What the local renderer reads: candles, and the options of a Chart-IMG request."""

from __future__ import annotations
