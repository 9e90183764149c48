"""The manifest is built in order, validated by its schema, and refused otherwise."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from functools import cache
from importlib.resources import files
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from tests.support.fakes import NOON, RUN_ID, STEP_ID
from worker_chart_export.errors import ErrorCode, ManifestRefused, StepError, ValidationFailed
from worker_chart_export.inputs.export_request import ExportRequest
from worker_chart_export.outputs.manifest import (
    MAX_CHART_BYTES,
    MAX_MANIFEST_BYTES,
    ManifestFailure,
    ManifestItem,
    build_manifest,
    check_fits,
    claimed_by_of,
    encode_manifest,
    surely_fits,
)

SCHEMA = json.loads(
    files("worker_chart_export")
    .joinpath("data/contracts/charts_outputs_manifest.schema.json")
    .read_text("utf-8")
)
TEMPLATE_IDS = st.from_regex(r"[A-Za-z0-9_-]{1,128}", fullmatch=True)
TEXTS = st.text(st.characters(codec="utf-8"), min_size=1)
CLAIMED_BY = {"attempt": 3, "owner": "host-7:4242:9f3ac1d2"}
ITEMS = st.builds(
    ManifestItem,
    template_id=TEMPLATE_IDS,
    kind=TEXTS,
    png_uri=st.just("gs://b/x.png"),
    generated_at=st.datetimes(min_value=datetime(1970, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - Hypothesis wants it naive
    meta=st.dictionaries(TEXTS, TEXTS | st.integers()),
)
FAILURES = st.builds(
    ManifestFailure,
    template_id=TEMPLATE_IDS,
    error=st.builds(
        StepError,
        code=st.sampled_from(ErrorCode),
        message=st.text(),
        details=st.dictionaries(st.text(), st.text() | st.integers()),
    ),
)


def _order(*template_ids: str, min_images: int = 1) -> ExportRequest:
    return ExportRequest(
        symbol="IBM",
        timeframe="1d",
        interval="1D",
        template_ids=template_ids,
        min_images=min_images,
        ohlcv_uri=None,
    )


def _item(template_id: str = "ctpl_a") -> ManifestItem:
    return ManifestItem(
        template_id=template_id,
        kind="k",
        png_uri="gs://b/x.png",
        generated_at=NOON,
        meta={"provider": "mock"},
    )


def _failure(template_id: str = "ctpl_b") -> ManifestFailure:
    return ManifestFailure(template_id=template_id, error=StepError("STEP_TIMEOUT", "late"))


def _manifest(*results: ManifestItem | ManifestFailure, **changes: object) -> dict[str, object]:
    export = _order(*(result.template_id for result in results))
    built = build_manifest(
        run_id=RUN_ID,
        step_id=STEP_ID,
        created_at=NOON,
        export=export,
        results=results,
        claimed_by=CLAIMED_BY,
    )
    return built | changes


def test_a_manifest_in_full():
    """A manifest has every field; items and failures are separate."""
    assert _manifest(_item(), _failure()) == {
        "schemaVersion": 1,
        "runId": RUN_ID,
        "stepId": STEP_ID,
        "createdAt": "2025-12-15T12:00:00.123456Z",
        "symbol": "IBM",
        "timeframe": "1d",
        "minImages": 1,
        "requested": [{"chartTemplateId": "ctpl_a"}, {"chartTemplateId": "ctpl_b"}],
        "items": [
            {
                "chartTemplateId": "ctpl_a",
                "kind": "k",
                "generatedAt": "2025-12-15T12:00:00.123456Z",
                "png_gcs_uri": "gs://b/x.png",
                "meta": {"provider": "mock", **CLAIMED_BY},
            }
        ],
        "failures": [
            {"request": {"chartTemplateId": "ctpl_b"}, "error": {"code": "STEP_TIMEOUT", "message": "late"}}
        ],
    }


@given(st.lists(ITEMS | FAILURES, min_size=1, max_size=4))
def test_every_manifest_is_valid_and_keeps_the_order(results):
    """Every manifest is valid by the contract's schema and keeps the order of the charts."""
    content = json.loads(encode_manifest(_manifest(*results)))
    Draft202012Validator(SCHEMA, format_checker=Draft202012Validator.FORMAT_CHECKER).validate(content)
    asked = [entry["chartTemplateId"] for entry in content["requested"]]
    assert asked == [result.template_id for result in results]
    made = [entry["chartTemplateId"] for entry in content["items"]]
    assert made == [result.template_id for result in results if isinstance(result, ManifestItem)]


def test_times_of_other_zones_are_written_in_utc():
    """Times are written in UTC, because readers compare them as text."""
    item = ManifestItem(
        template_id="a",
        kind="k",
        png_uri="gs://b/x.png",
        generated_at=NOON.astimezone(timezone(timedelta(hours=9))),
        meta={},
    )
    assert item.to_dict()["generatedAt"] == "2025-12-15T12:00:00.123456Z"


def test_text_is_written_as_it_is():
    """Text is not escaped, to stay under 64 KiB."""
    assert "Тест".encode() in encode_manifest(_manifest(_item(), symbol="Тест"))


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"runId": "run-1"}, "$.runId"),
        ({"createdAt": "yesterday"}, "$.createdAt"),
        ({"symbol": ""}, "$.symbol"),
        ({"minImages": -1}, "$.minImages"),
        ({"requested": []}, "$.requested"),
        ({"items": [{"chartTemplateId": "a"}]}, "$.items[0]"),
        ({"extra": 1}, "$"),
    ],
)
def test_a_manifest_against_the_schema_is_refused_by_its_place(changes, place):
    """A manifest that violates the schema is refused with the field's path and not written."""
    with pytest.raises(ManifestRefused) as caught:
        encode_manifest(_manifest(_item(), **changes))
    assert caught.value.details == {"path": place}
    assert caught.value.message.startswith(f"The manifest does not match its schema: {place} must ")


def _keywords(schema):
    found = set(schema)
    for name, inner in schema.items():
        for child in inner.values() if name == "properties" else [inner] if name == "items" else []:
            found |= _keywords(child)
    return found


def test_the_schema_uses_only_supported_keywords():
    """The schema uses only keywords that its compiler supports; it ignores others silently."""
    assert _keywords(SCHEMA) <= {
        *("$schema", "title", "type", "format", "pattern", "minLength", "minimum"),
        *("required", "properties", "additionalProperties", "items", "minItems"),
    }


def test_the_schema_that_is_shipped_is_closed():
    """The shipped schema allows no additional fields, such as `signed_url`."""
    assert (SCHEMA["title"], SCHEMA["additionalProperties"]) == ("ChartsOutputsManifest", False)


def _failures_with_details(count: int) -> list[ManifestFailure]:
    error = StepError("CHART_API_FAILED", "no", {"apiMessage": "x" * 1500})
    return [ManifestFailure(template_id=f"ctpl_{number}", error=error) for number in range(count)]


def test_details_are_left_out_when_they_would_make_it_too_large():
    """Details are left out when the manifest would exceed 64 KiB; messages stay."""
    content = encode_manifest(_manifest(*_failures_with_details(60)))
    failures = json.loads(content)["failures"]
    assert len(content) <= MAX_MANIFEST_BYTES
    assert len(failures) == 60
    assert all(failure["error"] == {"code": "CHART_API_FAILED", "message": "no"} for failure in failures)


@pytest.mark.parametrize("results", [[_item(), _failure()], [_failure("ctpl_a"), _failure()]])
def test_a_manifest_says_who_wrote_it(results):
    """The first item has attempt and owner, and without items the first failure."""
    assert claimed_by_of(_manifest(*results)) == CLAIMED_BY
    assert json.dumps(_manifest(*results)).count(CLAIMED_BY["owner"]) == 1


def _failed(**details: object) -> dict[str, object]:
    return {"error": {"details": details}}


@pytest.mark.parametrize(
    ("manifest", "claimed_by"),
    [
        ({"items": [{}]}, {}),
        ({"items": []}, {}),
        ({"items": [], "failures": [{"error": {}}]}, {}),
        ({"items": [{"meta": {"attempt": 1, "x": 2}}, {"meta": {"owner": "o"}}]}, {"attempt": 1}),
        ({"items": [], "failures": [_failed(attempt=1), _failed(owner="o")]}, {"attempt": 1}),
        ({"items": [{}], "failures": [_failed(attempt=1)]}, {}),
    ],
)
def test_of_a_manifest_of_others_only_what_stands_there_is_said(manifest, claimed_by):
    """Another worker may have left out all that the schema does not require."""
    assert claimed_by_of(manifest) == claimed_by


def _padded(manifest: dict[str, object]) -> dict[str, object]:
    """Return a manifest of exactly 64 KiB, by a long symbol."""
    size = len(json.dumps(manifest, separators=(",", ":")))
    return manifest | {"symbol": "I" * (MAX_MANIFEST_BYTES - size + len("IBM"))}


def test_a_manifest_of_exactly_64_kib_is_written_as_it_is():
    """Nothing is left out of it, and one of this size is expected to fit."""
    assert len(encode_manifest(_padded(_manifest(_item())))) == MAX_MANIFEST_BYTES
    fits = _padded(_manifest(items=[_item().to_dict()]))
    check_fits(fits)
    with pytest.raises(ValidationFailed) as caught:
        check_fits(fits | {"timeframe": "12h"})
    assert caught.value.details == {"field": "inputs.requests", "manifestBytes": MAX_MANIFEST_BYTES + 1}


def test_numbers_are_left_out_first():
    """Numbers of charts are left out when the manifest would exceed 64 KiB; all else stays."""
    numbers = {"lastBar": {"close": 1.0}, "studies": [{"name": "x" * 1500}], "studiesLeftOut": 2}
    items = [replace(_item(f"ctpl_{n}"), meta={"candles": 117, **numbers}) for n in range(40)]
    assert encode_manifest(_manifest(*items[:20])).count(b"lastBar") == 20
    manifest = json.loads(encode_manifest(_manifest(*items, *_failures_with_details(3))))
    assert manifest["items"][0]["meta"] == {"candles": 117, **CLAIMED_BY}
    assert all(item["meta"] == {"candles": 117} for item in manifest["items"][1:])
    assert all(failure["error"]["details"] for failure in manifest["failures"])


def test_details_stay_when_there_is_room():
    """Details stay when the manifest is small enough."""
    failures = json.loads(encode_manifest(_manifest(*_failures_with_details(3))))["failures"]
    assert all(failure["error"]["details"] for failure in failures)


def test_one_that_is_too_large_without_details_is_refused():
    """A manifest that is too large without details is refused."""
    items = [_item(f"ctpl_{number:0120}") for number in range(400)]
    with pytest.raises(ManifestRefused, match="readers take at most 65536"):
        encode_manifest(_manifest(*items))


class TestExpected:
    """A manifest is checked before its charts are made: as many charts as then fit can be reported."""

    META: ClassVar = {"provider": "mock", "templateVersion": "2025-12-15T12:00:00.123456Z"}

    @classmethod
    def _items(cls, count: int, **more: object) -> list[ManifestItem]:
        uri = "gs://b/charts/20251215-102530_IBM_k3f7a/s/20251215-120000_IBM_1d_ctpl.png"
        items = [replace(_item(f"ctpl_{number:03}"), png_uri=uri) for number in range(count)]
        return [replace(item, meta={**more, **cls.META}) for item in items]

    @classmethod
    @cache
    def _most(cls) -> int:
        """Return the largest number of such charts whose manifest fits."""
        count = 1
        while len(encode(cls._items(count + 1))) <= MAX_MANIFEST_BYTES:
            count += 1
        return count

    def test_what_fits_is_accepted_and_one_more_is_refused(self):
        """The check is exact to one chart, and counts neither details nor the rest of `meta`."""
        most = self._most()
        check_fits(_manifest(*self._items(most, lastBar="x" * 2000)))
        with pytest.raises(
            ValidationFailed, match=rf"With {most + 1} requests .* it has at least \d+\.$"
        ) as caught:
            check_fits(_manifest(*self._items(most + 1)))
        assert caught.value.details["field"] == "inputs.requests"
        assert caught.value.details["manifestBytes"] == len(encode(self._items(most + 1)))

    @pytest.mark.parametrize("count", range(1, 16))
    def test_what_surely_fits_does_fit(self, count):
        """It does so with the longest names and the longest descriptions in JSON."""
        kind = "\x00" * ((MAX_MANIFEST_BYTES - (count + 1) * MAX_CHART_BYTES) // (6 * count))
        assert surely_fits([kind] * count)
        assert not surely_fits([kind + "\x00"] * count)
        uri = "gs://" + "b" * 222 + "/" + '"' * 1024
        items = [
            replace(_item(f"{number:0128}"), kind=kind, png_uri=uri, meta=self.META)
            for number in range(count)
        ]
        check_fits(_manifest(*items) | {"runId": "r" * 1500, "stepId": "s" * 256, "symbol": '"' * 128})

    def test_the_meta_of_charts_is_left_out_when_there_is_no_room(self):
        """When all charts are made, the manifest fits, whatever providers add to `meta`."""
        items = self._items(self._most(), lastBar="x" * 2000, accountId="acc-1")
        manifest = json.loads(encode_manifest(_manifest(*items)))
        assert all(item["meta"] == self.META for item in manifest["items"])

    @pytest.mark.parametrize(
        ("message", "size"), [("x" * 500, 80), ("é" * 500, 79), ("\U0001f600" * 500, 79)]
    )
    def test_messages_are_shortened_when_there_is_no_room(self, message, size):
        """A failure needs no more room than a chart: its message is shortened when that is needed."""
        items = self._items(self._most())
        error = StepError("CHART_API_LIMIT_EXCEEDED", message, {"apiMessage": "x" * 500})
        failures = [ManifestFailure(template_id=item.template_id, error=error) for item in items]
        short = replace(failures[0], error=StepError("CHART_API_LIMIT_EXCEEDED", "x" * 80))
        manifest = json.loads(encode_manifest(_manifest(*failures, short)))
        assert manifest["failures"].pop()["error"]["message"] == "x" * 80
        for failure in manifest["failures"]:
            shown = failure["error"]["message"]
            assert len(shown.encode()) == size
            assert shown.endswith("…")
            assert message.startswith(shown[:-1])


def encode(items: list[ManifestItem]) -> bytes:
    """Encode a manifest of these items in its shortest form, which does not say who wrote it."""
    manifest = _manifest(*items) | {"items": [item.to_dict() for item in items]}
    return json.dumps(manifest, separators=(",", ":")).encode()
