"""The checks of `doctor`, one module for each subject."""

from __future__ import annotations
