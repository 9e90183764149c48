"""The checks of `doctor`, one file for each subject."""

from __future__ import annotations
