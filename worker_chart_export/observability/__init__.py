"""Log events, metrics and observers."""

from __future__ import annotations
