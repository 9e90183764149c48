"""Firestore lists by pages, and reads of collections at a past time."""

from __future__ import annotations

import time

import pytest
from google.api_core import exceptions

pytestmark = pytest.mark.serves("ListDocuments")

PAST, FUTURE = {"seconds": 1000}, {"seconds": 4_000_000_000}


def _list(raw, collection, **request):
    request = {"parent": f"{raw.database}/documents", "collection_id": collection.id, **request}
    return [document.name.rpartition("/")[2] for document in raw.call("list_documents", **request)]


@pytest.fixture
def numbered(collection):
    """Create documents that sort differently by name, `n` and `m`, and one without the fields."""
    for name, n, m in (("a", 2, 1), ("b", 1, 1), ("c", 3, 2), ("d", 1, 2)):
        collection.document(name).set({"n": n, "m`x": m})
    collection.document("without").set({})
    return collection


@pytest.mark.serves("ListDocuments.order_by")
@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("n", "bdac"),
        ("n desc", "cadb"),
        ("n, __name__ desc", "dbac"),
        ("`m\\`x` DESC, n", "dcba"),
    ],
)
def test_an_order(raw, numbered, order, expected):
    """A list has the given order; documents without the fields are not listed."""
    assert "".join(_list(raw, numbered, order_by=order)) == expected


@pytest.mark.serves("ListDocuments.mask")
def test_a_mask(raw, numbered):
    """A mask lists only its fields."""
    request = {"parent": f"{raw.database}/documents", "collection_id": numbered.id}
    listed = list(raw.call("list_documents", **request, mask={"field_paths": ["n"]}, page_size=2))
    assert [set(document.fields) for document in listed] == [{"n"}] * 4 + [set()]


@pytest.mark.parametrize(
    "request_",
    [
        {"order_by": "`n"},
        {"order_by": "n", "show_missing": True},
        {"page_size": -1},
        {"page_token": "xx"},
        {"mask": {"field_paths": ["`n"]}},
        {"read_time": FUTURE},
        {"parent": "nope"},
    ],
)
def test_malformed_lists_are_refused(raw, collection, request_):
    """A malformed order, size, token, mask, time or parent fails with InvalidArgument."""
    with pytest.raises(exceptions.InvalidArgument):
        _list(raw, collection, **request_)


@pytest.mark.serves("ListCollectionIds.page_size")
@pytest.mark.parametrize("page_size", [1, 2, 5])
def test_collections_come_by_pages(raw, collection, page_size):
    """Collections below a document are listed with every page size."""
    document = collection.document("d")
    for name in ("two", "one", "three"):
        document.collection(name).document("x").set({})
    request = {"parent": document._document_path, "page_size": page_size}
    assert list(raw.call("list_collection_ids", **request)) == ["one", "three", "two"]
    for wrong in ({"page_size": -1}, {"page_token": "zz"}, {"read_time": FUTURE}, {"parent": "nope"}):
        with pytest.raises(exceptions.InvalidArgument):
            raw.call("list_collection_ids", **{**request, **wrong})


@pytest.mark.serves(
    "RunQuery.read_time",
    "RunAggregationQuery.read_time",
    "ListDocuments.read_time",
    "ListCollectionIds.read_time",
)
def test_collections_at_a_past_time(raw, collection):
    """Queries, counts and lists with a read time see the documents of that time."""
    parent = collection.document("parent")
    parent.collection("before").document("x").set({})
    inner = parent.collection("before")
    then = inner.document("y").set({}).update_time
    inner.document("x").delete()
    inner.document("z").set({})
    parent.collection("after").document("x").set({})
    query = {"from_": [{"collection_id": "before"}]}
    where = {"parent": parent._document_path, "read_time": then}
    found = list(raw.call("run_query", **where, structured_query=query))
    assert [one.document.name.rpartition("/")[2] for one in found] == ["x", "y"]
    assert found[0].read_time == then
    counted = {"structured_query": query, "aggregations": [{"alias": "n", "count": {}}]}
    (answer,) = raw.call("run_aggregation_query", **where, structured_aggregation_query=counted)
    assert answer.result.aggregate_fields["n"].integer_value == 2
    listed = raw.call("list_documents", **where, collection_id="before")
    assert [document.name.rpartition("/")[2] for document in listed] == ["x", "y"]
    assert list(raw.call("list_collection_ids", **where)) == ["before"]


@pytest.mark.serves("BatchGetDocuments.read_time", "RunQuery.read_time")
@pytest.mark.parametrize(
    ("read_time", "error"),
    [
        (PAST, exceptions.FailedPrecondition),
        (FUTURE, exceptions.InvalidArgument),
        ({"seconds": int(time.time()) - 10, "nanos": 5}, exceptions.InvalidArgument),
    ],
)
def test_impossible_read_times_are_refused(raw, collection, read_time, error):
    """A read time that is over an hour ago, in the future, or finer than a microsecond is refused."""
    query = {"from_": [{"collection_id": collection.id}]}
    parent = f"{raw.database}/documents"
    document = collection.document("a")._document_path
    with pytest.raises(error):
        list(raw.call("run_query", parent=parent, structured_query=query, read_time=read_time))
    with pytest.raises(error):
        list(
            raw.call("batch_get_documents", database=raw.database, documents=[document], read_time=read_time)
        )


@pytest.mark.serves("PartitionQuery")
@pytest.mark.parametrize(
    ("splits", "sizes"), [(1, [4, 5]), (2, [3, 3, 3]), (4, [1, 2, 2, 2, 2]), (50, [1] * 9)]
)
def test_a_collection_group_is_split(client, collection, on_official, splits, sizes):
    """A collection group is split into queries of about equal size. Google's emulator does not serve that."""
    for number in range(9):
        collection.document(f"r{number}").collection(collection.id).document(str(number)).set({})
    group = client.collection_group(collection.id)
    if on_official:
        with pytest.raises(exceptions.MethodNotImplemented):
            list(group.get_partitions(splits))
        return
    parts = [[snapshot.id for snapshot in part.query().stream()] for part in group.get_partitions(splits)]
    assert [len(part) for part in parts] == sizes
    assert [name for part in parts for name in part] == [str(number) for number in range(9)]
