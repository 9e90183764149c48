"""The comparison of two template documents."""

from __future__ import annotations

import pytest

from daemon.cli.template_changes import Change, compare, field_changes


@pytest.mark.parametrize(
    ("before", "after", "lines"),
    [
        ({}, {}, []),
        ({"a": 1}, {"a": 1.0}, []),
        ({"a": 1}, {"a": True}, ["a: 1 -> true"]),
        ({"a": 1}, {"a": None}, ["a: 1 -> null"]),
        ({"a": None}, {}, ["a: removed null"]),
        ({}, {"a": {"b": 1}}, ['a: added {"b": 1}']),
        ({"a": {"b": [1, 2]}}, {"a": {"b": [1, 3, 4]}}, ["a.b[1]: 2 -> 3", "a.b[2]: added 4"]),
        ({"a": [1]}, {"a": {"0": 1}}, ['a: [1] -> {"0": 1}']),
        ({"\x1b": "x"}, {"\x1b": "\x07" * 200}, None),
    ],
)
def test_each_field_that_differs_is_named(before, after, lines):
    """A path and both values, short, and without characters that control a terminal."""
    found = [str(change) for change in field_changes(before, after)]
    assert lines is None or found == lines
    assert all(line.isprintable() and len(line) < 300 for line in found)


def test_a_template_that_is_not_stored_is_created():
    """There are no fields to compare."""
    comparison = compare("t", None, {"a": 1})
    assert (comparison.change, comparison.fields) == (Change.CREATED, ())
    assert comparison.to_dict() == {"id": "t", "change": "created", "changes": []}
