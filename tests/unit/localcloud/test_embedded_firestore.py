"""The embedded Firestore's faults, counters, restart, and differences from the official emulator."""

from __future__ import annotations

import itertools
import queue
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from google.api_core import exceptions, retry
from google.cloud.firestore_v1 import types
from google.cloud.firestore_v1.types import CommitRequest

from localcloud import Fault
from localcloud.firestore import write_rates
from localcloud.firestore.store import CommitClock
from localcloud.firestore.transactions import LOCK_TIMEOUT_SECONDS


def _update(document, fields):
    """Commit once without the SDK's retries, as the worker does."""
    batch = document._client.batch()
    batch.update(document, fields)
    return batch.commit(retry=None, timeout=10)


def test_an_error_before_the_effect_leaves_nothing(cloud, document):
    """An error before the effect returns Unavailable and leaves the document unchanged."""
    cloud.firestore.faults.add(Fault(method="Commit", error="UNAVAILABLE", times=1))
    with pytest.raises(exceptions.ServiceUnavailable):
        _update(document, {"a": 2})
    assert document.get().to_dict() == {"a": 1}
    _update(document, {"a": 2})


def test_an_error_after_the_effect_leaves_the_write(cloud, document):
    """An error after the effect returns an error although the write was applied."""
    cloud.firestore.faults.add(Fault(method="Commit", error="UNAVAILABLE", after_effect=True, times=1))
    with pytest.raises(exceptions.ServiceUnavailable):
        _update(document, {"a": 2})
    assert document.get().to_dict() == {"a": 2}


def test_contention_makes_preconditions_fail(cloud, client, document):
    """Contention changes only the update time, so that preconditions on it fail."""
    read = document.get()
    cloud.firestore.faults.add(Fault(method="Commit", contend=True, match="runs/r", times=1))
    with pytest.raises(exceptions.FailedPrecondition):
        document.update({"a": 2}, option=client.write_option(last_update_time=read.update_time))
    again = document.get()
    assert again.to_dict() == {"a": 1}
    assert again.update_time > read.update_time


def test_commits_on_one_document_are_held_to_a_rate(cloud, client, document):
    """Commits on one document take turns at the rate, and those on another document do not wait for them."""
    cloud.firestore.faults.add(Fault(method="Commit", commits_per_second=5.0))
    with ThreadPoolExecutor(4) as threads:
        for future in [threads.submit(_update, document, {"a": number}) for number in (2, 3, 4, 5)]:
            future.result()
        written = [committed.instant for committed in list(cloud.firestore.commits)[-4:]]
        last = threads.submit(_update, document, {"a": 6})
        client.document("runs/other").set({"a": 1})
        assert not last.done()
        last.result()
    assert all(later - earlier >= 190_000 for earlier, later in itertools.pairwise(written))


def test_a_commit_that_waits_too_long_for_its_document_is_aborted(cloud, document, monkeypatch):
    """A commit whose turn does not come ends with ABORTED and without effect."""
    monkeypatch.setattr(write_rates, "LONGEST_WAIT_SECONDS", 1.0)
    cloud.firestore.faults.add(Fault(method="Commit", commits_per_second=0.01))
    _update(document, {"a": 2})
    started = time.monotonic()
    with pytest.raises(exceptions.Aborted, match="contention"):
        _update(document, {"a": 3})
    assert time.monotonic() - started >= 1
    assert document.get().to_dict() == {"a": 2}


def test_a_hook_stages_a_race(cloud, client, document):
    """A `before` hook runs between the caller's decision and the effect, and so forces a race."""
    other = client.document("runs/other")
    cloud.firestore.faults.add(
        Fault(method="Commit", match="runs/r", times=1, before=lambda _: other.set({"b": 1}))
    )
    document.update({"a": 2})
    assert other.get().update_time < document.get().update_time


def test_a_dropped_read_has_no_answer(cloud, document):
    """A dropped read returns a stream without messages."""
    cloud.firestore.faults.add(Fault(method="BatchGetDocuments", drop=True, times=1))
    assert list(document._client.get_all([document])) == []


def test_a_fault_matches_the_collection_that_is_counted(cloud, document):
    """A count fails if the fault's text is part of the collection's path."""
    runs = document.parent
    cloud.firestore.faults.add(Fault(method="RunAggregationQuery", match="/runs", error="INTERNAL", times=1))
    with pytest.raises(exceptions.InternalServerError):
        runs.count().get(retry=None)
    assert runs.count().get()[0][0].value == 1


def test_a_delay_delays(cloud, document):
    """A delayed call takes the given time and succeeds."""
    cloud.firestore.faults.add(Fault(method="BatchGetDocuments", delay_seconds=0.2, times=1))
    began = time.monotonic()
    assert document.get().exists
    assert time.monotonic() - began >= 0.2


def test_commits_are_counted_and_logged(cloud, client, document):
    """Commits are counted and logged with the documents that they changed."""
    document.update({"a": 1})
    batch = client.batch()
    batch.update(document, {"a": 5})
    batch.set(client.document("runs/s"), {"a": 1})
    batch.commit()
    assert cloud.firestore.calls["Commit"] == 3
    changed = [[name.rpartition("/")[2] for name in commit.changed] for commit in cloud.firestore.commits]
    assert changed == [["r"], [], ["r", "s"]]


def test_a_restart_keeps_the_documents(cloud, document):
    """A restart keeps the documents and the port, and the same client goes on."""
    port = cloud.firestore.port
    cloud.firestore.stop()
    with pytest.raises(exceptions.ServiceUnavailable):
        document.get(retry=None, timeout=1)
    cloud.firestore.start()
    assert cloud.firestore.port == port
    assert document.get(timeout=20).to_dict() == {"a": 1}


def test_a_restart_can_lose_the_documents(cloud, document):
    """A restart can delete the documents, as when an emulator's process ends."""
    cloud.firestore.restart(lose_state=True)
    assert not document.get(timeout=20).exists
    assert not cloud.firestore.commits


def test_a_stop_ends_calls_that_wait(cloud, document):
    """A stop ends delayed calls with Unavailable without waiting for them."""
    cloud.firestore.faults.add(Fault(method="Commit", delay_seconds=60))
    future = document._client._firestore_api.transport.commit.future(
        _commit_request(document), timeout=30, metadata=document._client._rpc_metadata
    )
    assert cloud.firestore.calls.wait_for("Commit", 2, timeout_seconds=10)
    began = time.monotonic()
    cloud.firestore.stop()
    assert time.monotonic() - began < 3
    assert future.code().name == "UNAVAILABLE"


def _commit_request(document):
    batch = document._client.batch()
    batch.set(document, {"a": 9})
    return CommitRequest(database=document._client._database_string, writes=batch._write_pbs)


@pytest.mark.parametrize(
    ("name", "call", "request_"),
    [
        ("find_nearest", "run_query", {"structured_query": {"find_nearest": {"limit": 1}}}),
        ("explain_options", "run_query", {"structured_query": {}, "explain_options": {}}),
        ("explain_options", "run_aggregation_query", {"explain_options": {"analyze": True}}),
    ],
)
def test_what_queries_can_not_have_is_refused_by_name(client, name, call, request_):
    """Vector searches and query plans fail with Unimplemented, which names the field."""
    request = {"parent": f"{client._database_string}/documents", **request_}
    with pytest.raises(exceptions.MethodNotImplemented, match=f"{name} is not served.*: "):
        list(getattr(client._firestore_api, call)(request=request, metadata=client._rpc_metadata))


@pytest.mark.parametrize("name", ["GetDocument", "UpdateDocument", "DeleteDocument", "CreateDocument"])
def test_other_calls_are_refused_by_name(client, name):
    """Calls that Google's clients for servers don't use fail with Unimplemented: what to use instead."""
    rpc = re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()
    with pytest.raises(exceptions.MethodNotImplemented, match=f"{name} is not served.*: use"):
        getattr(client._firestore_api, rpc)(request={}, metadata=client._rpc_metadata)


def test_optimistic_transactions_are_refused_by_name(client):
    """A transaction with optimistic concurrency fails with Unimplemented, also if a read begins it."""
    options = types.TransactionOptions(read_write={"concurrency_mode": "OPTIMISTIC"})
    database, api = client._database_string, client._firestore_api
    begin = {"database": database, "options": options}
    read = {"database": database, "documents": [f"{database}/documents/c/d"], "new_transaction": options}
    for call, request in ((api.begin_transaction, begin), (api.batch_get_documents, read)):
        with pytest.raises(exceptions.MethodNotImplemented, match="concurrency_mode is not served"):
            list(call(request=request, metadata=client._rpc_metadata))


class TestStreams:
    """Listen streams of the embedded Firestore."""

    @pytest.fixture
    def listen(self, client, document):
        """Return a function that listens to the document and returns the responses."""
        calls = []

        def call(**target):
            target = {"documents": {"documents": [document._document_path]}, **target}
            request = types.ListenRequest(database=client._database_string, add_target=target)
            # The iterator does not end: the client keeps its side of the stream open.
            requests = itertools.chain([request], iter(queue.Queue().get, None))
            calls.append(client._firestore_api.transport.listen(requests, metadata=client._rpc_metadata))
            return calls[-1]

        yield call
        for each in calls:
            each.cancel()

    def test_a_target_for_one_answer_is_refused_by_name(self, listen):
        """A target with `once` is removed with Unimplemented, which names the field."""
        responses = listen(target_id=1, once=True)
        removed = [next(responses) for _ in range(2)][1].target_change
        assert removed.cause.code == grpc.StatusCode.UNIMPLEMENTED.value[0]
        assert "Target.once is not served" in removed.cause.message

    def test_a_stop_ends_them(self, cloud, listen):
        """A stop ends the streams with Unavailable, after which clients connect again."""
        responses = listen(target_id=1)
        next(responses)
        began = time.monotonic()
        cloud.firestore.stop()
        with pytest.raises(grpc.RpcError) as error:
            list(responses)
        assert error.value.code() == grpc.StatusCode.UNAVAILABLE
        assert time.monotonic() - began < 3

    def test_a_fault_ends_them(self, cloud, listen):
        """A fault for Listen whose text is in the target ends the stream."""
        cloud.firestore.faults.add(Fault(method="Listen", match="runs/r", error="INTERNAL", times=1))
        with pytest.raises(grpc.RpcError) as error:
            next(listen(target_id=1))
        assert error.value.code() == grpc.StatusCode.INTERNAL
        next(listen(target_id=1))


class TestTransactions:
    """Open transactions of the embedded Firestore."""

    @pytest.fixture
    def reader(self, client, document):
        """Return a transaction that has read the document."""
        transaction = client.transaction()
        transaction._begin()
        document.get(transaction=transaction)
        return transaction

    def test_a_stop_ends_those_that_wait(self, cloud, document, reader):
        """A stop ends the wait for a lock at once, and the transaction that holds it."""
        future = document._client._firestore_api.transport.commit.future(
            _commit_request(document), timeout=30, metadata=document._client._rpc_metadata
        )
        assert cloud.firestore.calls.wait_for("Commit", 2, timeout_seconds=10)
        began = time.monotonic()
        cloud.firestore.stop()
        assert time.monotonic() - began < LOCK_TIMEOUT_SECONDS / 2
        future.exception(timeout=10)
        cloud.firestore.start()
        with pytest.raises(exceptions.InvalidArgument, match="closed"):
            document.get(transaction=reader, timeout=20)

    def test_those_of_before_a_loss_of_state_are_unknown(self, cloud, document, reader):
        """After a loss of state no new transaction has the id of an old one."""
        cloud.firestore.restart(lose_state=True)
        for _ in range(3):
            document._client.transaction()._begin()
        with pytest.raises(exceptions.InvalidArgument, match="Invalid transaction"):
            document.get(transaction=reader, timeout=20)

    def test_one_that_begins_anew_does_not_overtake(self, cloud, document, reader):
        """A writer that has waited for a transaction goes before the next one that reads the document."""
        database = cloud.firestore.database(document._client._database_string)
        with ThreadPoolExecutor(1) as pool:
            writing = pool.submit(_update, document, {"a": 2})
            assert cloud.firestore.calls.wait_for("Commit", 2, timeout_seconds=10)
            transactions = database._transactions
            with database.unchanged():
                assert transactions._changed.wait_for(lambda: transactions._waiting, 10)
                database.rollback(reader._id)
                # The writer can't go on before this thread lets it.
                again = database.begin(types.TransactionOptions.pb()())
                _, found = database.read([document._document_path], lock_for=again)
            writing.result(10)
        assert found[document._document_path].fields["a"].integer_value == 2

    def test_an_idle_one_holds_nobody_up(self, monkeypatch, document, reader):
        """A transaction that was idle for over a minute is closed, and others write at once."""
        now = time.monotonic() + 61
        monkeypatch.setattr("localcloud.firestore.transactions.time.monotonic", lambda: now)
        _update(document, {"a": 2})
        with pytest.raises(exceptions.InvalidArgument, match="closed"):
            reader._commit()


@pytest.mark.parametrize("page_size", [1, 2, 5])
def test_an_ordered_list_comes_by_pages(client, page_size):
    """A list with an order has every page size; Google's emulator fails from its second page on."""
    for name, n in (("a", 2), ("b", 1), ("c", 2), ("d", 3)):
        client.document(f"listed/{name}").set({"n": n})
    request = {
        "parent": f"{client._database_string}/documents",
        "collection_id": "listed",
        "order_by": "n desc",
    }
    pages = client._firestore_api.list_documents(
        request={**request, "page_size": page_size}, metadata=client._rpc_metadata
    )
    assert "".join(document.name[-1] for document in pages) == "dcab"


def test_writes_to_another_database_are_refused(client):
    """Writes to another database are refused, as in production."""
    name = "projects/demo-project/databases/other/documents/c/d"
    request = {"database": client._database_string, "writes": [{"delete": name}]}
    with pytest.raises(exceptions.InvalidArgument):
        client._firestore_api.commit(request=request, metadata=client._rpc_metadata)


def test_versions_too_old_are_refused(client, document):
    """A read time before the oldest kept version of a document is refused."""
    first = document.get().update_time
    for number in range(40):
        document.update({"n": number})
    request = {
        "database": client._database_string,
        "documents": [document._document_path],
        "read_time": first,
    }
    with pytest.raises(exceptions.FailedPrecondition):
        list(client._firestore_api.batch_get_documents(request=request, metadata=client._rpc_metadata))


def test_commit_times_grow_while_the_clock_is_stopped(monkeypatch):
    """Commit times increase even when the clock stops or goes back; no read is before the last commit."""
    clock = CommitClock()
    monkeypatch.setattr("localcloud.firestore.store.time.time_ns", lambda: 5_000_000)
    assert [clock.commit_time(), clock.commit_time(), clock.read_time(), clock.commit_time()] == [
        5000,
        5001,
        5001,
        5002,
    ]
    monkeypatch.setattr("localcloud.firestore.store.time.time_ns", lambda: 1_000_000)
    assert [clock.read_time(), clock.commit_time()] == [5002, 5003]


def test_more_streams_than_are_served_are_refused(client, document):
    """A stream too many ends with RESOURCE_EXHAUSTED, other calls go on, and ended streams make room."""

    def listen(ended):
        target = {"target_id": 1, "documents": {"documents": [document._document_path]}}

        def requests():
            yield types.ListenRequest(database=client._database_string, add_target=target)
            ended.wait()

        stream = client._firestore_api.transport.listen(requests())
        next(stream)
        return stream

    ended, others_ended = threading.Event(), threading.Event()
    streams = [listen(ended) for _ in range(200)]
    with pytest.raises(grpc.RpcError, match="RESOURCE_EXHAUSTED"):
        listen(ended)
    document.set({"a": 2}, timeout=5)
    for stream in streams:
        stream.cancel()
    ended.set()
    with_room = retry.Retry(lambda error: "RESOURCE_EXHAUSTED" in str(error), initial=0.05, timeout=10)
    with_room(listen)(others_ended).cancel()
    others_ended.set()
