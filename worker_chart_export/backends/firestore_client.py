"""The Firestore client, whose connection can be replaced.

Facts of gRPC that this file is designed around: A connection that swallows everything is noticed late or
never, and each later call waits in it until its timeout. After failures the pauses between two attempts to
connect grow to two minutes. All channels to one address share their connections, unless each has a pool of
its own.
"""

from __future__ import annotations

import threading
import time
from typing import Any

import grpc
from google.cloud import firestore
from google.cloud.firestore_v1.services.firestore import FirestoreClient
from google.cloud.firestore_v1.services.firestore.transports import FirestoreGrpcTransport
from grpc.experimental import ChannelOptions

from worker_chart_export.backends.errors import backend_errors
from worker_chart_export.errors import BackendUnavailable

#: The time limit of one read that shows whether Firestore answers.
PROBE_SECONDS = 4.0
#: A replaced connection is closed after this time, when its calls have ended by their timeouts.
RETIRED_SECONDS = 60.0
CHANNEL_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    ("grpc.use_local_subchannel_pool", 1),
    # A stream of answers is read in the thread of its caller. Otherwise gRPC starts a thread for it, and when
    # the system refuses that once, all later streams of the channel hang.
    (ChannelOptions.SingleThreadedUnaryStream, 1),
)


def check_is_client(client: object) -> None:
    """Return if this is a synchronous Firestore client.

    Raises:
        TypeError: It is something else, for example an `AsyncClient`.
    """
    if not isinstance(client, firestore.Client):
        raise TypeError(f"client: expected a google.cloud.firestore.Client, got {type(client).__name__}")


class ReconnectingClient(firestore.Client):
    """A Firestore client that can be given a new connection. Shared by all threads.

    It overrides a private part of Google's client, because that takes no channel options.

    Raises:
        GoogleAuthError: There are no credentials.
    """

    def __init__(self, *, project: str, database: str) -> None:
        super().__init__(project=project, database=database)
        self._connecting = threading.Lock()
        self._api: FirestoreClient | None = None
        self._retired: list[tuple[float, FirestoreClient]] = []

    @property
    def _firestore_api(self) -> FirestoreClient:
        with self._connecting:
            if self._api is None:
                self._api = self._connect()
            return self._api

    def _connect(self) -> FirestoreClient:
        if self._emulator_host is not None:
            channel = grpc.insecure_channel(self._emulator_host, options=CHANNEL_OPTIONS)
        else:
            channel = FirestoreGrpcTransport.create_channel(
                self._target, credentials=self._credentials, options=CHANNEL_OPTIONS
            )
        transport = FirestoreGrpcTransport(host=self._target, channel=channel)
        return FirestoreClient(transport=transport, client_options=self._client_options)

    def reconnect(self) -> None:
        """Make later calls on a new connection. Calls in progress keep the old one for a while."""
        with self._connecting:
            now = time.monotonic()
            if self._api is not None:
                self._retired.append((now, self._api))
                self._api = None
            ended = [api for since, api in self._retired if now - since >= RETIRED_SECONDS]
            self._retired = [entry for entry in self._retired if entry[1] not in ended]
        for api in ended:
            api.transport.close()


def probe(client: Any, collection: str, document_id: str) -> None:
    """Read a document, if need be a second time on a new connection.

    Raises:
        BackendUnavailable: Firestore does not answer on a new connection either.
        BackendRefused: Firestore refuses.
    """
    reference = client.collection(collection).document(document_id)
    try:
        _read_once(reference)
    except BackendUnavailable:
        if not isinstance(client, ReconnectingClient):
            raise
        client.reconnect()
        _read_once(reference)


def _read_once(reference: Any) -> None:
    with backend_errors("firestore"):
        reference.get(retry=None, timeout=PROBE_SECONDS)
