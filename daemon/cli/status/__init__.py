"""The report of the command `status`: a run, its steps, their leases and their charts."""

from __future__ import annotations
