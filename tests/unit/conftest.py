"""What the unit tests of the domain and the daemon share: clients of the embedded cloud, and log lines."""

from __future__ import annotations

import io
import itertools
import json
import logging
import sys
import threading
import warnings
from typing import TYPE_CHECKING, Any

import pytest
from google.cloud import firestore
from google.cloud.storage import Client as StorageClient
from hypothesis import settings

from tests.clouds import PROJECT, clients_find
from tests.unit.doubles import BUCKET
from worker_chart_export import logs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from localcloud import LocalCloud

_numbers = itertools.count(1)

# A busy machine is no reason to fail, and the same examples every time none to doubt a failure.
settings.register_profile("worker", deadline=None, derandomize=True)
settings.load_profile("worker")


@pytest.fixture
def new_run_id() -> str:
    """A run id that no other test uses."""
    return f"20251215-102530_IBM_t{next(_numbers):04}"


@pytest.fixture(scope="session")
def shared_documents(embedded: LocalCloud) -> Iterator[firestore.Client]:
    """A Firestore client on the session's cloud."""
    with clients_find(embedded.environment()):
        client = firestore.Client(project=PROJECT)
    yield client
    client.close()


@pytest.fixture
def documents(cloud: LocalCloud) -> Iterator[firestore.Client]:
    """A Firestore client on the test's own cloud."""
    with clients_find(cloud.environment()):
        client = firestore.Client(project=PROJECT)
    yield client
    client.close()


@pytest.fixture
def objects(cloud: LocalCloud) -> Iterator[StorageClient]:
    """A Cloud Storage client on the test's own cloud; the bucket `charts-unit` exists."""
    with clients_find(cloud.environment()):
        client = StorageClient(project=PROJECT)
    client.create_bucket(BUCKET)
    yield client
    client.close()


@pytest.fixture
def log_lines() -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """Configures logging as the daemon does; call it for the lines so far, parsed. Undone afterwards."""
    root = logging.getLogger()
    before = (root.handlers[:], root.level, sys.excepthook, sys.unraisablehook, threading.excepthook)
    show_warning, before_google = warnings.showwarning, logging.getLogger("google").propagate
    stream = io.StringIO()
    logs.configure(level="INFO", log_format="json", stream=stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    logging.captureWarnings(capture=False)
    warnings.showwarning = show_warning
    root.handlers[:], level, sys.excepthook, sys.unraisablehook, threading.excepthook = before
    root.setLevel(level)
    logging.getLogger("google").propagate = before_google
