"""The raw protobuf classes behind Google's Firestore types, and the timestamps in them."""

from __future__ import annotations

from typing import Any

from google.cloud.firestore_v1.types import document, firestore, query, write

from localcloud.grpc_server import invalid, raw

Document: Any = raw(document.Document)
Value: Any = raw(document.Value)
WriteResult: Any = raw(write.WriteResult)
CommitResponse: Any = raw(firestore.CommitResponse)
BatchWriteResponse: Any = raw(firestore.BatchWriteResponse)
BatchGetDocumentsResponse: Any = raw(firestore.BatchGetDocumentsResponse)
RunQueryResponse: Any = raw(firestore.RunQueryResponse)
RunAggregationQueryResponse: Any = raw(firestore.RunAggregationQueryResponse)
ListDocumentsResponse: Any = raw(firestore.ListDocumentsResponse)
ListenRequest: Any = raw(firestore.ListenRequest)
ListenResponse: Any = raw(firestore.ListenResponse)
Query: Any = raw(query.StructuredQuery)
Cursor: Any = raw(query.Cursor)

_MICROSECONDS = 1_000_000


def set_timestamp(timestamp: Any, instant: int) -> None:
    """Write `instant` (microseconds since 1970) into a raw `Timestamp`."""
    timestamp.seconds, rest = divmod(instant, _MICROSECONDS)
    timestamp.nanos = rest * 1000


def to_instant(timestamp: Any) -> int:
    """Return a raw `Timestamp` as microseconds since 1970.

    Raises:
        Refused: INVALID_ARGUMENT, it is more precise than that.
    """
    if timestamp.nanos % 1000:
        raise invalid("timestamp cannot have more than microseconds precision")
    return int(timestamp.seconds) * _MICROSECONDS + int(timestamp.nanos) // 1000
