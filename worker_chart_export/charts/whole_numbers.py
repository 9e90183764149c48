"""Whole numbers that are stored as doubles. Pure.

JavaScript has one type of number, so its Firestore clients may store 800 as the double 800.0. Chart-IMG and
Python code refuse such a value where a whole number belongs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: Up to this size a double stands for one whole number only.
MAX_EXACT_DOUBLE = 2.0**53


def whole_number(value: object) -> int | None:
    """Return an integer, or a double without a fraction, as an integer. Return None for anything else."""
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) <= MAX_EXACT_DOUBLE else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def with_whole_numbers(value: Any) -> Any:
    """Copy a JSON value, with each double without a fraction as an integer, at every depth."""
    if isinstance(value, Mapping):
        return {key: with_whole_numbers(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [with_whole_numbers(entry) for entry in value]
    whole = whole_number(value)
    return value if whole is None else whole
