"""Call Firestore's API on the channel of Google's client, with messages of the wire format.

The methods of `client._firestore_api` wrap each call in decorators, interceptors and a span, and each message
in classes. That is a third of the processor time of a small commit. The two methods that each step needs are
called without that.
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import grpc
from google.api_core import exceptions as google_errors
from google.api_core.client_info import ClientInfo
from google.api_core.gapic_v1.routing_header import to_grpc_metadata
from google.api_core.timeout import TimeToDeadlineTimeout
from google.cloud.firestore_v1.types import (
    BatchGetDocumentsRequest,
    BatchGetDocumentsResponse,
    CommitRequest,
    CommitResponse,
)
from proto.datetime_helpers import DatetimeWithNanoseconds

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.api_core.retry import Retry

_SERVICE = "/google.firestore.v1.Firestore/"
_CommitRequest, _CommitResponse = CommitRequest.pb(), CommitResponse.pb()
_ReadRequest, _ReadResponse = BatchGetDocumentsRequest.pb(), BatchGetDocumentsResponse.pb()
_CLIENT = ("x-goog-api-client", ClientInfo().to_user_agent())


def commit(client: Any, request: Any, *, timeout: float) -> Any:
    """Send a `CommitRequest`. Return the `CommitResponse`.

    Raises:
        GoogleAPICallError: Firestore is unavailable, or refuses.
    """
    call = _commit_on(_channel(client))
    with _google_errors():
        return call(request, metadata=_metadata(client), timeout=timeout)


def batch_get_documents(
    client: Any, request: dict[str, Any], *, retry: Retry | None, timeout: float
) -> list[Any]:
    """Send a `BatchGetDocumentsRequest`. Return each `BatchGetDocumentsResponse`.

    Args:
        client: A Firestore client.
        request: The fields of the request.
        retry: Repeats the call. None: it is made once.
        timeout: The limit in seconds, with all repetitions.

    Raises:
        GoogleAPICallError: Firestore is unavailable, or refuses.
    """
    call = _read_on(_channel(client))

    def read(timeout: float) -> list[Any]:
        with _google_errors():
            return list(call(_ReadRequest(**request), metadata=_metadata(client), timeout=timeout))

    if retry is None:
        return read(timeout)
    repeated: Any = retry(TimeToDeadlineTimeout(timeout)(read))
    answers: list[Any] = repeated()
    return answers


def instant(timestamp: Any) -> DatetimeWithNanoseconds:
    """Return a timestamp of the wire format as Google's client does: it keeps the nanoseconds."""
    converted: DatetimeWithNanoseconds = DatetimeWithNanoseconds.from_timestamp_pb(timestamp)
    return converted


# Only the last channel is remembered: a client that connects again has another one.
@lru_cache(maxsize=1)
def _commit_on(channel: grpc.Channel) -> grpc.UnaryUnaryMultiCallable[Any, Any]:
    return channel.unary_unary(
        f"{_SERVICE}Commit",
        request_serializer=_CommitRequest.SerializeToString,
        response_deserializer=_CommitResponse.FromString,
    )


@lru_cache(maxsize=1)
def _read_on(channel: grpc.Channel) -> grpc.UnaryStreamMultiCallable[Any, Any]:
    return channel.unary_stream(
        f"{_SERVICE}BatchGetDocuments",
        request_serializer=_ReadRequest.SerializeToString,
        response_deserializer=_ReadResponse.FromString,
    )


def _channel(client: Any) -> grpc.Channel:
    channel: grpc.Channel = client._firestore_api.transport.grpc_channel  # noqa: SLF001 - see the module
    return channel


def _metadata(client: Any) -> tuple[tuple[str, str], ...]:
    """Return the headers that Google's client sends. One of them names the database."""
    database = client._database_string  # noqa: SLF001 - see the module
    return (*client._rpc_metadata, to_grpc_metadata({"database": database}), _CLIENT)  # noqa: SLF001


@contextmanager
def _google_errors() -> Iterator[None]:
    """Raise the errors of gRPC as those of Google's client."""
    try:
        yield
    except grpc.RpcError as error:
        raise google_errors.from_grpc_error(error) from error
