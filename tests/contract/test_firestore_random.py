"""Random writes have the same results on the embedded and on the official Firestore."""

from __future__ import annotations

import random
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from google.api_core import exceptions
from google.cloud import firestore
from google.cloud.firestore_v1 import _helpers
from google.cloud.firestore_v1.field_path import FieldPath

from tests.support.cloud.clouds import PROJECT, clients_find

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.official, pytest.mark.serves("Commit")]

NAMES = ("a", "b", "s:1", "é`\\")
VALUES: tuple[Any, ...] = (
    None,
    True,
    0,
    1,
    1.0,
    "x",
    "",
    b"",
    [],
    [1, {"a": 1}],
    {},
    {"a": 1},
    {"a": {"b": 2}, "s:1": 3},
)
STEPS = 40


@dataclass
class Side:
    """One of the two clouds: its client, and the known update time of each document."""

    client: firestore.Client
    collection: str
    times: dict[str, list[Any]]

    def name(self, document: str) -> str:
        """Return the full name of a document."""
        return str(self.client.document(self.collection, document)._document_path)

    def apply(self, method: str, plan: list[dict[str, Any]]) -> Any:
        """Apply one planned action; return its outcome without times and messages."""
        writes = [self._write(item) for item in plan]
        request = {"database": self.client._database_string, "writes": writes}
        rpc = getattr(self.client._firestore_api, method)
        try:
            answer = rpc(request=request, retry=None, timeout=20, metadata=self.client._rpc_metadata)
        except exceptions.GoogleAPICallError as error:
            return type(error).__name__
        codes = [status.code for status in answer.status] if method == "batch_write" else [0] * len(plan)
        return [(code, self._moved(item["document"])) for code, item in zip(codes, plan, strict=True)]

    def _write(self, item: dict[str, Any]) -> dict[str, Any]:
        name = self.name(item["document"])
        write: dict[str, Any] = {"delete": name}
        if item["kind"] != "delete":
            write = {"update": {"name": name, "fields": _helpers.encode_dict(item["fields"])}}
        if item["kind"] == "mask":
            write["update_mask"] = {"field_paths": item["mask"]}
        if "exists" in item:
            write["current_document"] = {"exists": item["exists"]}
        elif "age" in item and self.times.get(item["document"]):
            times = self.times[item["document"]]
            write["current_document"] = {"update_time": times[-1 - min(item["age"], len(times) - 1)]}
        return write

    def _moved(self, document: str) -> bool:
        """Return whether the document's update time changed, and store it."""
        snapshot = self.client.document(self.collection, document).get()
        seen = self.times.setdefault(document, [])
        if not snapshot.exists or (seen and seen[-1] == snapshot.update_time):
            return False
        seen.append(snapshot.update_time)
        return True

    def state(self) -> dict[str, Any]:
        """Return all documents."""
        found = self.client.collection(self.collection).stream()
        # repr differs for 1, 1.0 and True, which are equal in Python.
        return {snapshot.id: repr(_sorted(snapshot.to_dict())) for snapshot in found}


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(item) for item in value] if isinstance(value, list) else value


@pytest.fixture
def sides(embedded, official) -> Iterator[list[Side]]:
    """Return both clouds, with a new collection."""
    collection = f"c{uuid.uuid4().hex}"
    made = []
    for cloud in (embedded, official):
        with clients_find(cloud.environment()):
            made.append(Side(firestore.Client(project=PROJECT), collection, {}))
    yield made
    for side in made:
        side.client.close()


def _plan(chance: random.Random, document: str) -> dict[str, Any]:
    item: dict[str, Any] = {
        "document": document,
        "kind": chance.choice(("set", "mask", "mask", "mask", "delete")),
    }
    item["fields"] = {name: chance.choice(VALUES) for name in chance.sample(NAMES, chance.randint(0, 3))}
    paths = {tuple(chance.choices(NAMES, k=chance.randint(1, 3))) for _ in range(chance.randint(0, 3))}
    # No overlapping paths: the meaning of a mask with `a` and `a.b` is not documented.
    single = [
        path for path in paths if not any(path != other and path[: len(other)] == other for other in paths)
    ]
    item["mask"] = sorted(FieldPath(*path).to_api_repr() for path in single)
    condition = chance.random()
    if condition < 0.25:
        item["exists"] = chance.random() < 0.7
    elif condition < 0.5:
        item["age"] = chance.choice((0, 0, 0, 1, 2))
    return item


@pytest.mark.parametrize("seed", range(4))
def test_random_writes_end_as_on_the_official_emulator(sides, seed):
    """Random writes give the same codes, changed update times and fields on both clouds."""
    chance = random.Random(seed)  # noqa: S311 - chance for a test, repeatable on purpose
    for _ in range(STEPS):
        method = chance.choice(("commit", "commit", "batch_write"))
        plan = [_plan(chance, document) for document in chance.sample(("x", "y", "z"), chance.randint(1, 3))]
        outcomes = [side.apply(method, plan) for side in sides]
        assert outcomes[0] == outcomes[1], (method, plan)
        embedded, official = (side.state() for side in sides)
        assert embedded == official, (method, plan)
