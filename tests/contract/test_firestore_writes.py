"""Firestore writes: preconditions, update times, atomicity, transforms, limits."""

from __future__ import annotations

import pytest
from google.api_core import exceptions
from google.cloud import firestore

from tests.support.cloud.clouds import PROJECT, clients_find

pytestmark = pytest.mark.serves("Commit")


def test_a_created_document_is_read_back(collection):
    """A created document is read back with the write's update time."""
    document = collection.document("run:1")
    written = document.create({"a": 1, "steps": {"s:1": {"status": "READY"}}, "none": None, "list": [1, "x"]})
    read = document.get()
    assert read.to_dict() == {"a": 1, "steps": {"s:1": {"status": "READY"}}, "none": None, "list": [1, "x"]}
    assert read.update_time == read.create_time == written.update_time
    assert read.read_time >= written.update_time


@pytest.mark.serves("Write.current_document")
def test_creating_an_existing_document_is_refused(collection):
    """Creating an existing document fails with AlreadyExists and leaves it unchanged."""
    document = collection.document("d")
    document.create({"a": 1})
    with pytest.raises(exceptions.AlreadyExists):
        document.create({"a": 2})
    assert document.get().to_dict() == {"a": 1}


@pytest.mark.serves("Write.current_document")
def test_updating_a_missing_document_is_refused(collection):
    """Updating a missing document fails with NotFound and creates nothing."""
    with pytest.raises(exceptions.NotFound):
        collection.document("d").update({"a": 1})
    assert not collection.document("d").get().exists


def test_an_update_keeps_siblings_and_the_create_time(collection):
    """An update changes only the named fields and keeps the create time."""
    document = collection.document("d")
    first = document.set({"steps": {"a": {"x": 1, "y": 2}, "b": {"x": 3}}, "other": 1})
    second = document.update({"steps.a.x": 9})
    read = document.get()
    assert read.to_dict() == {"steps": {"a": {"x": 9, "y": 2}, "b": {"x": 3}}, "other": 1}
    assert (read.create_time, read.update_time) == (first.update_time, second.update_time)
    assert second.update_time > first.update_time


def test_a_set_replaces_everything(collection):
    """`set` removes the fields that it does not name."""
    document = collection.document("d")
    document.set({"a": 1, "b": 2})
    document.set({"c": 3})
    assert document.get().to_dict() == {"c": 3}


def test_a_merge_keeps_what_it_does_not_name(collection):
    """`set(merge=True)` keeps the other fields and creates a missing document."""
    document = collection.document("d")
    document.set({"m": {"a": 1}}, merge=True)
    document.set({"m": {"b": 2}}, merge=True)
    assert document.get().to_dict() == {"m": {"a": 1, "b": 2}}


@pytest.mark.parametrize("write", [lambda d: d.update({"a": 1}), lambda d: d.set({"a": 1, "m": {"k": 1}})])
def test_a_write_that_changes_nothing_keeps_the_update_time(collection, write):
    """A write of equal values keeps the update time, so it can't serve as a fence."""
    document = collection.document("d")
    first = document.set({"a": 1, "m": {"k": 1}})
    assert write(document).update_time == first.update_time
    assert document.get().update_time == first.update_time


def test_one_commit_time_for_all_that_changed(client, collection):
    """The changed documents of a batch share its commit time; unchanged ones keep their update time."""
    same, other, third = (collection.document(name) for name in "abc")
    first = same.set({"a": 1})
    batch = client.batch()
    batch.update(same, {"a": 1})
    batch.set(other, {"a": 1})
    batch.set(third, {"a": 1})
    results = batch.commit()
    assert results[0].update_time == first.update_time
    assert results[1].update_time == results[2].update_time == batch.commit_time
    assert [snapshot.update_time for snapshot in (other.get(), third.get())] == [batch.commit_time] * 2


def test_commit_times_strictly_grow(collection):
    """Two commits never have the same commit time."""
    document = collection.document("d")
    times = [document.set({"n": number}).update_time for number in range(20)]
    assert times == sorted(set(times))


@pytest.mark.serves("Write.current_document")
def test_an_update_with_the_last_update_time_goes_through(client, collection):
    """An update with the last update time as its precondition succeeds."""
    document = collection.document("d")
    first = document.set({"a": 1})
    document.update({"a": 2}, option=client.write_option(last_update_time=first.update_time))
    assert document.get().to_dict() == {"a": 2}


@pytest.mark.serves("Write.current_document")
def test_an_update_with_a_read_update_time_goes_through(client, collection):
    """The update time of a snapshot is a valid precondition, like that of a write result."""
    document = collection.document("d")
    document.set({"a": 1})
    document.update({"a": 2}, option=client.write_option(last_update_time=document.get().update_time))
    assert document.get().to_dict() == {"a": 2}


@pytest.mark.serves("Write.current_document")
def test_a_stale_update_time_is_refused(client, collection):
    """An update with an old update time fails with FailedPrecondition and writes nothing."""
    document = collection.document("d")
    stale = document.set({"a": 1}).update_time
    document.set({"a": 2})
    with pytest.raises(exceptions.FailedPrecondition):
        document.update({"a": 3}, option=client.write_option(last_update_time=stale))
    with pytest.raises(exceptions.FailedPrecondition):
        document.delete(option=client.write_option(last_update_time=stale))
    assert document.get().to_dict() == {"a": 2}


@pytest.mark.serves("Write.current_document")
@pytest.mark.parametrize("update_time", [{"seconds": 4_000_000_000}, {"seconds": 1000, "nanos": 5}])
def test_an_impossible_update_time_is_refused(raw, collection, update_time):
    """An update time later than that of the document, or finer than a microsecond, is an InvalidArgument."""
    document = collection.document("d")
    document.set({"a": 1})
    with pytest.raises(exceptions.InvalidArgument):
        raw.commit({"delete": document._document_path, "current_document": {"update_time": update_time}})
    assert document.get().exists


@pytest.mark.serves("Write.current_document")
def test_an_update_time_on_a_missing_document_is_refused(client, collection):
    """An update time precondition on a missing document fails with FailedPrecondition, not NotFound."""
    stale = collection.document("other").set({"a": 1}).update_time
    with pytest.raises(exceptions.FailedPrecondition):
        collection.document("d").update({"a": 3}, option=client.write_option(last_update_time=stale))
    with pytest.raises(exceptions.FailedPrecondition):
        collection.document("d").delete(option=client.write_option(last_update_time=stale))


@pytest.mark.serves("Write.current_document")
def test_exists_preconditions_on_deletes(client, collection):
    """A delete with an `exists` precondition fails unless the precondition holds."""
    document = collection.document("d")
    with pytest.raises(exceptions.NotFound):
        document.delete(option=client.write_option(exists=True))
    document.set({})
    with pytest.raises(exceptions.AlreadyExists):
        document.delete(option=client.write_option(exists=False))
    document.delete(option=client.write_option(exists=True))
    assert not document.get().exists


def test_deleting_a_missing_document_is_fine(collection):
    """A delete without a precondition succeeds for a missing document."""
    collection.document("d").delete()


def test_a_document_made_again_has_a_new_create_time(collection):
    """A document that is deleted and created again has a new create time."""
    document = collection.document("d")
    document.set({"a": 1})
    first = document.get().create_time
    document.delete()
    document.set({"a": 1})
    assert document.get().create_time > first


@pytest.mark.serves("Write.current_document")
def test_a_batch_with_one_failing_precondition_writes_nothing(client, collection):
    """One failing precondition, at any place in the batch, prevents all its writes."""
    good, missing = collection.document("good"), collection.document("missing")
    batch = client.batch()
    batch.set(good, {"a": 1})
    batch.update(missing, {"a": 1})
    with pytest.raises(exceptions.NotFound):
        batch.commit()
    assert not good.get().exists


def test_later_writes_of_a_batch_see_earlier_ones(client, collection):
    """The writes of a batch apply in order; each precondition is checked after the writes before it."""
    document = collection.document("d")
    batch = client.batch()
    batch.create(document, {"a": 1})
    batch.update(document, {"b": 2})
    results = batch.commit()
    assert document.get().to_dict() == {"a": 1, "b": 2}
    assert results[0].update_time == results[1].update_time == document.get().update_time


def test_a_delete_has_no_update_time(raw, collection):
    """The write result of a delete has no update time."""
    document = collection.document("d")
    document.set({"a": 1})
    result = raw.commit({"delete": document._document_path}).write_results[0]
    assert not type(result).pb(result).HasField("update_time")


def test_deleting_fields_that_exist_or_not(collection):
    """DELETE_FIELD removes a field; an absent field, or one below a value that is no map, is no error."""
    document = collection.document("d")
    document.set({"a": 1, "m": {"x": 1, "y": 2}})
    document.update(
        {"m.x": firestore.DELETE_FIELD, "m.gone": firestore.DELETE_FIELD, "a.b.c": firestore.DELETE_FIELD}
    )
    assert document.get().to_dict() == {"a": 1, "m": {"y": 2}}
    update_time = document.get().update_time
    assert document.update({"nope.x": firestore.DELETE_FIELD}).update_time == update_time
    assert document.get().to_dict() == {"a": 1, "m": {"y": 2}}


def test_a_field_below_a_plain_value_makes_it_a_map(collection):
    """Updating a path below a plain value replaces that value by a map."""
    document = collection.document("d")
    document.set({"a": 1})
    document.update({"a.b": 2})
    assert document.get().to_dict() == {"a": {"b": 2}}


@pytest.mark.serves("Write.update_transforms")
def test_transforms(collection):
    """Increment, maximum, minimum, array union and array removal work."""
    document = collection.document("d")
    document.set({"n": 1, "max": 5, "min": 5, "u": [1], "r": [1, 2, 1]})
    document.update(
        {
            "n": firestore.Increment(2),
            "max": firestore.Maximum(9),
            "min": firestore.Minimum(9),
            "u": firestore.ArrayUnion([1, 2, 2]),
            "r": firestore.ArrayRemove([1]),
            "new": firestore.Increment(0.5),
        }
    )
    assert document.get().to_dict() == {"n": 3, "max": 9, "min": 5, "u": [1, 2], "r": [2], "new": 0.5}


@pytest.mark.serves("Write.update_transforms")
def test_server_timestamps_of_one_write_are_equal(collection):
    """All server timestamps of one write are equal and in whole milliseconds."""
    document = collection.document("d")
    document.set({"a": firestore.SERVER_TIMESTAMP, "b": {"c": firestore.SERVER_TIMESTAMP}})
    data = document.get().to_dict()
    assert data["a"] == data["b"]["c"]
    assert data["a"].microsecond % 1000 == 0
    assert abs((document.get().update_time - data["a"]).total_seconds()) < 5


@pytest.mark.parametrize(
    "fields",
    [
        {"x": "a" * 1_048_600},
        {"x": "a" * 1_000_000, "y": "b" * 60_000},
        {"__x__": 1},
        {"m": {"__x__": 1}},
        {"a": [[1]]},
    ],
    ids=["long value", "large document", "reserved name", "reserved inner name", "array in array"],
)
def test_values_that_no_document_can_hold_are_refused(collection, fields):
    """Values that no document can hold fail with InvalidArgument."""
    with pytest.raises(exceptions.InvalidArgument):
        collection.document("d").set(fields)


def test_nesting_has_a_limit(collection):
    """Twenty nested maps are accepted; more fail."""

    def nested(depth):
        return {} if depth == 0 else {"a": nested(depth - 1)}

    collection.document("d").set(nested(20))
    with pytest.raises(exceptions.InvalidArgument):
        collection.document("d").set(nested(23))


@pytest.mark.parametrize("name", ["__a__", "n" * 1501])
def test_ids_no_document_can_have_are_refused(collection, name):
    """Invalid document ids fail with InvalidArgument."""
    with pytest.raises(exceptions.InvalidArgument):
        collection.document(name).set({"a": 1})


def test_an_empty_write_is_refused(raw):
    """An empty write fails with InvalidArgument."""
    with pytest.raises(exceptions.InvalidArgument):
        raw.commit({})


def test_databases_are_separate(environment, collection):
    """A named database shares no document with the default one."""
    collection.document("d").set({"a": 1})
    with clients_find(environment):
        other = firestore.Client(project=PROJECT, database="named")
    assert not other.document(collection.id, "d").get().exists
    other.document(collection.id, "d").set({"a": 2})
    assert collection.document("d").get().to_dict() == {"a": 1}
    other.close()


@pytest.mark.parametrize(
    "value", [{"function_value": {"name": "f"}}, {"field_reference_value": "a"}, {"pipeline_value": {}}]
)
def test_values_of_pipelines_are_refused(raw, collection, value):
    """A value that only a pipeline has is refused in a document."""
    name = collection.document("d")._document_path
    for fields in ({"a": value}, {"a": {"array_value": {"values": [value]}}}):
        with pytest.raises(exceptions.InvalidArgument):
            raw.commit({"update": {"name": name, "fields": fields}})
