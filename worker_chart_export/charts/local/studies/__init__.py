"""Studies: indicator formulas and the plots they make."""

from __future__ import annotations
