"""Firestore aggregation queries: count, sum, average."""

from __future__ import annotations

import math

import pytest
from google.api_core import exceptions
from google.cloud.firestore_v1 import FieldFilter

pytestmark = pytest.mark.serves("RunAggregationQuery")

LARGE = 2**62


@pytest.fixture
def numbers(collection):
    """Create documents with numbers in `v`, and some without."""
    values = {"a": {"v": 5, "u": 1}, "b": {"v": "text", "u": 2}, "c": {"u": 3}, "d": {"v": 1}}
    for name, fields in {**values, "e": {"v": 3, "u": 0}, "f": {"v": None}}.items():
        collection.document(name).set(fields)
    return collection


def _aggregate(raw, collection, *aggregations, **query):
    parent = f"{raw.database}/documents"
    query = {"structured_query": {"from_": [{"collection_id": collection.id}], **query}}
    query["aggregations"] = list(aggregations)
    (answer,) = raw.call("run_aggregation_query", parent=parent, structured_aggregation_query=query)
    return {alias: _plain(value) for alias, value in answer.result.aggregate_fields.items()}


def _plain(value):
    kind = type(value).pb(value).WhichOneof("value_type")
    return None if kind == "null_value" else getattr(value, kind)


def _of(kind, field, alias=""):
    return {kind: {"field": {"field_path": field}}, "alias": alias}


COUNT = {"count": {}, "alias": "n"}


def test_sums_and_averages(raw, numbers):
    """SUM and AVG take the numbers; of none the sum is 0 and the average null."""
    found = {one.alias: one.value for one in numbers.sum("v", alias="s").avg("v", alias="a").get()[0]}
    assert found == {"s": 9, "a": 3.0}
    assert _aggregate(raw, numbers, _of("sum", "none", "s"), _of("avg", "none", "a")) == {"s": 0, "a": None}


def test_only_documents_with_all_fields_count(raw, numbers):
    """A document counts only if it has the fields of all sums and averages; the query sorts by them."""
    assert _aggregate(raw, numbers, COUNT) == {"n": 6}
    assert _aggregate(raw, numbers, COUNT, _of("sum", "v", "s")) == {"n": 5, "s": 9}
    both = (COUNT, _of("sum", "v", "s"), _of("sum", "u", "t"))
    assert _aggregate(raw, numbers, *both) == {"n": 3, "s": 8, "t": 3}
    assert _aggregate(raw, numbers, COUNT, _of("sum", "v", "s"), limit=2) == {"n": 2, "s": 1}


def test_limits_and_filters_hold(raw, numbers):
    """Aggregations take a filter, an order, a limit, an offset and the bound of a count."""
    query = numbers.where(filter=FieldFilter("u", ">", 0)).order_by("u").limit(2)
    assert query.count().get()[0][0].value == 2
    up_to_two = {"count": {"up_to": 2}, "alias": "n"}
    assert _aggregate(raw, numbers, up_to_two) == {"n": 2}
    assert _aggregate(raw, numbers, COUNT, _of("sum", "v", "s"), offset=2) == {"n": 3, "s": 8}


def test_the_type_of_a_sum(raw, collection):
    """A sum of integers is an integer, beyond 64 bits a double; one of NaN is NaN."""
    for name in "abc":
        collection.document(name).set({"large": LARGE, "mixed": 1 if name == "a" else 0.5})
    collection.document("d").set({"nan": math.nan})
    assert _aggregate(raw, collection, _of("sum", "large", "s"), limit=1) == {"s": LARGE}
    total = _aggregate(raw, collection, _of("sum", "large", "s"))["s"]
    assert (type(total), total) == (float, 3.0 * LARGE)
    assert _aggregate(raw, collection, _of("sum", "mixed", "s")) == {"s": 2.0}
    assert math.isnan(_aggregate(raw, collection, _of("avg", "nan", "a"))["a"])


def test_aliases_that_are_not_given(raw, numbers):
    """Aggregations without an alias are called `field_1`, `field_2` and so on, where free."""
    unnamed = {"count": {}}
    assert set(_aggregate(raw, numbers, unnamed, unnamed)) == {"field_1", "field_2"}
    assert set(_aggregate(raw, numbers, {"count": {}, "alias": "field_2"}, unnamed)) == {"field_1", "field_2"}


@pytest.mark.parametrize(
    "aggregations",
    [
        (),
        ({"alias": "n"},),
        (COUNT, COUNT),
        ({"count": {}, "alias": "__n__"},),
        ({"count": {"up_to": -1}},),
        (_of("sum", ""),),
        (_of("avg", "`a"),),
        (_of("sum", "__name__"),),
    ],
)
def test_malformed_aggregations_are_refused(raw, collection, aggregations):
    """No aggregation, no operator, a wrong alias, bound or field fail with InvalidArgument."""
    with pytest.raises(exceptions.InvalidArgument):
        _aggregate(raw, collection, *aggregations)
