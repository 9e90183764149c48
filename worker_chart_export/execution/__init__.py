"""The execution of one step, from claim to finalize."""

from __future__ import annotations
