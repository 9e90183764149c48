"""Field paths: quoting by Google's client, and raw masks."""

from __future__ import annotations

import pytest
from google.api_core import exceptions
from google.cloud.firestore_v1 import _helpers
from google.cloud.firestore_v1.field_path import FieldPath

pytestmark = pytest.mark.serves("Write.update_mask")


def _update(document, fields, mask, **more):
    name = document._document_path
    update = {"name": name, "fields": _helpers.encode_dict(fields)}
    return {"update": update, "update_mask": {"field_paths": mask}, **more}


@pytest.mark.parametrize(
    "step",
    ["charts:1M:ctpl_x", "with space", "dash-ed", "1st", "é", "漢字", "quote`d", "back\\slash", "a\\`b"],
)
def test_a_step_with_any_name_is_updated_alone(collection, step):
    """The client quotes a step's name in a dotted update; the other steps stay unchanged."""
    document = collection.document("d")
    document.set({"steps": {step: {"status": "READY", "kept": 1}, "other": {"status": "READY"}}})
    document.update({FieldPath("steps", step, "status").to_api_repr(): "RUNNING"})
    expected = {"steps": {step: {"status": "RUNNING", "kept": 1}, "other": {"status": "READY"}}}
    assert document.get().to_dict() == expected
    masked = document.get(field_paths=[FieldPath("steps", step, "status").to_api_repr()])
    assert masked.to_dict() == {"steps": {step: {"status": "RUNNING"}}}


def test_plain_dotted_updates_split_at_dots(collection):
    """`update` splits plain paths at dots and needs no quotes for ids with colons."""
    document = collection.document("d")
    document.set({"steps": {"a:b": {"x": 1, "y": 1}}})
    document.update({"steps.a:b.x": 2})
    assert document.get().to_dict() == {"steps": {"a:b": {"x": 2, "y": 1}}}


def test_a_raw_mask_sets_and_deletes(raw, collection):
    """A masked field without a value is deleted; fields outside the mask stay."""
    document = collection.document("d")
    document.set({"m": {"a:b": 1, "c": 2}, "x": 1})
    raw.commit(_update(document, {"m": {"a:b": 9, "ignored": 1}}, ["m.`a:b`", "m.c", "gone.k"]))
    assert document.get().to_dict() == {"m": {"a:b": 9}, "x": 1}


def test_an_empty_mask_changes_nothing(raw, collection):
    """A mask without paths changes no field; a missing document is created empty."""
    document = collection.document("d")
    first = document.set({"a": 1})
    raw.commit(_update(document, {"b": 1}, []))
    assert document.get().to_dict() == {"a": 1}
    assert document.get().update_time == first.update_time
    raw.commit(_update(collection.document("new"), {"b": 1}, []))
    assert collection.document("new").get().to_dict() == {}


@pytest.mark.parametrize(
    "path",
    [
        "a:b",
        "",
        "a..b",
        ".a",
        "a.",
        "`a",
        "1a",
        "a-b",
        "é",
        "``",
        "`a`b",
        "__x__",
        "a.__x__",
        "a b",
        "a/b",
        "a[0]",
        "a*",
    ],
)
def test_malformed_paths_are_refused(raw, collection, path):
    """A malformed path in the mask of a write fails with InvalidArgument."""
    document = collection.document("d")
    document.set({"a": 1})
    with pytest.raises(exceptions.InvalidArgument):
        raw.commit(_update(document, {"a": 2}, [path]))
    assert document.get().to_dict() == {"a": 1}


@pytest.mark.parametrize("path", ["a:b", "`a", "1a"])
def test_malformed_paths_are_refused_in_reads(collection, path):
    """A malformed path in the mask of a read fails with InvalidArgument."""
    with pytest.raises(exceptions.InvalidArgument):
        collection.document("d").get(field_paths=[path])


def test_quotes_around_a_plain_name_mean_the_name(raw, collection):
    """A quoted plain name is the same field as the name without quotes."""
    document = collection.document("d")
    raw.commit(_update(document, {"q": 1, "w`\\": 2}, ["`q`", "`w\\`\\\\`"]))
    assert document.get().to_dict() == {"q": 1, "w`\\": 2}


def test_a_masked_write_without_precondition_creates(raw, collection):
    """An update with a mask and no precondition creates a missing document."""
    document = collection.document("d")
    raw.commit(_update(document, {"a": 1, "b": 2}, ["a"]))
    assert document.get().to_dict() == {"a": 1}
