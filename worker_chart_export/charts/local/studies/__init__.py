"""The formulas of studies, and their plots."""

from __future__ import annotations
