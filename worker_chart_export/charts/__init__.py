"""The ways to come by a chart: Chart-IMG, fixtures, or drawn here."""

from __future__ import annotations
