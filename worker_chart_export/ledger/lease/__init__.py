"""Leases: which worker holds a RUNNING step, and until when."""

from __future__ import annotations
