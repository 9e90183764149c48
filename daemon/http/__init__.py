"""The HTTP server of the daemon: probes, metrics, the live page."""

from __future__ import annotations
