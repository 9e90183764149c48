"""The ordinary things of an orchestrator with Google's asynchronous Firestore client."""

from __future__ import annotations

import asyncio

import pytest
from google.cloud import firestore
from google.cloud.firestore_v1 import FieldFilter

from tests.support.cloud.clouds import PROJECT, clients_find


@firestore.async_transactional
async def _move(transaction, source, target):
    n = (await source.get(transaction=transaction)).get("n")
    transaction.update(source, {"n": n - 1})
    transaction.set(target, {"n": n})


async def _use(name):
    client = firestore.AsyncClient(project=PROJECT)
    collection = client.collection(name)
    a, b = collection.document("A1"), collection.document("b")
    await a.set({"n": 1})
    await a.update({"n": firestore.Increment(4)})
    await _move(client.transaction(), a, b)
    batch = client.batch()
    batch.create(collection.document("c"), {"n": 9})
    batch.set(a.collection("below").document("2"), {"n": 0})
    await batch.commit()
    query = collection.where(filter=FieldFilter("n", ">", 4)).order_by("n")
    found = [(snapshot.id, snapshot.get("n")) async for snapshot in query.stream()]
    total = (await collection.sum("n", alias="total").get())[0][0].value
    writer = client.bulk_writer()
    deleted = await client.recursive_delete(collection, bulk_writer=writer)
    writer.close()
    left = [snapshot.id async for snapshot in client.collection_group(name).stream()]
    left += [snapshot.id async for snapshot in a.collection("below").stream()]
    return found, total, deleted, left


@pytest.mark.serves("BeginTransaction", "BatchWrite", "RunQuery", "RunAggregationQuery")
def test_the_asynchronous_client(environment, collection):
    """The asynchronous client writes, has transactions and batches, queries, sums up and deletes."""
    with clients_find(environment):  # also the client for the deletes, which it makes later
        found, total, deleted, left = asyncio.run(_use(collection.id))
    assert found == [("b", 5), ("c", 9)]
    assert (total, deleted, left) == (18, 4, [])
