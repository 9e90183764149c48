"""The sources of charts, by the names that the settings have for them."""

from __future__ import annotations

from enum import StrEnum


class ChartsApiMode(StrEnum):
    """Where charts come from."""

    REAL = "real"
    RECORD = "record"
    MOCK = "mock"
    LOCAL = "local"
