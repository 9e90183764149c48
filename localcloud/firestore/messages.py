"""The raw protobuf classes behind Google's Firestore types."""

from __future__ import annotations

from typing import Any

from google.cloud.firestore_v1.types import document, firestore, query, write

from localcloud.grpc_server import raw

Document: Any = raw(document.Document)
Value: Any = raw(document.Value)
WriteResult: Any = raw(write.WriteResult)
CommitResponse: Any = raw(firestore.CommitResponse)
BatchWriteResponse: Any = raw(firestore.BatchWriteResponse)
BatchGetDocumentsResponse: Any = raw(firestore.BatchGetDocumentsResponse)
RunQueryResponse: Any = raw(firestore.RunQueryResponse)
RunAggregationQueryResponse: Any = raw(firestore.RunAggregationQueryResponse)
ListDocumentsResponse: Any = raw(firestore.ListDocumentsResponse)
ListCollectionIdsResponse: Any = raw(firestore.ListCollectionIdsResponse)
Query: Any = raw(query.StructuredQuery)
