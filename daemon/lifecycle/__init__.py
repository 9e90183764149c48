"""The life of the process: signals, drain, liveness, systemd."""

from __future__ import annotations
