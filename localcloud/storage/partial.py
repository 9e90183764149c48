"""Partial responses: the parameter `fields`."""

from __future__ import annotations

import re
from typing import Any

from localcloud.storage.errors import invalid

#: Field name -> the selection below it; an empty one is the whole field.
Selection = dict[str, "Selection"]
_TOKEN = re.compile(r"[^,()/\s]+|[,()/]")


def parsed(text: str) -> Selection:
    """Read a selection like `nextPageToken,items(name,metadata/run)`.

    Raises:
        StorageError: 400, it is malformed.
    """
    tokens = _TOKEN.findall(text)
    try:
        selection = _fields(tokens, text)
    except RecursionError:
        raise _malformed(text) from None
    if tokens or not selection:
        raise _malformed(text)
    return selection


def selected(value: Any, selection: Selection) -> Any:
    """Return only the selected fields of a JSON value. `*` selects all fields of a level."""
    if isinstance(value, list):
        return [selected(part, selection) for part in value]
    if not selection or not isinstance(value, dict):
        return value
    every = selection.get("*")
    chosen = {name: selection.get(name, every) for name in value}
    return {name: selected(value[name], below) for name, below in chosen.items() if below is not None}


def _fields(tokens: list[str], text: str) -> Selection:
    """Take the fields at the start of `tokens`, up to a closing bracket."""
    selection: Selection = {}
    while True:
        name, below = _field(tokens, text)
        known = selection.get(name)
        has_whole = known == {} or not below
        selection[name] = {} if has_whole else {**(known or {}), **below}
        if not tokens or tokens[0] != ",":
            return selection
        tokens.pop(0)


def _field(tokens: list[str], text: str) -> tuple[str, Selection]:
    name = tokens.pop(0) if tokens else ","
    if name in (",", "(", ")", "/"):
        raise _malformed(text)
    if tokens and tokens[0] == "/":
        tokens.pop(0)
        return name, dict([_field(tokens, text)])
    if not tokens or tokens[0] != "(":
        return name, {}
    tokens.pop(0)
    below = _fields(tokens, text)
    if not tokens or tokens.pop(0) != ")":
        raise _malformed(text)
    return name, below


def _malformed(text: str) -> Exception:
    return invalid(f"Invalid field selection {text}", "fields")
