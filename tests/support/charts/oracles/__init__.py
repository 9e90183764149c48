"""Every study in plain Python, written from its published definition: no NumPy, no code of the renderer.

An oracle takes the bars and all inputs, and returns its plots by Chart-IMG's keys. None is a missing value.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pkgutil import iter_modules


@dataclass(frozen=True, slots=True, kw_only=True)
class Bars:
    """The columns of a candle file as lists."""

    date: list
    open: list
    high: list
    low: list
    close: list
    volume: list

    def price(self, source):
        """Return a price per bar: `open` ... `close`, `hl2`, `hlc3`, `ohlc4`."""
        means = {"hl2": "high low", "hlc3": "high low close", "ohlc4": "open high low close"}
        fields = [getattr(self, field) for field in means.get(source, source).split()]
        return [sum(values) / len(values) for values in zip(*fields, strict=True)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Oracle:
    """The oracle of one study, and the inputs it is compared with: defaults and the variants."""

    compute: object
    variants: tuple


ORACLES = {}


def oracle(name, *variants):
    """Add an oracle; `variants` are further inputs to compare with, beside the defaults."""

    def register(compute):
        ORACLES[name] = Oracle(compute=compute, variants=({}, *variants))
        return compute

    return register


for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
