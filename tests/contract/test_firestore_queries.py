"""Firestore queries: filters, order, limits, cursors, collection groups."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

import pytest
from google.api_core import exceptions
from google.cloud import firestore
from google.cloud.firestore_v1 import FieldFilter
from google.cloud.firestore_v1.base_query import Or
from google.cloud.firestore_v1.vector import Vector

pytestmark = pytest.mark.serves("RunQuery")

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def _ids(query):
    return [snapshot.id for snapshot in query.stream()]


@pytest.fixture
def mixed(collection):
    """Create a document per value type in field `v`, named after its value, and one without the field."""
    values = {
        "null": None,
        "true": True,
        "false": False,
        "one": 1,
        "one_and_half": 1.5,
        "two": 2,
        "nan": float("nan"),
        "time": NOW,
        "text_B": "B",
        "text_a": "a",
        "text_z": "z",
        "text_e": "é",
        "bytes": b"x",
        "reference": collection.document("q"),
        "point": firestore.GeoPoint(1, 2),
        "array": [1],
        "array2": [1, 2],
        "vector": Vector([2.0]),
        "vector2": Vector([1.0, 1.0]),
        "map": {"a": 1},
        "map2": {"a": 1, "b": 2},
    }
    for name, value in values.items():
        collection.document(name).set({"v": value})
    collection.document("without").set({"w": 1})
    return collection


TYPE_ORDER = [
    "null",
    "false",
    "true",
    "nan",
    "one",
    "one_and_half",
    "two",
    "time",
    "text_B",
    "text_a",
    "text_z",
    "text_e",
    "bytes",
    "reference",
    "point",
    "array",
    "array2",
    "vector",
    "vector2",
    "map",
    "map2",
]


def test_values_sort_by_type_then_value(mixed):
    """Values sort by type, then value; documents without the field are missing from the result."""
    assert _ids(mixed.order_by("v")) == TYPE_ORDER
    assert _ids(mixed.order_by("v", direction="DESCENDING")) == TYPE_ORDER[::-1]


@pytest.mark.parametrize(
    ("operator", "value", "expected"),
    [
        ("==", 1.0, ["one"]),
        ("==", None, ["null"]),
        ("==", float("nan"), ["nan"]),
        (">", 1, ["one_and_half", "two"]),
        ("<=", "z", ["text_B", "text_a", "text_z"]),
        ("<=", True, ["false", "true"]),
        ("<", NOW + timedelta(seconds=1), ["time"]),
        (">=", NOW + timedelta(seconds=1), []),
        ("in", ["a", 2], ["text_a", "two"]),
        ("array_contains", 2, ["array2"]),
        ("==", {"a": 1}, ["map"]),
        ("not-in", [1, 1.5, 2], None),
        ("!=", 1, None),
    ],
)
def test_field_filters(mixed, operator, value, expected):
    """A field filter matches only values of its own type."""
    if expected is None:
        excluded = {"null", "one"} if operator == "!=" else {"null", "one", "one_and_half", "two"}
        expected = [name for name in TYPE_ORDER if name not in excluded]
    assert sorted(_ids(mixed.where(filter=FieldFilter("v", operator, value)))) == sorted(expected)


def test_without_an_order_documents_come_by_name(mixed):
    """A query without an order returns documents in UTF-8 order of their names."""
    assert _ids(mixed) == sorted([*TYPE_ORDER, "without"])
    assert _ids(mixed.where(filter=FieldFilter("__name__", ">", mixed.document("text_z")))) == [
        "time",
        "true",
        "two",
        "vector",
        "vector2",
        "without",
    ]


def test_filters_combine(mixed):
    """Two bounds combine with AND; an order on another field drops documents without that field."""
    between = mixed.where(filter=FieldFilter("v", ">", 1)).where(filter=FieldFilter("v", "<", 2))
    assert _ids(between) == ["one_and_half"]
    assert _ids(mixed.where(filter=FieldFilter("v", "==", 1)).order_by("w")) == []
    either = Or([FieldFilter("v", "==", 1), FieldFilter("w", "==", 1)])
    assert _ids(mixed.where(filter=either)) == ["one", "without"]


def test_a_projection_reads_only_its_fields(mixed):
    """A projection returns only its fields; a document without them is empty."""
    query = mixed.where(filter=FieldFilter("v", "==", 1))
    assert [snapshot.to_dict() for snapshot in query.select(["v"]).stream()] == [{"v": 1}]
    assert [snapshot.to_dict() for snapshot in query.select(["nope"]).stream()] == [{}]


@pytest.mark.serves("RunAggregationQuery")
def test_counting(mixed):
    """COUNT returns the number of documents."""
    ((result,),) = mixed.count(alias="all").get()
    assert (result.alias, result.value) == ("all", len(TYPE_ORDER) + 1)


def test_a_malformed_path_in_a_filter_is_refused(collection):
    """A malformed path in a filter fails with InvalidArgument."""
    with pytest.raises(exceptions.InvalidArgument):
        _ids(collection.where(filter=FieldFilter("`a", "==", 1)))


IDS = (
    "__id-9223372036854775808__",
    "__id-3__",
    "__id7__",
    "__id12__",
    "1",
    "A",
    "_",
    "__a",
    "a",
    "\u00e9",
    "\U0001f600",
)


def test_ids_sort_numbers_first(collection):
    """Ids like `__id7__` come first, in the order of their numbers; others follow by their UTF-8 bytes."""
    for name in reversed(IDS):
        collection.document(name).set({})
    assert _ids(collection) == list(IDS)
    assert [document.id for document in collection.list_documents(page_size=3)] == list(IDS)
    after = FieldFilter("__name__", ">", collection.document("__id7__"))
    assert _ids(collection.where(filter=after)) == list(IDS[3:])
    assert _ids(collection.order_by("__name__").start_at([collection.document("A")])) == list(IDS[5:])


@pytest.mark.serves("BatchWrite", "RunQuery", "ListCollectionIds")
def test_a_recursive_delete(client, collection):
    """`recursive_delete` deletes documents with any id, at every depth, and nothing beside them."""
    beside = client.collection(f"{collection.id}x").document("1")
    beside.set({})
    for path in ("1", "A/9/b", "A/9/b/Z/2", "__id7__", "only/below/A"):
        client.document(
            f"{collection.id}/{path}" if path.count("/") % 2 == 0 else f"{collection.id}/{path}/x"
        ).set({})
    assert client.recursive_delete(collection) == 5
    assert list(collection.list_documents()) == []
    assert beside.get().exists


def test_descending_names_alone_are_refused(collection):
    """Ordering only by descending name fails with FailedPrecondition, as it needs an index in production."""
    with pytest.raises(exceptions.FailedPrecondition):
        _ids(collection.order_by("__name__", direction="DESCENDING"))


def _filter(operator, *values, field="v"):
    return {"field_filter": {"field": {"field_path": field}, "op": operator, "value": _list(*values)}}


def _list(*values):
    return {"array_value": {"values": [{"integer_value": value} for value in values]}}


def _join(operator, *filters):
    return {"composite_filter": {"op": operator, "filters": list(filters)}}


ONE = {"integer_value": 1}
EQUALS_ONE = {"field_filter": {"field": {"field_path": "v"}, "op": "EQUAL", "value": ONE}}
CONTAINS_ONE = {"field_filter": {**EQUALS_ONE["field_filter"], "op": "ARRAY_CONTAINS"}}
NOT_ONE = {"field_filter": {**EQUALS_ONE["field_filter"], "op": "NOT_EQUAL"}}
NAME_IS_ONE = {"field_filter": {**EQUALS_ONE["field_filter"], "field": {"field_path": "__name__"}}}
IN_ONE = {"field_filter": {**EQUALS_ONE["field_filter"], "op": "IN"}}
BY_V, BY_NAME = {"field": {"field_path": "v"}}, {"field": {"field_path": "__name__"}}


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"limit": -1}, "limit"),
        ({"offset": -1}, "offset"),
        ({"from_": [{"collection_id": "a"}, {"collection_id": "b"}]}, "more than one"),
        ({"from_": [{"collection_id": "a/b"}]}, "contains"),
        ({"from_": [{"collection_id": "__a__"}]}, "reserved"),
        ({"where": {}}, "Unknown Filter"),
        ({"where": _join("OR")}, "at least one"),
        ({"where": _join("OPERATOR_UNSPECIFIED", EQUALS_ONE)}, "CompositeFilter"),
        ({"where": IN_ONE}, "requires an ArrayValue"),
        ({"where": _filter("IN")}, "non-empty"),
        ({"where": _filter("IN", *range(31))}, "up to 30"),
        ({"where": _filter("NOT_IN", *range(11))}, "up to 10"),
        ({"where": _filter("ARRAY_CONTAINS_ANY", *range(31))}, "up to 30"),
        ({"where": _join("AND", CONTAINS_ONE, _filter("ARRAY_CONTAINS_ANY", 2))}, "maximum of 1"),
        ({"where": _join("AND", NOT_ONE, NOT_ONE)}, "single"),
        ({"where": _join("OR", EQUALS_ONE, _filter("NOT_IN", 2))}, "NOT_IN"),
        (
            {"where": _join("AND", _filter("IN", *range(6)), _filter("IN", *range(6), field="w"))},
            "36 disjunctions",
        ),
        ({"where": NAME_IS_ONE}, "Key"),
        ({"order_by": [BY_V, BY_V]}, "duplicate"),
        ({"order_by": [BY_NAME, BY_V]}, "after the key"),
        ({"order_by": [BY_V], "start_at": {"values": [ONE, ONE]}}, "too many"),
        ({"order_by": [BY_NAME], "start_at": {"values": [ONE]}}, "reference"),
        ({"select": {"fields": [{"field_path": "`v"}]}}, "path"),
    ],
)
def test_malformed_queries_are_refused(raw, collection, query, message):
    """What no query can have, or not together, fails with InvalidArgument, which names it."""
    query = {"from_": [{"collection_id": collection.id}], **query}
    with pytest.raises(exceptions.InvalidArgument, match=message):
        list(raw.call("run_query", parent=f"{raw.database}/documents", structured_query=query))


class TestCollectionGroup:
    """The rescue query: the leases of all runs, by expiry."""

    @pytest.fixture
    def group(self, client, collection):
        """Create three leases in two runs and one deeper, in a new collection group."""
        self.name = f"g{uuid.uuid4().hex}"
        for path, expires in {
            f"a/{self.name}/k0": 3,
            f"i/{self.name}/k1": 1,
            f"i/{self.name}/k1/deep/z/{self.name}/q": 1,
            f"k/{self.name}/k2": 2,
        }.items():
            client.document(f"{collection.id}/{path}").set(
                {"expiresAt": NOW + timedelta(seconds=expires), "e": expires}
            )
        client.document(f"{collection.id}/a/other/k9").set({"expiresAt": NOW})
        return client.collection_group(self.name)

    def test_all_of_the_group_by_path(self, group):
        """A collection group query returns every depth of the group, and no other collection, by path."""
        assert _ids(group) == ["k0", "k1", "q", "k2"]

    def test_expired_ones_in_order(self, group):
        """`expiresAt < x` returns leases by expiry, equal ones by path."""
        query = group.where(filter=FieldFilter("expiresAt", "<", NOW + timedelta(seconds=3))).order_by(
            "expiresAt"
        )
        assert _ids(query) == ["k1", "q", "k2"]
        assert _ids(query.limit(2)) == ["k1", "q"]
        assert _ids(query.offset(1).limit(5)) == ["q", "k2"]

    def test_descending_ties_are_descending_too(self, group):
        """With a descending order, equal values are ordered by descending name."""
        assert _ids(group.order_by("e", direction="DESCENDING")) == ["k0", "k2", "q", "k1"]

    def test_paging_with_a_snapshot(self, group):
        """`start_after` with a snapshot continues behind it, also among equal values."""
        first = next(iter(group.order_by("expiresAt").limit(1).stream()))
        assert first.id == "k1"
        assert _ids(group.order_by("expiresAt").start_after(first)) == ["q", "k2", "k0"]
        assert _ids(group.order_by("expiresAt").start_at(first)) == ["k1", "q", "k2", "k0"]

    def test_paging_with_values(self, group):
        """A cursor by value is before or after all documents with that value."""
        assert _ids(group.order_by("e").start_after({"e": 1})) == ["k2", "k0"]
        assert _ids(group.order_by("e").start_at({"e": 2})) == ["k2", "k0"]
        assert _ids(group.order_by("e").end_at({"e": 2})) == ["k1", "q", "k2"]
        assert _ids(group.order_by("e").end_before({"e": 2})) == ["k1", "q"]

    def test_the_last_ones(self, group):
        """`limit_to_last` returns the last documents."""
        assert [snapshot.id for snapshot in group.order_by("e").limit_to_last(2).get()] == ["k2", "k0"]


def test_an_empty_result_has_a_read_time(raw, collection):
    """An empty query result has a read time, which the rescue query compares with expiry times."""
    query = {"from_": [{"collection_id": collection.id}]}
    parent = f"{raw.database}/documents"
    (answer,) = raw.call("run_query", parent=parent, structured_query=query)
    assert answer.read_time.year >= 2024
    assert not answer.document.name
    written = collection.document("a").set({"x": 1}).update_time
    (answer,) = raw.call("run_query", parent=parent, structured_query=query)
    assert answer.read_time >= written
