"""All the chart templates that are stored, for the people who keep them; a step only reads single ones."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any

from worker_chart_export.backends.firestore import (
    document_of,
    read_collection,
    read_document,
    replace_document,
)
from worker_chart_export.inputs.template import CHART_TEMPLATES

if TYPE_CHECKING:
    from collections.abc import Mapping


class Change(StrEnum):
    """What storing a template did."""

    CREATED = "created"
    """There was none of that id."""
    CHANGED = "changed"
    """There was another one."""
    UNCHANGED = "unchanged"
    """It was there already; nothing was written."""


class TemplateCatalog:
    """All chart templates of a database.

    Every method raises `BackendUnavailable` when Firestore is away and `BackendRefused` when it refuses.

    Args:
        client: A Firestore client.
    """

    def __init__(self, client: Any) -> None:
        self._client = client

    def documents(self) -> dict[str, dict[str, Any]]:
        """Template id -> document, by id; unchecked."""
        return read_collection(self._client, CHART_TEMPLATES)

    def document(self, template_id: str) -> dict[str, Any] | None:
        """One template's document, unchecked; None when there is none."""
        return document_of(read_document(self._client, CHART_TEMPLATES, template_id))

    def put(self, template_id: str, document: Mapping[str, Any]) -> Change:
        """Store a template under its id, in place of what was there."""
        before = self.document(template_id)
        if before == document:
            return Change.UNCHANGED
        replace_document(self._client, CHART_TEMPLATES, template_id, document)
        return Change.CREATED if before is None else Change.CHANGED
