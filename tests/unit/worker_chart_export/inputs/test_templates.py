"""Chart templates are checked, cached and turned into request bodies."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from importlib.resources import files

import pytest

from localcloud import Fault
from tests.support.fakes import HandClock, run_of, template_document
from worker_chart_export.errors import BackendRefused, BackendUnavailable, ValidationFailed
from worker_chart_export.inputs.export_request import parse_export_request
from worker_chart_export.inputs.template import CHART_TEMPLATES, TemplateStore, parse_template


def _without(key: str) -> dict[str, object]:
    return {name: value for name, value in template_document().items() if name != key}


def _nested(depth: int) -> dict[str, object]:
    value: dict[str, object] = {}
    for _ in range(depth):
        value = {"x": value}
    return value


NESTED_TOO_DEEPLY = _nested(100_000)


def test_a_good_template_is_read():
    """A valid template is read; its description becomes the manifest's kind."""
    template = parse_template("ctpl_a", template_document())
    assert (template.template_id, template.kind, template.warnings) == ("ctpl_a", "price + volume", ())


@pytest.mark.parametrize(
    "name", sorted(p.name for p in files("worker_chart_export").joinpath("data/samples/templates").iterdir())
)
def test_the_reference_templates_are_good(name):
    """The reference templates are valid without a warning."""
    text = files("worker_chart_export").joinpath("data/samples/templates", name).read_text("utf-8")
    assert parse_template(name.removesuffix(".json"), json.loads(text)).warnings == ()


@pytest.mark.parametrize(
    ("document", "field"),
    [
        (_without("chartImgSymbolTemplate"), "chartImgSymbolTemplate"),
        (template_document() | {"chartImgSymbolTemplate": "NYSE:IBM"}, "chartImgSymbolTemplate"),
        (template_document() | {"chartImgSymbolTemplate": 7}, "chartImgSymbolTemplate"),
        (_without("description"), "description"),
        (template_document() | {"description": " "}, "description"),
        (_without("request"), "request"),
        (template_document() | {"request": []}, "request"),
        (template_document(width=399), "request.width"),
        (template_document(width=2049), "request.width"),
        (template_document(width="800"), "request.width"),
        (template_document(width=True), "request.width"),
        (template_document(width=800.5), "request.width"),
        (template_document(height=299), "request.height"),
        (template_document(height=1921), "request.height"),
        (template_document(height=None), "request.height"),
        (template_document(format="jpeg"), "request.format"),
        (template_document(studies={"name": "Volume"}), "request.studies"),
        (template_document(studies=["Volume"]), "request.studies[0]"),
        (template_document(studies=[{"name": "Volume"}, {"input": {}}]), "request.studies[1]"),
        (template_document(studies=[{"name": 7}]), "request.studies[0]"),
        (template_document(drawings="x"), "request.drawings"),
        (template_document(drawings=[{}]), "request.drawings[0]"),
        (template_document(range=datetime(2025, 1, 1, tzinfo=UTC)), "request"),
        (template_document(override={"x": b"bytes"}), "request"),
        (template_document(shiftLeft=float("nan")), "request"),
        (template_document(override=NESTED_TOO_DEEPLY), "request"),
    ],
)
def test_a_bad_template_names_the_field(document, field):
    """A bad template is refused with its id, the field and the expected value."""
    with pytest.raises(ValidationFailed, match=r"^Template ctpl_a: .*expected") as caught:
        parse_template("ctpl_a", document)
    assert caught.value.details == {"chartTemplateId": "ctpl_a", "field": field}


def test_sizes_may_be_left_to_the_api():
    """A template without sizes gets the API's defaults."""
    document = template_document()
    del document["request"]["width"]
    del document["request"]["height"]
    assert parse_template("ctpl_a", document).warnings == ()


@pytest.mark.parametrize(
    ("document", "place"),
    [
        (template_document() | {"novelty": 1}, "novelty: "),
        (template_document(them="dark"), "request.them: "),
        (template_document(studies=[{"name": "MACD", "inputs": {}}]), "request.studies[0].inputs: "),
        (template_document(studies=[{"name": "MACD", "overrides": {}}]), "request.studies[0].overrides: "),
        (
            template_document(drawings=[{"name": "Horizontal Line", "input": {"price": 1}, "inputs": {}}]),
            "request.drawings[0].inputs: ",
        ),
    ],
)
def test_unknown_keys_are_warned_about(document, place):
    """Unknown keys are logged as warnings, because the API ignores them silently."""
    (warning,) = parse_template("ctpl_a", document).warnings
    assert warning.startswith(place + "unknown key, expected one of ")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"studies": [{"name": "Macd"}]}, "studies[0].name: 'Macd' is not documented; did you mean 'MACD'?"),
        (
            {"studies": [{"name": "MACD", "input": {"in_0": 0}}]},
            "studies[0].input.in_0: expected a whole number from 1 to",
        ),
        (
            {"studies": [{"name": "MACD", "override": {"MACD.color": "x"}}]},
            "studies[0].override.MACD.color: expected a colour",
        ),
        ({"drawings": [{"name": "Horizontal Line"}]}, "drawings[0].input.price: missing, expected a number"),
        ({"style": "renko"}, "style: expected one of bar, candle"),
        (
            {"style": "line", "override": {"style": {"barStyle.upColor": "#ffffff"}}},
            "override.style.barStyle.upColor: unknown key",
        ),
        (
            {"override": {"scalesFontSize": 99}},
            "override.scalesFontSize: expected a whole number from 10 to 50",
        ),
        ({"range": {"from": "soon", "to": "2025-01-01"}}, "range.from: expected an ISO 8601 time"),
    ],
)
def test_values_that_the_documentation_does_not_allow_are_warned_about(changes, said):
    """Each field is checked against the documented table, by its path."""
    (warning,) = parse_template("ctpl_a", template_document(**changes)).warnings
    assert warning.startswith(f"request.{said}")


def test_the_payload_fills_in_symbol_interval_and_timezone():
    """The payload gets symbol, interval and timezone in place of the template's values."""
    run = run_of()
    step = run.eligible_step()
    assert step is not None
    template = parse_template("ctpl_a", template_document(symbol="X", interval="Y", timezone="Z"))
    payload = template.payload(parse_export_request(run, step), timezone="Europe/Berlin")
    assert payload == template_document()["request"] | {
        "symbol": "NYSE:IBM",
        "interval": "1D",
        "timezone": "Europe/Berlin",
    }


def test_whole_numbers_that_are_stored_as_doubles_become_integers():
    """Doubles without a fraction become integers at every depth; other numbers and booleans stay."""
    studies = [{"name": "Bollinger Bands", "forceOverlay": True, "input": {"in_0": 20.0, "in_1": 2.5}}]
    document = template_document(
        width=1024.0, height=768.0, shiftLeft=3.0, studies=studies, override={"priceRange": {"from": -0.0}}
    )
    request = parse_template("ctpl_a", document).request
    assert json.dumps(request, sort_keys=True) == json.dumps(
        template_document()["request"]
        | {
            "width": 1024,
            "height": 768,
            "shiftLeft": 3,
            "studies": [{**studies[0], "input": {"in_0": 20, "in_1": 2.5}}],
            "override": {"priceRange": {"from": 0}},
        },
        sort_keys=True,
    )


@pytest.mark.parametrize("number", [1e300, 2.0**53 + 2, 0.1])
def test_a_double_that_stands_for_no_single_whole_number_stays(number):
    """A double beyond 2**53 stays a double: as an integer it would have hundreds of digits."""
    assert repr(parse_template("ctpl_a", template_document(x=number)).request["x"]) == repr(number)


class TestStore:
    """Reading templates from Firestore with a cache."""

    @pytest.fixture
    def clock(self):
        """Return a clock that the test moves."""
        return HandClock()

    @pytest.fixture
    def store(self, documents, clock):
        """Return a store that keeps a template for a minute; `ctpl_a` exists."""
        documents.collection(CHART_TEMPLATES).document("ctpl_a").set(template_document())
        return TemplateStore(client=documents, cache_seconds=60, clock=clock)

    def test_a_template_is_read_once_while_it_is_fresh(self, store, clock, cloud):
        """A cached template is not read again while it is fresh."""
        store.get("ctpl_a")
        clock.advance(59.9)
        store.get("ctpl_a")
        assert cloud.firestore.calls["BatchGetDocuments"] == 1
        clock.advance(0.2)
        store.get("ctpl_a")
        assert cloud.firestore.calls["BatchGetDocuments"] == 2

    def test_a_changed_template_is_seen_when_the_cache_is_old(self, store, clock, documents):
        """A changed template is read when the cache entry is old, and not before."""
        store.get("ctpl_a")
        documents.collection(CHART_TEMPLATES).document("ctpl_a").update({"description": "new"})
        assert store.get("ctpl_a").kind == "price + volume"
        clock.advance(61)
        assert store.get("ctpl_a").kind == "new"

    def test_a_missing_template_is_not_cached(self, store, documents):
        """A missing template is not cached, so that an added one is found at once."""
        with pytest.raises(ValidationFailed, match=r"Template ctpl_b does not exist in chart_templates"):
            store.get("ctpl_b")
        documents.collection(CHART_TEMPLATES).document("ctpl_b").set(template_document())
        assert store.get("ctpl_b").template_id == "ctpl_b"

    def test_an_invalid_template_is_not_cached(self, store, documents):
        """An invalid template is not cached, so that a correction takes effect at once."""
        reference = documents.collection(CHART_TEMPLATES).document("ctpl_b")
        reference.set(template_document(width=1))
        with pytest.raises(ValidationFailed):
            store.get("ctpl_b")
        reference.set(template_document())
        assert store.get("ctpl_b").kind == "price + volume"

    @pytest.mark.parametrize("name", ["ctpl_a", "ctpl_missing"])
    def test_simultaneous_callers_share_one_read(self, store, cloud, name):
        """Simultaneous callers share one read and its result or error."""
        cloud.firestore.faults.add(Fault(method="BatchGetDocuments", delay_seconds=1))
        together = threading.Barrier(8)

        def ask(_number):
            together.wait(10)
            try:
                return store.get(name).template_id
            except ValidationFailed as error:
                return error.message

        with ThreadPoolExecutor(8) as pool:
            (answer,) = set(pool.map(ask, range(8)))
        assert name in answer
        assert cloud.firestore.calls["BatchGetDocuments"] == 1

    def test_unknown_keys_are_logged_when_it_is_read(self, store, documents, log_lines):
        """Unknown keys are logged once per read and not at every use."""
        documents.collection(CHART_TEMPLATES).document("ctpl_a").update({"request.them": "dark"})
        store.get("ctpl_a")
        store.get("ctpl_a")
        (line,) = log_lines()
        assert (line["event"], line["severity"]) == ("template_warning", "WARNING")
        assert line["message"].startswith("Template ctpl_a: request.them: unknown key")

    @pytest.mark.parametrize(
        ("status", "error"),
        [("RESOURCE_EXHAUSTED", BackendUnavailable), ("PERMISSION_DENIED", BackendRefused)],
    )
    def test_an_unavailable_firestore_differs_from_one_that_refuses(self, store, cloud, status, error):
        """An unavailable Firestore and one that refuses raise different errors."""
        cloud.firestore.faults.add(Fault(method="BatchGetDocuments", error=status, times=1))
        with pytest.raises(error):
            store.get("ctpl_a")
