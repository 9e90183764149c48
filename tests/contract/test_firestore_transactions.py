"""Firestore transactions: what they see, whom they make wait, and how they end."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor, wait

import pytest
from google.api_core import exceptions
from google.cloud import firestore
from google.cloud.firestore_v1 import FieldFilter
from google.cloud.firestore_v1.types import Document, Write

pytestmark = pytest.mark.serves("BeginTransaction")


def _begin(raw, **options):
    return raw.call("begin_transaction", database=raw.database, options=options).transaction


def _read(raw, document, **consistency):
    names = [document._document_path]
    return list(raw.call("batch_get_documents", database=raw.database, documents=names, **consistency))


def _write(document):
    return Write(update=Document(name=document._document_path))


def _commit(raw, transaction, *documents):
    writes = [_write(document) for document in documents]
    return raw.call("commit", database=raw.database, transaction=transaction, writes=writes)


def test_a_transaction_reads_and_writes(client, collection):
    """A transaction reads documents and queries, then writes; its result is that of the function."""
    document = collection.document("a")
    document.set({"n": 1})

    @firestore.transactional
    def count(transaction):
        found = list(collection.where(filter=FieldFilter("n", ">", 0)).stream(transaction=transaction))
        n = document.get(transaction=transaction).get("n")
        transaction.set(document, {"n": n + len(found)})
        transaction.create(collection.document("b"), {"n": 7})
        return n

    assert count(client.transaction()) == 1
    assert {snapshot.id: snapshot.get("n") for snapshot in collection.stream()} == {"a": 2, "b": 7}


@pytest.mark.serves("BeginTransaction.retry_transaction", "Commit.transaction")
def test_transactions_on_one_document_are_all_counted(client, collection):
    """Of two transactions with one document one is aborted after two seconds, begins anew and counts too."""
    document = collection.document("a")
    document.set({"n": 0})
    both_have_read, seen = threading.Barrier(2), []

    @firestore.transactional
    def add_one(transaction):
        n = document.get(transaction=transaction).get("n")
        seen.append(n)
        if n == 0 and len(seen) <= both_have_read.parties:
            both_have_read.wait(10)
        transaction.update(document, {"n": n + 1})

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: add_one(client.transaction()), range(2)))
    assert (seen[:2], seen[-1]) == ([0, 0], 1)
    assert document.get().get("n") == 2


@pytest.mark.serves("Commit.transaction")
def test_a_writer_waits_for_the_transaction_that_has_read(raw, collection):
    """A writer outside waits for the transaction that has read the document, and then writes."""
    document = collection.document("a")
    transaction = _begin(raw)
    _read(raw, document, transaction=transaction)
    done = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(lambda: (document.set({"by": "other"}), done.set()))
        assert not done.wait(0.3)
        first = _commit(raw, transaction, document)
        writing.result(10)
    assert document.get().to_dict() == {"by": "other"}
    assert document.get().create_time == first.write_results[0].update_time


@pytest.mark.serves("Commit.transaction")
def test_a_writer_does_not_wait_for_ever(raw, collection):
    """After two seconds a writer ends with Aborted, alone or in a batch; the transaction can still commit."""
    read, queried, free = (collection.document(name) for name in ("read", "a/below/queried", "free"))
    transaction = _begin(raw)
    _read(raw, read, transaction=transaction)
    query = {"from_": [{"collection_id": "below"}]}
    list(
        raw.call(
            "run_query",
            parent=collection.document("a")._document_path,
            structured_query=query,
            transaction=transaction,
        )
    )
    with ThreadPoolExecutor(2) as pool:
        alone = pool.submit(raw.commit, _write(read))
        batch = pool.submit(raw.batch_write, _write(queried), _write(free))
        with pytest.raises(exceptions.Aborted, match="lock"):
            alone.result(10)
        assert [status.code for status in batch.result(10).status] == [10, 0]
    _commit(raw, transaction, read, queried)


@pytest.mark.serves("Rollback")
def test_a_rollback_frees_the_documents(raw, collection):
    """After a rollback others write at once, and the transaction is closed."""
    document = collection.document("a")
    transaction = _begin(raw)
    _read(raw, document, transaction=transaction)
    raw.call("rollback", database=raw.database, transaction=transaction)
    raw.commit(_write(document))
    with pytest.raises(exceptions.InvalidArgument, match="closed"):
        _commit(raw, transaction, document)
    raw.call("rollback", database=raw.database, transaction=transaction)


@pytest.mark.serves("Commit.transaction", "Rollback")
def test_a_transaction_that_waits_commits_once(raw, collection):
    """Of several commits of one transaction that wait for another one, only the first has an effect."""
    document = collection.document("a")
    document.set({"n": 0})
    other, transaction = _begin(raw), _begin(raw)
    _read(raw, document, transaction=other)
    increment = {"field_path": "n", "increment": {"integer_value": 1}}
    write = {"transform": {"document": document._document_path, "field_transforms": [increment]}}

    def commit():
        return raw.call("commit", database=raw.database, transaction=transaction, writes=[write])

    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(commit) for _ in range(2)]
        assert wait(waiting, timeout=0.3).not_done
        raw.call("rollback", database=raw.database, transaction=other)
        failed = [call.exception(10) for call in waiting]
    assert sorted(error is None for error in failed) == [False, True]
    assert document.get().to_dict() == {"n": 1}


def test_a_failed_commit_ends_the_transaction(raw, collection):
    """A commit whose precondition fails ends its transaction."""
    transaction = _begin(raw)
    missing = {"delete": collection.document("a")._document_path, "current_document": {"exists": True}}
    with pytest.raises(exceptions.NotFound):
        raw.call("commit", database=raw.database, transaction=transaction, writes=[missing])
    with pytest.raises(exceptions.InvalidArgument, match="closed"):
        _commit(raw, transaction)


@pytest.mark.serves("BeginTransaction.read_only")
def test_a_read_only_transaction_sees_one_instant(client, collection):
    """A read-only transaction sees the documents of its beginning, holds nobody up, and writes nothing."""
    document = collection.document("a")
    document.set({"n": 1})
    transaction = client.transaction(read_only=True)
    transaction._begin()
    document.set({"n": 2})
    collection.document("b").set({})
    assert document.get(transaction=transaction).to_dict() == {"n": 1}
    assert [snapshot.id for snapshot in collection.stream(transaction=transaction)] == ["a"]
    assert collection.count().get(transaction=transaction)[0][0].value == 1
    transaction._commit()


@pytest.mark.serves("BeginTransaction.read_only")
def test_a_read_only_transaction_can_see_a_past_instant(raw, collection):
    """A read-only transaction with a read time sees the documents of that time; the future is refused."""
    document = collection.document("a")
    then = document.set({"n": 1}).update_time
    document.set({"n": 2})
    (answer,) = _read(raw, document, transaction=_begin(raw, read_only={"read_time": then}))
    assert answer.found.fields["n"].integer_value == 1
    for seconds, error in (
        (4_000_000_000, exceptions.InvalidArgument),
        (1000, exceptions.FailedPrecondition),
    ):
        with pytest.raises(error, match="read_time"):
            _begin(raw, read_only={"read_time": {"seconds": seconds}})


@pytest.mark.serves("BeginTransaction.read_only")
def test_a_read_only_transaction_can_not_write(raw, collection):
    """A write in a read-only transaction fails with InvalidArgument."""
    with pytest.raises(exceptions.InvalidArgument, match="read-only"):
        _commit(raw, _begin(raw, read_only={}), collection.document("a"))


@pytest.mark.serves("BatchGetDocuments.new_transaction", "RunQuery.new_transaction")
def test_a_read_can_begin_a_transaction(raw, collection):
    """The first message of a read with `new_transaction` names the transaction; the results follow."""
    document = collection.document("a")
    document.set({"n": 1})
    parent, query = f"{raw.database}/documents", {"from_": [{"collection_id": collection.id}]}
    counted = {"structured_query": query, "aggregations": [{"alias": "n", "count": {}}]}
    new = {"new_transaction": {"read_only": {}}}
    for messages in (
        _read(raw, document, **new),
        list(raw.call("run_query", parent=parent, structured_query=query, **new)),
        list(raw.call("run_aggregation_query", parent=parent, structured_aggregation_query=counted, **new)),
    ):
        assert [bool(message.transaction) for message in messages] == [True, False]
        assert messages[1].read_time
        _commit(raw, messages[0].transaction)


@pytest.mark.parametrize("transaction", [b"nope", b"12345678"])
@pytest.mark.serves("Rollback")
def test_an_unknown_transaction_is_refused(raw, collection, transaction):
    """Reads, commits, rollbacks and retries of an unknown transaction fail with InvalidArgument."""
    for call in (
        lambda: _read(raw, collection.document("a"), transaction=transaction),
        lambda: _commit(raw, transaction),
        lambda: raw.call("rollback", database=raw.database, transaction=transaction),
        lambda: _begin(raw, read_write={"retry_transaction": transaction}),
    ):
        with pytest.raises(exceptions.InvalidArgument, match="transaction"):
            call()


def test_a_malformed_database_is_refused(raw):
    """A database that is not `projects/P/databases/D` fails with InvalidArgument, which names it."""
    for method in ("begin_transaction", "commit"):
        with pytest.raises(exceptions.InvalidArgument, match='"nope"'):
            raw.call(method, database="nope")
