"""What several commands print in the same way."""

from __future__ import annotations

import json
from enum import StrEnum


class OutputFormat(StrEnum):
    """How a command prints its results."""

    TEXT = "text"
    """Lines for a person; some commands print tables on a terminal."""
    JSON = "json"
    """JSON with stable names."""


def examples(*commands: str) -> str:
    """Return the end of a help text that shows each command on its own line."""
    return "\n\n".join(["Examples:", *(f"worker-chart-export {command}" for command in commands)])


def why_not_json(error: Exception) -> str:
    """Describe the error of reading a file as JSON, without the words of the parser."""
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON (line {error.lineno} column {error.colno})"
    return "not UTF-8 text" if isinstance(error, UnicodeError) else "not JSON that can be read"
