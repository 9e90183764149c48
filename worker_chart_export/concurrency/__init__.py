"""Threads that work together: cancel scopes, the combining queue, a thread cache."""

from __future__ import annotations
