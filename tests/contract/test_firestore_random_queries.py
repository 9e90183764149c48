"""Random queries have the same results on the embedded and on the official Firestore."""

from __future__ import annotations

import random
from typing import Any

import pytest
from google.api_core import exceptions

from tests.contract.test_firestore_random import sides  # noqa: F401 - a fixture

pytestmark = [pytest.mark.official, pytest.mark.serves("RunQuery")]

_VALUES: tuple[Any, ...] = (
    {"null_value": 0},
    {"boolean_value": True},
    {"integer_value": 1},
    {"integer_value": 2},
    {"double_value": 1.5},
    {"double_value": float("nan")},
    {"string_value": "a"},
    {"string_value": "b"},
    {"array_value": {"values": [{"integer_value": 1}, {"string_value": "a"}]}},
    {"map_value": {"fields": {"x": {"integer_value": 1}}}},
)
_OPERATORS = (
    "EQUAL",
    "NOT_EQUAL",
    "LESS_THAN",
    "LESS_THAN_OR_EQUAL",
    "GREATER_THAN",
    "GREATER_THAN_OR_EQUAL",
)
_LIST_OPERATORS = ("IN", "NOT_IN", "ARRAY_CONTAINS_ANY")
_UNARY = ("IS_NULL", "IS_NAN", "IS_NOT_NULL", "IS_NOT_NAN")
_FIELDS = ("a", "b")
QUERIES = 60


def _leaf(chance: random.Random) -> dict[str, Any]:
    field = {"field_path": chance.choice(_FIELDS)}
    kind = chance.random()
    if kind < 0.15:
        return {"unary_filter": {"op": chance.choice(_UNARY), "field": field}}
    if kind < 0.4:
        values = {"array_value": {"values": chance.sample(_VALUES[:8], chance.randint(1, 3))}}
        return {"field_filter": {"op": chance.choice(_LIST_OPERATORS), "field": field, "value": values}}
    operator = chance.choice((*_OPERATORS, "ARRAY_CONTAINS"))
    return {"field_filter": {"op": operator, "field": field, "value": chance.choice(_VALUES)}}


def _filter(chance: random.Random, depth: int = 0) -> dict[str, Any]:
    if depth == 2 or chance.random() < 0.6:
        return _leaf(chance)
    parts = [_filter(chance, depth + 1) for _ in range(chance.randint(1, 3))]
    return {"composite_filter": {"op": chance.choice(("AND", "OR")), "filters": parts}}


def _query(chance: random.Random, collection: str) -> dict[str, Any]:
    query: dict[str, Any] = {"from_": [{"collection_id": collection}]}
    if chance.random() < 0.9:
        query["where"] = _filter(chance)
    fields = chance.sample(_FIELDS, chance.randint(0, 2))
    direction = ("ASCENDING", "DESCENDING")
    query["order_by"] = [
        {"field": {"field_path": field}, "direction": chance.choice(direction)} for field in fields
    ]
    if fields and chance.random() < 0.3:
        query["start_at"] = {"values": [chance.choice(_VALUES)], "before": chance.random() < 0.5}
    if chance.random() < 0.3:
        query["limit"] = chance.randint(1, 5)
    return query


def _run(side: Any, query: dict[str, Any]) -> Any:
    client = side.client
    request = {"parent": f"{client._database_string}/documents", "structured_query": query}
    try:
        found = list(
            client._firestore_api.run_query(request=request, retry=None, metadata=client._rpc_metadata)
        )
    except exceptions.GoogleAPICallError as error:
        return type(error).__name__
    return [answer.document.name.rpartition("/")[2] for answer in found]


@pytest.mark.parametrize("seed", range(2))
def test_random_queries_find_what_the_official_emulator_finds(sides, seed):  # noqa: F811 - the fixture
    """Random filters, orders, cursors and limits find the same documents in the same order on both clouds."""
    chance = random.Random(seed)  # noqa: S311 - chance for a test, repeatable on purpose
    writes = []
    for number in range(20):
        fields = {name: chance.choice(_VALUES) for name in _FIELDS if chance.random() < 0.85}
        writes.append((f"d{number:02}", fields))
    for side in sides:
        request = {
            "database": side.client._database_string,
            "writes": [{"update": {"name": side.name(name), "fields": fields}} for name, fields in writes],
        }
        side.client._firestore_api.commit(request=request, metadata=side.client._rpc_metadata)
    for _ in range(QUERIES):
        query = _query(chance, sides[0].collection)
        embedded, official = (_run(side, query) for side in sides)
        assert embedded == official, query
