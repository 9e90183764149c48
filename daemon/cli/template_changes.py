"""Compare two template documents field by field. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from worker_chart_export.errors import visible

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_VALUE_CHARS = 100


class Missing(Enum):
    """What stands in place of a value that is not there."""

    MISSING = "missing"


MISSING = Missing.MISSING


class Change(StrEnum):
    """The effect of storing a template, or what it would be."""

    CREATED = "created"
    """There is no template of that id."""
    CHANGED = "changed"
    """Another document is replaced."""
    UNCHANGED = "unchanged"
    """The same document is there. Nothing is written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldChange:
    """A field that differs.

    Attributes:
        path: The field, for example `request.studies[0].input.length`.
        before: The stored value, or `MISSING`.
        after: The new value, or `MISSING`.
    """

    path: str
    before: Any
    after: Any

    def __str__(self) -> str:
        if self.before is MISSING:
            return f"{visible(self.path)}: added {_text(self.after)}"
        if self.after is MISSING:
            return f"{visible(self.path)}: removed {_text(self.before)}"
        return f"{visible(self.path)}: {_text(self.before)} -> {_text(self.after)}"

    def to_dict(self) -> dict[str, Any]:
        """Return the object of the JSON output. A value that is not there is left out."""
        values = {"stored": self.before, "file": self.after}
        return {
            "path": self.path,
            **{name: value for name, value in values.items() if value is not MISSING},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A template file compared with the stored template.

    Attributes:
        template_id: The template.
        change: What `push` does.
        fields: The fields that differ; none if the template is not stored.
    """

    template_id: str
    change: Change
    fields: tuple[FieldChange, ...]

    @property
    def sentence(self) -> str:
        """The change in one sentence."""
        listed = "; ".join(str(one) for one in self.fields)
        return f"template {self.template_id} was {self.change}" + (f": {listed}" if listed else "")

    def text(self) -> str:
        """Return a line with the change, and one for each field that differs."""
        lines = [f"{self.change:<9}  {self.template_id}", *(f"           {one}" for one in self.fields)]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return the object of the JSON output."""
        changes = [one.to_dict() for one in self.fields]
        return {"id": self.template_id, "change": self.change.value, "changes": changes}


def compare(template_id: str, stored: Mapping[str, Any] | None, new: Mapping[str, Any]) -> Comparison:
    """Compare a template with the stored one, which is None when there is none."""
    if stored is None:
        return Comparison(template_id=template_id, change=Change.CREATED, fields=())
    fields = tuple(field_changes(stored, new))
    change = Change.CHANGED if fields else Change.UNCHANGED
    return Comparison(template_id=template_id, change=change, fields=fields)


def field_changes(before: Any, after: Any, path: str = "") -> Iterator[FieldChange]:
    """Yield the fields in which two values differ. Maps and lists are compared inside, lists by position."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for name in sorted({**before, **after}):
            below = f"{path}.{name}" if path else name
            yield from field_changes(before.get(name, MISSING), after.get(name, MISSING), below)
    elif isinstance(before, list) and isinstance(after, list):
        for index, (old, new) in enumerate(zip_longest(before, after, fillvalue=MISSING)):
            yield from field_changes(old, new, f"{path}[{index}]")
    elif before != after or isinstance(before, bool) is not isinstance(after, bool):
        yield FieldChange(path=path, before=before, after=after)


def _text(value: Any) -> str:
    text = visible(json.dumps(value, ensure_ascii=False, default=str))
    return text if len(text) <= MAX_VALUE_CHARS else f"{text[: MAX_VALUE_CHARS - 1]}…"
