"""Firestore reads: batches, masks, read times, lists."""

from __future__ import annotations

import pytest
from google.api_core import exceptions

pytestmark = pytest.mark.serves("BatchGetDocuments")


def _batch_get(raw, *documents, **more):
    names = [document._document_path for document in documents]
    return list(raw.call("batch_get_documents", database=raw.database, documents=names, **more))


def test_missing_documents_are_reported(client, collection):
    """`get_all` returns a result for each document; a missing one has a read time too."""
    collection.document("a").set({"x": 1})
    found = {
        snapshot.id: snapshot for snapshot in client.get_all([collection.document(name) for name in "ab"])
    }
    assert found["a"].to_dict() == {"x": 1}
    assert not found["b"].exists
    assert found["b"].read_time == found["a"].read_time


def test_a_document_requested_twice_is_returned_once(raw, collection):
    """A document requested twice is returned once."""
    document = collection.document("a")
    document.set({"x": 1})
    assert len(_batch_get(raw, document, document)) == 1


def test_a_mask_of_absent_fields_finds_an_empty_document(collection):
    """A mask of absent fields returns an empty document that exists and has its times."""
    document = collection.document("a")
    update_time = document.set({"x": {"y": 1, "z": 2}, "w": 1}).update_time
    assert document.get(field_paths=["x.y", "nope.k"]).to_dict() == {"x": {"y": 1}}
    masked = document.get(field_paths=["nope"])
    assert masked.exists
    assert masked.to_dict() == {}
    assert masked.update_time == update_time


def test_an_empty_mask_reads_no_fields(raw, collection):
    """A mask without paths returns the document without fields."""
    document = collection.document("a")
    document.set({"x": 1})
    (answer,) = _batch_get(raw, document, mask={"field_paths": []})
    assert answer.found.name == document._document_path
    assert not answer.found.fields


def test_a_read_at_an_earlier_time_sees_the_document_of_then(raw, collection):
    """A read at an earlier time returns the document's version of that time."""
    document = collection.document("a")
    first = document.set({"x": 1}).update_time
    second = document.set({"x": 2}).update_time
    document.delete()
    then = [_batch_get(raw, document, read_time=instant)[0].found for instant in (first, second)]
    assert [found.fields["x"].integer_value for found in then] == [1, 2]
    assert not document.get().exists


def test_a_read_of_the_future_is_refused(raw, collection):
    """A read time in the future fails with InvalidArgument."""
    with pytest.raises(exceptions.InvalidArgument):
        _batch_get(raw, collection.document("a"), read_time={"seconds": 4_000_000_000})


@pytest.mark.parametrize("path", ["", "/only-a-collection", "/a/b/c", "/c/.."])
def test_names_that_are_no_documents_are_refused(raw, path):
    """Reading a name that is not a document name fails with InvalidArgument."""
    with pytest.raises(exceptions.InvalidArgument):
        list(
            raw.call(
                "batch_get_documents", database=raw.database, documents=[f"{raw.database}/documents{path}"]
            )
        )


@pytest.mark.serves("ListDocuments")
def test_listing_a_collection(collection):
    """A collection is listed by name with missing parents, with every page size."""
    for name in ("b", "a", "é", "c"):
        collection.document(name).set({"x": 1})
    collection.document("ghost").collection("sub").document("d").set({})
    names = [document.id for document in collection.list_documents()]
    assert names == ["a", "b", "c", "ghost", "é"]
    assert [document.id for document in collection.list_documents(page_size=2)] == names


@pytest.mark.serves("ListCollectionIds")
def test_listing_collections(collection):
    """Only the collections directly below a document are listed."""
    document = collection.document("d")
    document.collection("two").document("x").set({})
    document.collection("one").document("x").collection("deep").document("y").set({})
    assert [found.id for found in document.collections()] == ["one", "two"]
    assert list(collection.document("none").collections()) == []
