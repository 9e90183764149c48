"""Answer the RPCs of Firestore from the store."""

from __future__ import annotations

import threading
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any

from google.cloud.firestore_v1.types import firestore as types
from google.protobuf import empty_pb2

from localcloud.firestore import listing, messages
from localcloud.firestore.aggregation import aggregate, aggregated_fields
from localcloud.firestore.field_paths import parse, project
from localcloud.firestore.limits import check_database, check_name, check_parent
from localcloud.firestore.listen import ListenStream
from localcloud.firestore.messages import set_timestamp
from localcloud.firestore.store import Committed, Database
from localcloud.firestore.unserved import UNSERVED
from localcloud.firestore.views import View, view
from localcloud.firestore.write_rates import CommitQueue
from localcloud.firestore.writes import check_write, target
from localcloud.grpc_server import GrpcService, Method, Refused, invalid
from localcloud.request_fields import check_fields
from localcloud.service import Calls

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager

    import grpc

    from localcloud.faults import Fault

# The log of commits keeps the newest ones.
_COMMITS_LOGGED = 100_000
_STREAMS = frozenset({"BatchGetDocuments", "RunQuery", "RunAggregationQuery"})
_SERVED_OF_QUERIES = tuple(
    f"{message}.{field}"
    for message, query in (
        ("RunQueryRequest", "structured_query"),
        ("RunAggregationQueryRequest", "structured_aggregation_query"),
    )
    for field in ("parent", query, "transaction", "new_transaction", "read_time", "request_options")
)


class FirestoreService(GrpcService):
    """Firestore with documents in memory, one store per database.

    Attributes:
        commits: The result of each commit, oldest first. A BatchWrite adds one entry per successful write.
        bytes_read: The size of the responses to reads by id, by method.
    """

    name = "firestore"
    supported_faults = frozenset({"drop", "contend", "commits_per_second"})
    unserved = UNSERVED

    def __init__(self, *, port: int = 0, seed: int = 0) -> None:
        super().__init__(port=port, seed=seed)
        self.commits: deque[Committed] = deque(maxlen=_COMMITS_LOGGED)
        self.bytes_read = Calls()
        self._lock = threading.Lock()
        self._databases: dict[str, Database] = {}
        self._streams: set[ListenStream] = set()
        self._queue = CommitQueue()

    def database(self, name: str) -> Database:
        """Return the store of `projects/P/databases/D`; create it on first use.

        Raises:
            Refused: INVALID_ARGUMENT, another name.
        """
        with self._lock:
            if name not in self._databases:
                check_database(name)
                self._databases[name] = Database(name)
            return self._databases[name]

    def lose_state(self) -> None:
        """Delete all documents and the log of commits."""
        with self._lock:
            self._databases = {}
        self.commits.clear()

    def wake(self) -> None:
        """End all streams, and all transactions: what waits for their locks goes on."""
        with self._lock:
            streams, databases = list(self._streams), list(self._databases.values())
        self._queue.wake()
        for stream in streams:
            stream.close()
        for database in databases:
            database.end_transactions()

    def before_effect(self, fault: Fault, request: Any) -> None:
        """Also rewrite every document of a commit first, as `Fault.contend` describes."""
        super().before_effect(fault, request)
        if fault.contend:
            self.database(request.database).touch([target(write) for write in request.writes])

    def around_effect(self, fault: Fault, request: Any) -> AbstractContextManager[None]:
        """Hold a commit to the rate of its documents, as `Fault.commits_per_second` describes."""
        names = [target(write) for write in request.writes] if fault.commits_per_second > 0 else []
        if not names:
            return super().around_effect(fault, request)
        return self._queue.turn(names, per_second=fault.commits_per_second, stopping=self.stopping)

    def methods(self) -> Mapping[str, Mapping[str, Method]]:
        """Return the RPCs that Google's clients for servers use."""
        rpcs: list[tuple[str, Any, Any]] = [
            ("Commit", self._commit, _written),
            ("BatchWrite", self._batch_write, _written),
            ("BatchGetDocuments", self._batch_get, lambda r: "\n".join(r.documents)),
            ("RunQuery", self._run_query, lambda r: _queried(r.parent, r.structured_query)),
            (
                "RunAggregationQuery",
                self._aggregate,
                lambda r: _queried(r.parent, r.structured_aggregation_query.structured_query),
            ),
            ("PartitionQuery", self._partition, lambda r: _queried(r.parent, r.structured_query)),
            ("ListDocuments", self._list_documents, lambda r: f"{r.parent}/{r.collection_id}"),
            ("ListCollectionIds", self._list_collection_ids, lambda r: str(r.parent)),
            ("BeginTransaction", self._begin, lambda r: str(r.database)),
            ("Rollback", self._rollback, lambda r: str(r.database)),
            ("Listen", self._listen, lambda r: str(r.add_target)),
        ]
        methods = {
            name: Method(
                request=getattr(types, f"{name}Request"),
                response=empty_pb2.Empty if name == "Rollback" else getattr(types, f"{name}Response"),
                handle=handle,
                subject=subject,
                streams=name in _STREAMS,
                converses=name == "Listen",
            )
            for name, handle, subject in rpcs
        }
        return {"google.firestore.v1.Firestore": methods}

    def _commit(self, request: Any) -> Any:
        committed = self.database(request.database).commit(request.writes, request.transaction)
        self.commits.append(committed)
        response = messages.CommitResponse(write_results=_write_results(committed))
        set_timestamp(response.commit_time, committed.instant)
        return response

    def _batch_write(self, request: Any) -> Any:
        database = self.database(request.database)
        for write in request.writes:
            check_write(write, database.name)
        if len({target(write) for write in request.writes}) < len(request.writes):
            message = "the same document cannot be written more than once in a single request"
            raise invalid(message)
        response = messages.BatchWriteResponse()
        for write in request.writes:
            result, status = response.write_results.add(), response.status.add()
            try:
                committed = database.commit([write])
            except Refused as refused:
                status.code, status.message = refused.code.value[0], refused.message
            else:
                self.commits.append(committed)
                result.CopyFrom(_write_results(committed)[0])
        return response

    def _begin(self, request: Any) -> dict[str, Any]:
        return {"transaction": self.database(request.database).begin(request.options).id}

    def _rollback(self, request: Any) -> None:
        self.database(request.database).rollback(request.transaction)

    def _view(self, parent: str, request: Any) -> View:
        """Return what a request below `parent` sees; the request has a consistency selector."""
        return view(self.database(check_parent(parent)), request)

    def _batch_get(self, request: Any) -> list[Any]:
        database = self.database(request.database)
        names = list(dict.fromkeys(request.documents))
        for name in names:
            check_name(name, database.name)
        paths = [parse(text) for text in request.mask.field_paths] if request.HasField("mask") else None
        seen = view(database, request)
        instant, found = seen.read(names)
        responses = []
        for name in names:
            document = found[name]
            response = messages.BatchGetDocumentsResponse()
            set_timestamp(response.read_time, instant)
            if document is None:
                response.missing = name
            else:
                response.found.CopyFrom(document if paths is None else project(document, paths))
            responses.append(response)
        self.bytes_read.add("BatchGetDocuments", sum(response.ByteSize() for response in responses))
        return _opened(seen, messages.BatchGetDocumentsResponse) + responses

    def _run_query(self, request: Any) -> list[Any]:
        check_fields(request, served=_SERVED_OF_QUERIES, unserved=UNSERVED)
        if not request.HasField("structured_query"):
            raise invalid("only structured queries are supported")
        seen = self._view(request.parent, request)
        instant, documents = seen.run(request.parent, request.structured_query)
        responses = [messages.RunQueryResponse(document=document) for document in documents]
        # An empty result is one message too: it carries the read time.
        responses = responses or [messages.RunQueryResponse()]
        for response in responses:
            set_timestamp(response.read_time, instant)
        return _opened(seen, messages.RunQueryResponse) + responses

    def _aggregate(self, request: Any) -> list[Any]:
        check_fields(request, served=_SERVED_OF_QUERIES, unserved=UNSERVED)
        query = request.structured_aggregation_query
        seen = self._view(request.parent, request)
        fields = aggregated_fields(query.aggregations)
        instant, documents = seen.run(request.parent, query.structured_query, fields)
        response = messages.RunAggregationQueryResponse()
        for alias, value in aggregate(query.aggregations, documents).items():
            response.result.aggregate_fields[alias].CopyFrom(value)
        set_timestamp(response.read_time, instant)
        return [*_opened(seen, messages.RunAggregationQueryResponse), response]

    def _partition(self, request: Any) -> Any:
        return listing.partition(self._view(request.parent, request), request)

    def _list_documents(self, request: Any) -> Any:
        return listing.list_documents(self._view(request.parent, request), request)

    def _list_collection_ids(self, request: Any) -> Any:
        return listing.list_collection_ids(self._view(request.parent, request), request)

    def _listen(self, first: Any, requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        stream = ListenStream(self.database(first.database), partial(self.note, "Listen"))
        context.add_callback(stream.close)
        with self._lock:
            self._streams.add(stream)
        try:
            yield from stream.responses(first, requests)
        finally:
            with self._lock:
                self._streams.discard(stream)


def _write_results(committed: Committed) -> list[Any]:
    results = []
    for document, transforms in zip(committed.documents, committed.transforms, strict=True):
        result = messages.WriteResult(transform_results=transforms)
        if document is not None:
            result.update_time.CopyFrom(document.update_time)
        results.append(result)
    return results


def _opened(seen: View, response: Callable[..., Any]) -> list[Any]:
    """Return the message that names the transaction which a read has opened. It comes before the results."""
    return [response(transaction=seen.opened)] if seen.opened else []


def _written(request: Any) -> str:
    return "\n".join(target(write) for write in request.writes)


def _queried(parent: str, query: Any) -> str:
    return "\n".join(f"{parent}/{item.collection_id}" for item in query.from_)
