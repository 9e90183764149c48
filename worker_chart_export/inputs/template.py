"""Chart templates: check them, read them with a cache, and build the request body for Chart-IMG.

A template is a Firestore document, `chart_templates/{chartTemplateId}`. People write it, the worker reads it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from worker_chart_export.backends.firestore import (
    delete_document,
    read_collection,
    read_document,
    replace_document,
)
from worker_chart_export.charts.base import DEFAULT_HEIGHT, DEFAULT_WIDTH
from worker_chart_export.charts.request_check import problems
from worker_chart_export.charts.whole_numbers import whole_number, with_whole_numbers
from worker_chart_export.concurrency.single_flight import SingleFlight
from worker_chart_export.errors import ValidationFailed, shown
from worker_chart_export.observability.logs import Event, log

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from worker_chart_export.backends.firestore import LazySnapshot
    from worker_chart_export.inputs.export_request import ExportRequest
    from worker_chart_export.timing import Clock

CHART_TEMPLATES = "chart_templates"
SYMBOL_PLACE = "{symbol}"
#: The smallest and largest pictures of all Chart-IMG plans, in pixels (its documentation, "Limits").
WIDTH_RANGE = (400, 2048)
HEIGHT_RANGE = (300, 1920)

TEMPLATE_KEYS = frozenset({"id", "description", "chartImgSymbolTemplate", "request"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ChartTemplate:
    """A checked chart template.

    Attributes:
        template_id: The document's id.
        kind: The template's description. It becomes the `kind` of manifest items.
        symbol_template: How Chart-IMG names the symbol, with a `{symbol}` in it, e.g. `NYSE:{symbol}`.
        request: The request body without symbol, interval and timezone. Whole numbers in it are integers.
        warnings: One sentence for each key or value that Chart-IMG does not document.
        updated_at: When the document was last written. None: it was not read from Firestore.
    """

    template_id: str
    kind: str
    symbol_template: str
    request: Mapping[str, Any]
    warnings: tuple[str, ...]
    updated_at: datetime | None = None

    def payload(self, export: ExportRequest, *, timezone: str) -> dict[str, Any]:
        """Build the Chart-IMG request body for one step."""
        return {
            **self.request,
            "symbol": self.symbol_template.replace(SYMBOL_PLACE, export.symbol),
            "interval": export.interval,
            "timezone": timezone,
        }


def parse_template(template_id: str, document: Mapping[str, Any]) -> ChartTemplate:
    """Check a template document.

    Raises:
        ValidationFailed: Names the template, the first invalid field and the expected value.
    """
    symbol_template = document.get("chartImgSymbolTemplate")
    if not isinstance(symbol_template, str) or SYMBOL_PLACE not in symbol_template:
        raise _invalid(template_id, "chartImgSymbolTemplate", "a text holding {symbol}", symbol_template)
    kind = document.get("description")
    if not isinstance(kind, str) or not kind.strip():
        raise _invalid(template_id, "description", "a text", kind)
    request = document.get("request")
    if not isinstance(request, Mapping):
        raise _invalid(template_id, "request", "a map", request)
    if request.get("format", "png") != "png":
        raise _invalid(
            template_id, "request.format", "png, because a step stores PNG files", request["format"]
        )
    checked = _checked_request(template_id, request)
    return ChartTemplate(
        template_id=template_id,
        kind=kind,
        symbol_template=symbol_template,
        request=checked,
        warnings=tuple(_warnings(document, checked)),
    )


def _checked_request(template_id: str, request: Mapping[str, Any]) -> Mapping[str, Any]:
    for name, (low, high), default in (
        ("width", WIDTH_RANGE, DEFAULT_WIDTH),
        ("height", HEIGHT_RANGE, DEFAULT_HEIGHT),
    ):
        value = request.get(name, default)
        pixels = whole_number(value)
        if pixels is None or not low <= pixels <= high:
            raise _invalid(template_id, f"request.{name}", f"a whole number from {low} to {high}", value)
    for name in ("studies", "drawings"):
        entries = request.get(name, [])
        if not isinstance(entries, list):
            raise _invalid(template_id, f"request.{name}", "a list", entries)
        for index, entry in enumerate(entries):
            if not isinstance(entry, Mapping) or not isinstance(entry.get("name"), str):
                raise _invalid(template_id, f"request.{name}[{index}]", "a map with a name", entry)
    try:
        json.dumps(request, allow_nan=False)
        checked: Mapping[str, Any] = with_whole_numbers(request)
    except (TypeError, ValueError, RecursionError) as error:  # Firestore has timestamps, bytes, NaN ...
        raise _invalid(template_id, "request", f"what JSON can hold ({error})", request) from error
    return checked


def _invalid(template_id: str, field: str, expected: str, got: object) -> ValidationFailed:
    return ValidationFailed(
        f"Template {template_id}: {field}: expected {expected}, got {shown(got)}.",
        chartTemplateId=template_id,
        field=field,
    )


def _warnings(document: Mapping[str, Any], request: Mapping[str, Any]) -> Iterator[str]:
    """Yield what Chart-IMG's documentation does not know of a template, or does not accept."""
    for key in sorted(document.keys() - TEMPLATE_KEYS):
        yield f"{key}: unknown key, expected one of {', '.join(sorted(TEMPLATE_KEYS))}"
    yield from problems(request)


class TemplateStore:
    """Reads templates and caches each for a while. Shared by all threads, which also share each read.

    Args:
        client: A Firestore client.
        cache_seconds: How long a template that was found is used without reading it again.
        clock: Its monotonic clock is used.
    """

    def __init__(self, *, client: Any, cache_seconds: float, clock: Clock) -> None:
        self._client = client
        self._cache_seconds = cache_seconds
        self._clock = clock
        self._cached: dict[str, tuple[float, ChartTemplate]] = {}
        self._loads = SingleFlight(self._load)

    def get(self, template_id: str) -> ChartTemplate:
        """Return a template.

        Raises:
            ValidationFailed: It does not exist or is invalid. This is not cached, so that a correction takes
                effect at once.
            BackendUnavailable: Firestore is unavailable.
            BackendRefused: It may not be read.
        """
        return self._loads.get(template_id)

    def cached(self, template_id: str) -> ChartTemplate | None:
        """Return a template that was read within the cache's time, or None."""
        if template_id in self._cached:
            read_at, template = self._cached[template_id]
            if self._clock.monotonic() - read_at < self._cache_seconds:
                return template
        return None

    def _load(self, template_id: str) -> ChartTemplate:
        if (fresh := self.cached(template_id)) is not None:
            return fresh
        snapshot = read_document(self._client, CHART_TEMPLATES, template_id)
        document = snapshot.to_dict()
        if document is None:
            raise ValidationFailed(
                f"Template {template_id} does not exist in {CHART_TEMPLATES}.", chartTemplateId=template_id
            )
        template = replace(parse_template(template_id, document), updated_at=snapshot.update_time)
        for warning in template.warnings:
            log.warning(
                Event.TEMPLATE_WARNING, f"Template {template_id}: {warning}", chartTemplateId=template_id
            )
        self._cached[template_id] = (self._clock.monotonic(), template)
        return template


class TemplateCatalog:
    """Lists, reads and writes the templates of a database, for commands.

    Each method raises `BackendUnavailable` when Firestore is unavailable, `BackendRefused` when it refuses.

    Args:
        client: A Firestore client.
    """

    def __init__(self, client: Any) -> None:
        self._client = client

    def documents(self) -> dict[str, dict[str, Any]]:
        """Return all template documents by id, unchecked."""
        return read_collection(self._client, CHART_TEMPLATES)

    def read(self, template_id: str) -> LazySnapshot:
        """Read one template document, unchecked. Without `fields` there is none."""
        return read_document(self._client, CHART_TEMPLATES, template_id)

    def document(self, template_id: str) -> dict[str, Any] | None:
        """Return one template document, unchecked, or None when there is none."""
        return self.read(template_id).to_dict()

    def put(self, template_id: str, document: Mapping[str, Any]) -> None:
        """Store a template under its id. Replace the document that is there."""
        replace_document(self._client, CHART_TEMPLATES, template_id, document)

    def delete(self, template_id: str, stored: LazySnapshot) -> None:
        """Delete a template as it was read.

        Raises:
            LostRace: It was changed or deleted since.
        """
        delete_document(self._client, CHART_TEMPLATES, template_id, update_time=stored.update_time)
