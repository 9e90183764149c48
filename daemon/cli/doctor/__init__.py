"""The checks of the command `doctor`: one module for each backend. Pure functions judge what was found."""

from __future__ import annotations
