"""The settings, read from environment variables and validated."""

from __future__ import annotations
