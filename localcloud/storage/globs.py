"""Match names with the glob patterns of the parameter `matchGlob`."""

from __future__ import annotations

import re

from localcloud.storage.errors import invalid


def compiled(glob: str) -> re.Pattern[str]:
    """Return a regular expression for a glob pattern.

    `*` is any text without a slash, `**` any text, `**/` any number of folders, `?` any character but a
    slash, `[ab]` and `[!ab]` one character, `{a,b}` one of the patterns. A backslash takes the next character
    as it is.

    Raises:
        StorageError: 400, a bracket has no end.
    """
    expression, place, depth = "", 0, 0
    while place < len(glob):
        part = _TOKEN.match(glob, place)
        text = part.group() if part else glob[place]
        place += len(text)
        depth += (text == "{") - (text == "}" and depth > 0)
        expression += _translated(text, is_in_braces=depth > 0 or text == "}")
    if depth:
        raise invalid(f"Invalid glob pattern: '{glob}'.", "matchGlob")
    try:
        return re.compile(expression, re.DOTALL)
    except re.error:
        raise invalid(f"Invalid glob pattern: '{glob}'.", "matchGlob") from None


_TOKEN = re.compile(r"(?:(?<=/)|^)\*\*/|\*+|\\.|\[[!^]?\]?[^\]]*\]", re.DOTALL)
_SIMPLE = {"*": "[^/]*", "?": "[^/]", "**/": "(?:.*/)?"}
_BRACES = {"{": "(?:", ",": "|", "}": ")"}


def _translated(text: str, *, is_in_braces: bool) -> str:
    if text in _SIMPLE:
        return _SIMPLE[text]
    if text.startswith("**"):
        return ".*"
    if is_in_braces and text in _BRACES:
        return _BRACES[text]
    if text.startswith("\\") and len(text) > 1:
        return re.escape(text[1])
    if text.startswith("[") and len(text) > 1:
        inside = text[1:-1]
        negated = inside[:1] in ("!", "^")
        return f"[{'^/' if negated else ''}{_escaped(inside[negated:])}]"
    if text == "[":
        raise invalid("Invalid glob pattern: a bracket has no end.", "matchGlob")
    return re.escape(text)


def _escaped(inside: str) -> str:
    return re.sub(r"([\\\[\]^&~|])", r"\\\1", inside)
