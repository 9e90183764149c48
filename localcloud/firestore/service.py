"""Answer the RPCs of Firestore from the store."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Any

import grpc
from google.cloud.firestore_v1.types import firestore as types
from google.protobuf import empty_pb2

from localcloud.firestore import messages, queries
from localcloud.firestore.field_paths import parse, project
from localcloud.firestore.limits import check_name
from localcloud.firestore.messages import set_timestamp, to_instant
from localcloud.firestore.store import Committed, Database
from localcloud.firestore.unserved import UNSERVED
from localcloud.firestore.values import path_key
from localcloud.firestore.writes import check_write, target
from localcloud.grpc_server import GrpcService, Method, Refused, invalid
from localcloud.service import Calls

if TYPE_CHECKING:
    from collections.abc import Mapping

    from localcloud.faults import Fault

# The log of commits keeps the newest ones.
_COMMITS_LOGGED = 100_000
_DEFAULT_PAGE_SIZE = 300
_STREAMS = frozenset({"BatchGetDocuments", "RunQuery", "RunAggregationQuery"})


class FirestoreService(GrpcService):
    """Firestore with documents in memory, one store per database, without transactions.

    Attributes:
        commits: The result of each commit, oldest first. A BatchWrite adds one entry per successful write.
        bytes_read: The size of the responses to reads by id, by method.
    """

    name = "firestore"
    supported_faults = frozenset({"drop", "contend"})
    unserved = UNSERVED

    def __init__(self, *, port: int = 0, seed: int = 0) -> None:
        super().__init__(port=port, seed=seed)
        self.commits: deque[Committed] = deque(maxlen=_COMMITS_LOGGED)
        self.bytes_read = Calls()
        self._lock = threading.Lock()
        self._databases: dict[str, Database] = {}

    def database(self, name: str) -> Database:
        """Return the store of `projects/P/databases/D`; create it on first use."""
        with self._lock:
            return self._databases.setdefault(name, Database(name))

    def lose_state(self) -> None:
        """Delete all documents and the log of commits."""
        with self._lock:
            self._databases = {}
        self.commits.clear()

    def before_effect(self, fault: Fault, request: Any) -> None:
        """Also rewrite every document of a commit first, as `Fault.contend` describes."""
        super().before_effect(fault, request)
        if fault.contend:
            self.database(request.database).touch([target(write) for write in request.writes])

    def methods(self) -> Mapping[str, Mapping[str, Method]]:
        """Return the RPCs that Google's Python client uses, without transactions."""
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
            ("ListDocuments", self._list_documents, lambda r: f"{r.parent}/{r.collection_id}"),
            (
                "ListCollectionIds",
                lambda r: {
                    "collection_ids": sorted(self.database(_database_of(r.parent)).children(r.parent))
                },
                lambda r: str(r.parent),
            ),
            ("BeginTransaction", _no_transactions, lambda r: str(r.database)),
            ("Rollback", _no_transactions, lambda r: str(r.database)),
        ]
        methods = {
            name: Method(
                request=getattr(types, f"{name}Request"),
                response=empty_pb2.Empty if name == "Rollback" else getattr(types, f"{name}Response"),
                handle=handle,
                subject=subject,
                streams=name in _STREAMS,
            )
            for name, handle, subject in rpcs
        }
        return {"google.firestore.v1.Firestore": methods}

    def _commit(self, request: Any) -> Any:
        if request.transaction:
            _no_transactions(request)
        committed = self.database(request.database).commit(request.writes)
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

    def _batch_get(self, request: Any) -> list[Any]:
        database = self.database(request.database)
        names = list(dict.fromkeys(request.documents))
        for name in names:
            check_name(name, database.name)
        paths = [parse(text) for text in request.mask.field_paths] if request.HasField("mask") else None
        instant, found = database.read(names, _read_time(request))
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
        return responses

    def _matching(self, parent: str, query: Any, request: Any) -> tuple[int, list[Any]]:
        database = self.database(_database_of(parent))
        collections = queries.sources(query, parent, database.collections())
        _refuse_read_time(request)
        instant, documents = database.documents_in(collections)
        return instant, queries.run(query, documents)

    def _run_query(self, request: Any) -> list[Any]:
        instant, documents = self._matching(request.parent, request.structured_query, request)
        responses = [messages.RunQueryResponse(document=document) for document in documents]
        # An empty result is one message too: it carries the read time.
        responses = responses or [messages.RunQueryResponse()]
        for response in responses:
            set_timestamp(response.read_time, instant)
        return responses

    def _aggregate(self, request: Any) -> list[Any]:
        query = request.structured_aggregation_query
        instant, documents = self._matching(request.parent, query.structured_query, request)
        response = messages.RunAggregationQueryResponse()
        set_timestamp(response.read_time, instant)
        for number, item in enumerate(query.aggregations, start=1):
            if item.WhichOneof("operator") != "count":
                raise Refused(
                    grpc.StatusCode.UNIMPLEMENTED, "of the aggregations the local cloud only counts"
                )
            response.result.aggregate_fields[item.alias or f"field_{number}"].integer_value = len(documents)
        return [response]

    def _list_documents(self, request: Any) -> Any:
        """List one page of a collection by name, on request with missing documents.

        A missing document does not exist, but others below it do. The page token is the last name of a page.
        """
        _refuse_read_time(request)
        if request.order_by not in ("", "__name__"):
            raise Refused(grpc.StatusCode.UNIMPLEMENTED, "the local cloud lists by name only")
        database = self.database(_database_of(request.parent))
        collection = f"{request.parent}/{request.collection_id}"
        _, documents = database.documents_in([collection])
        if request.show_missing:
            known = {document.name for document in documents}
            parents = {f"{collection}/{child}" for child in database.children(collection)}
            documents += [messages.Document(name=name) for name in parents - known]
        documents.sort(key=lambda document: path_key(document.name))
        if request.page_token:
            after = path_key(request.page_token)
            documents = [document for document in documents if path_key(document.name) > after]
        size = request.page_size or _DEFAULT_PAGE_SIZE
        page = documents[:size]
        if request.HasField("mask"):
            paths = [parse(text) for text in request.mask.field_paths]
            paths = [path for path in paths if path != queries.NAME]
            page = [project(document, paths) for document in page]
        response = messages.ListDocumentsResponse(documents=page)
        if len(documents) > size:
            response.next_page_token = documents[size - 1].name
        return response


def _no_transactions(_request: Any) -> Any:
    message = "the local cloud has no transactions: commit with preconditions instead"
    raise Refused(grpc.StatusCode.UNIMPLEMENTED, message)


def _write_results(committed: Committed) -> list[Any]:
    results = []
    for document, transforms in zip(committed.documents, committed.transforms, strict=True):
        result = messages.WriteResult(transform_results=transforms)
        if document is not None:
            result.update_time.CopyFrom(document.update_time)
        results.append(result)
    return results


def _database_of(parent: str) -> str:
    return parent.partition("/documents")[0]


def _read_time(request: Any) -> int | None:
    selector = request.WhichOneof("consistency_selector")
    if selector in ("transaction", "new_transaction"):
        _no_transactions(request)
    return to_instant(request.read_time) if selector == "read_time" else None


def _refuse_read_time(request: Any) -> None:
    if _read_time(request) is not None:
        message = "the local cloud reads only single documents at a past time, not collections"
        raise Refused(grpc.StatusCode.UNIMPLEMENTED, message)


def _written(request: Any) -> str:
    return "\n".join(target(write) for write in request.writes)


def _queried(parent: str, query: Any) -> str:
    return "\n".join(f"{parent}/{item.collection_id}" for item in query.from_)
