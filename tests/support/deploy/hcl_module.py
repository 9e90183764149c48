"""Read a Terraform module without Terraform: its blocks, the variables' defaults, its layout."""

from __future__ import annotations

import re
from functools import cached_property
from typing import TYPE_CHECKING, Any

import hcl2

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PLAIN = hcl2.SerializationOptions(with_comments=False, explicit_blocks=False, strip_string_quotes=True)
REFERENCE = re.compile(r"\$\{(var|local)\.(\w+)\}")
DAYS = re.compile(r"\$\{var\.(\w+) \* 86400\}s")


class Module:
    """All files of a folder together. They are parsed when something is asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @cached_property
    def _files(self) -> list[dict[str, Any]]:
        return [
            hcl2.loads(path.read_text(encoding="utf-8"), serialization_options=PLAIN)
            for path in sorted(self._folder.glob("*.tf"))
        ]

    @cached_property
    def resources(self) -> dict[tuple[str, str], dict[str, Any]]:
        """(type, name) -> its arguments; the blocks within it are lists."""
        return {
            (kind, name): body
            for file in self._files
            for block in file.get("resource", [])
            for kind, named in block.items()
            for name, body in named.items()
        }

    @cached_property
    def variables(self) -> dict[str, dict[str, Any]]:
        """Name -> its block."""
        return dict(_named(self._files, "variable"))

    @cached_property
    def local_values(self) -> dict[str, Any]:
        """Name -> its expression."""
        return dict(
            item for file in self._files for block in file.get("locals", []) for item in block.items()
        )

    @cached_property
    def outputs(self) -> dict[str, dict[str, Any]]:
        """Name -> its block."""
        return dict(_named(self._files, "output"))

    def resource(self, kind: str, name: str) -> dict[str, Any]:
        """Return one resource's arguments, with the variables' defaults in place of the variables."""
        return {key: self.resolved(value) for key, value in self.resources[kind, name].items()}

    def all_of(self, kind: str) -> dict[str, dict[str, Any]]:
        """Return the resources of one type by name."""
        return {name: body for (its_kind, name), body in self.resources.items() if its_kind == kind}

    def resolved(self, value: Any) -> Any:
        """Return a value with the defaults of its variables and locals; other expressions stay."""
        if isinstance(value, list):
            return [self.resolved(inner) for inner in value]
        if isinstance(value, dict):
            return {key: self.resolved(inner) for key, inner in value.items()}
        if not isinstance(value, str):
            return value
        if found := REFERENCE.fullmatch(value):
            return self._named(*found.groups())
        if found := DAYS.fullmatch(value):
            return f"{self.variables[found[1]]['default'] * 86400}s"
        return value

    def _named(self, kind: str, name: str) -> Any:
        if kind == "local":
            return self.resolved(self.local_values[name])
        return self.variables[name].get("default", f"${{var.{name}}}")


def _named(files: list[dict[str, Any]], kind: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for file in files:
        for block in file.get(kind, []):
            yield from block.items()
