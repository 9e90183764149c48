"""Fixtures of all unit tests of the domain and the daemon: clients of the embedded cloud."""

from __future__ import annotations

import itertools
import random
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from google.cloud import firestore
from hypothesis import settings

from daemon.clients import storage_client
from tests.support.cloud.clouds import PROJECT, clients_find
from tests.support.fakes import BUCKET
from tests.support.pipeline_bench import Bench

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.cloud.storage import Client as StorageClient

    from localcloud import LocalCloud

_numbers = itertools.count(1)

# No deadline, because a busy machine must not fail a test; the same examples in every run.
settings.register_profile("worker", deadline=None, derandomize=True)
settings.load_profile("worker")


@pytest.fixture
def short_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the waits between attempts to a twentieth."""
    drawn = SimpleNamespace(uniform=lambda low, high: random.uniform(low, high) / 20)  # noqa: S311
    monkeypatch.setattr("worker_chart_export.timing.random", drawn)


@pytest.fixture
def new_run_id() -> str:
    """Return a new run id."""
    return f"20251215-102530_IBM_t{next(_numbers):04}"


@pytest.fixture(scope="session")
def shared_documents(embedded: LocalCloud) -> Iterator[firestore.Client]:
    """Return a Firestore client on the session's cloud."""
    with clients_find(embedded.environment()):
        client = firestore.Client(project=PROJECT)
    yield client
    client.close()


@pytest.fixture
def documents(cloud: LocalCloud) -> Iterator[firestore.Client]:
    """Return a Firestore client on the test's own cloud."""
    with clients_find(cloud.environment()):
        client = firestore.Client(project=PROJECT)
    yield client
    client.close()


@pytest.fixture
def objects(cloud: LocalCloud) -> Iterator[StorageClient]:
    """Return a Cloud Storage client on the test's own cloud with the bucket `charts-unit`."""
    with clients_find(cloud.environment()):
        client = storage_client(PROJECT, connections=16)
    client.create_bucket(BUCKET)
    yield client
    client.close()


@pytest.fixture
def bench(cloud: LocalCloud, documents: firestore.Client, objects: StorageClient) -> Bench:
    """Return a worker's bench with five templates and no run."""
    return Bench(cloud, documents, objects)
