"""How long the ledger waits for each call of Firestore."""

from __future__ import annotations

from collections import defaultdict

import grpc
import pytest
from google.cloud.firestore_v1.services.firestore import FirestoreClient
from google.cloud.firestore_v1.services.firestore.transports import FirestoreGrpcTransport

from tests.support.cloud.clouds import PROJECT, clients_find
from tests.support.ledger.ledger_process import LedgerProcess
from worker_chart_export.backends.firestore_client import ReconnectingClient
from worker_chart_export.ledger.listing import lease_pages, read_leases, run_pages
from worker_chart_export.ledger.run_snapshot import read_lease, read_run_with_all_leases
from worker_chart_export.timing import SystemClock


class Recorder(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):
    """Keeps the timeouts of all calls."""

    def __init__(self) -> None:
        self.timeouts = defaultdict(list)

    def intercept_unary_unary(self, continuation, client_call_details, request):
        """Note the timeout of a call."""
        method = client_call_details.method.rpartition("/")[2]
        self.timeouts[method].append(client_call_details.timeout)
        return continuation(client_call_details, request)

    intercept_unary_stream = intercept_unary_unary


class RecordingClient(ReconnectingClient):
    """A Firestore client with a recorder on its channel."""

    recorder = Recorder()

    def _connect(self) -> FirestoreClient:
        channel = grpc.intercept_channel(grpc.insecure_channel(self._emulator_host), self.recorder)
        return FirestoreClient(transport=FirestoreGrpcTransport(host=self._target, channel=channel))


@pytest.fixture
def client(cloud):
    """Return a client that records the timeouts of its calls."""
    with clients_find(cloud.environment()):
        return RecordingClient(project=PROJECT, database="(default)")


def test_no_call_waits_longer_than_ten_seconds(run, client):
    """A call without a deadline would hang with its connection, and Google's own defaults are minutes."""
    run.set_status("s7", "RUNNING")
    worker = LedgerProcess(client)
    ledger = worker.ledger
    claim = worker.claim(run.run_id, "s0")
    worker.heartbeats.beat()
    ledger.confirm(claim)
    ledger.probe()
    ledger.create_run("new", {"steps": {}})
    ledger.adopt(run.run_id, "s7", now=None)
    left = read_lease(client, run.run_id, "s7")
    assert left is not None
    assert [page for page in lease_pages(client) if page]
    assert [page for page in run_pages(client) if page]
    assert read_leases(client, [(run.run_id, "s0")])
    assert read_run_with_all_leases(client, run.run_id, SystemClock()).run is not None
    assert ledger.delete_lease(run.run_id, "s7", left)
    run.let_lease_end("s0")
    assert [page for page in ledger.expired_leases() if page]
    assert worker.succeed(claim).updated
    timeouts = client.recorder.timeouts
    assert set(timeouts) == {"BatchGetDocuments", "BatchWrite", "Commit", "RunQuery"}
    for method, seconds in timeouts.items():
        assert all(timeout is not None and 0 < timeout <= 10 for timeout in seconds), (method, seconds)
