"""The chart providers: Chart-IMG, fixture files, and the local renderer."""

from __future__ import annotations
