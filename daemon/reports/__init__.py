"""Reports of runs and steps: facts and plain text that the commands and the live page share."""

from __future__ import annotations
