"""HTTP connections that a cancel scope can end."""

from __future__ import annotations
