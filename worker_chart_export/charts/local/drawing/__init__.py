"""Marks of a planned chart, and their pixels in a PNG file."""

from __future__ import annotations
