"""Check a Chart-IMG request body against the documented table, before anything is paid or drawn.

Each problem is one sentence that begins with the field's path, e.g. `request.studies[0].input.in_0`.
"""

from __future__ import annotations

from difflib import get_close_matches
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from worker_chart_export.charts.catalogue import DrawingEntry, catalogue, read_datetime
from worker_chart_export.errors import shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from worker_chart_export.charts.catalogue import Parameter, StudyEntry

STUDY_KEYS = frozenset({"name", "forceOverlay", "input", "override"})
DRAWING_KEYS = frozenset({"name", "input", "override", "zOrder"})


def problems(request: Mapping[str, Any], path: str = "request") -> Iterator[str]:
    """Yield what is wrong with a request body, in the order of its fields.

    Args:
        request: The request body.
        path: The body's own path, for the sentences.
    """
    table = catalogue()
    for key in request:
        yield from _problem(table.request, key, request[key], path)
    override = request.get("override")
    if isinstance(override, dict):
        yield from _override_problems(override, str(request.get("style", "candle")), f"{path}.override")
    if isinstance(when := request.get("range"), dict):
        yield from _range_problems(when, f"{path}.range")
    for index, study in enumerate(_entries(request, "studies")):
        yield from _entry_problems(study, STUDY_KEYS, table.studies, f"{path}.studies[{index}]")
    for index, drawing in enumerate(_entries(request, "drawings")):
        yield from _entry_problems(drawing, DRAWING_KEYS, table.drawings, f"{path}.drawings[{index}]")


def documented_keys(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return the request body without the undocumented keys of itself and of its studies and drawings.

    A step warns about those, because the API may know more than its documentation.
    """
    known = {key: value for key, value in request.items() if key in catalogue().request}
    for name, keys in (("studies", STUDY_KEYS), ("drawings", DRAWING_KEYS)):
        if entries := _entries(known, name):
            known[name] = [{key: entry[key] for key in entry.keys() & keys} for entry in entries]
    return known


def _problem(known: Mapping[str, Parameter], key: str, value: object, path: str) -> Iterator[str]:
    """Yield the problem of one field, if it has one."""
    if key not in known:
        yield f"{path}.{key}: unknown key, expected one of {', '.join(sorted(known)) or 'none'}"
        return
    try:
        known[key].read(value)
    except ValueError as error:
        yield f"{path}.{key}: expected {error}, got {shown(value)}"


def _override_problems(override: Mapping[str, Any], style: str, path: str) -> Iterator[str]:
    table = catalogue()
    for key, value in override.items():
        yield from _problem(table.override, key, value, path)
    if isinstance(looks := override.get("style"), dict):
        for key, value in looks.items():
            yield from _problem(table.styles.get(style, {}), key, value, f"{path}.style")
    if isinstance(prices := override.get("priceRange"), dict):
        for key, value in prices.items():
            yield from _problem(table.price_range, key, value, f"{path}.priceRange")
        low, high = prices.get("from"), prices.get("to")
        if isinstance(low, int | float) and isinstance(high, int | float) and low >= high:
            yield f"{path}.priceRange: expected a `to` above {shown(low)}, got {shown(high)}"


def _range_problems(when: Mapping[str, Any], path: str) -> Iterator[str]:
    for key in ("from", "to"):
        if read_datetime(when.get(key)) is None:
            yield f"{path}.{key}: expected an ISO 8601 time like 2025-01-31, got {shown(when.get(key))}"
    begin, end = read_datetime(when.get("from")), read_datetime(when.get("to"))
    if begin is not None and end is not None and begin >= end:
        yield f"{path}: expected from a time to a later one, got {shown(when['from'])} to {shown(when['to'])}"
    for key in when.keys() - {"from", "to"}:
        yield f"{path}.{key}: unknown key, expected one of from, to"


def _entries(request: Mapping[str, Any], name: str) -> list[Any]:
    entries = request.get(name)
    return entries if isinstance(entries, list) else []


def _entry_problems(
    entry: Any, keys: frozenset[str], table: Mapping[str, StudyEntry | DrawingEntry], path: str
) -> Iterator[str]:
    """Yield what is wrong with one study or one drawing."""
    name = entry.get("name") if isinstance(entry, dict) else None
    if not isinstance(name, str):
        yield f"{path}: expected an object with a name, got {shown(entry)}"
        return
    for key in entry.keys() - keys:
        yield f"{path}.{key}: unknown key, expected one of {', '.join(sorted(keys))}"
    known = table.get(name)
    if known is None:
        yield f"{path}.name: {shown(name)} is not documented{near_names(name, table)}"
        return
    overlay = entry.get("forceOverlay")
    if overlay is not None and not isinstance(overlay, bool):
        yield f"{path}.forceOverlay: expected true or false, got {shown(overlay)}"
    yield from _part_problems(known.inputs, entry.get("input"), f"{path}.input")
    levels = known.levels if isinstance(known, DrawingEntry) else {}
    yield from _part_problems(known.overrides, entry.get("override"), f"{path}.override", levels)
    # Compared, not hashed: a list has no hash.
    if entry.get("zOrder") not in (None, "top", "bottom"):
        yield f"{path}.zOrder: expected one of top, bottom, got {shown(entry['zOrder'])}"


def near_names(name: str, known: Iterable[str]) -> str:
    """Return a hint with the known names that are like a wrong one, e.g. `; did you mean 'MACD'?`."""
    lower = {one.lower(): one for one in known}
    near = [repr(lower[one]) for one in get_close_matches(name.lower(), lower, n=3)]
    return f"; did you mean {' or '.join(near)}?" if near else ""


def _part_problems(
    known: Mapping[str, Parameter],
    given: object,
    path: str,
    levels: Mapping[str, Mapping[str, Parameter]] = MappingProxyType({}),
) -> Iterator[str]:
    """Yield what is wrong with the `input` or the `override` of a study or a drawing."""
    given = {} if given is None else given
    if not isinstance(given, dict):
        yield f"{path}: expected an object, got {shown(given)}"
        return
    for key, value in given.items():
        if key in levels:
            yield from _part_problems(levels[key], value, f"{path}.{key}")
        else:
            yield from _problem(known, key, value, path)
    for key, parameter in known.items():
        if parameter.required and key not in given:
            yield f"{path}.{key}: missing, expected {parameter.expected}"
