"""Create the real clients of Firestore and Cloud Storage from the environment.

The library for Cloud Storage is loaded when its client is created: most commands need only Firestore.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from daemon.lifecycle.proxies import check_grpc_proxy
from daemon.settings import SettingsError
from worker_chart_export.backends.errors import client_errors
from worker_chart_export.backends.firestore_client import ReconnectingClient

if TYPE_CHECKING:
    from collections.abc import Iterator


def firestore_client(project: str, database: str) -> ReconnectingClient:
    """Create a Firestore client; the library reads `FIRESTORE_EMULATOR_HOST`.

    Raises:
        BackendRefused: There are no credentials.
        SettingsError: The environment's proxy can't be used.
    """
    with usable_environment():
        check_grpc_proxy(os.environ)
    with client_errors("firestore"):
        return ReconnectingClient(project=project, database=database)


def storage_client(project: str, *, connections: int) -> Any:
    """Create a Cloud Storage client; the library reads `STORAGE_EMULATOR_HOST`.

    A step that is stopped cancels its calls, also those for an access token.

    Args:
        project: The Google Cloud project.
        connections: How many calls are made at the same time.

    Raises:
        BackendRefused: There are no credentials.
        SettingsError: The environment's proxy or certificates can't be used.
    """
    from google.cloud.storage import Client as StorageClient  # noqa: PLC0415 - see the module

    from worker_chart_export.backends.storage_session import StorageSession  # noqa: PLC0415 - see the module

    with client_errors("storage"):
        client = StorageClient(project=project)
    with usable_environment():
        # The constructor takes a session only with credentials, but the client is to find those by itself.
        client._http_internal = StorageSession(  # noqa: SLF001
            client._credentials,  # noqa: SLF001
            url=client._connection.API_BASE_URL,  # noqa: SLF001
            connections=connections,
        )
    return client


@contextmanager
def usable_environment() -> Iterator[None]:
    """Report errors of the proxy and certificate variables as wrong settings, without their values.

    Raises:
        SettingsError: The environment's proxy or certificates can't be used.
    """
    try:
        yield
    except (ValueError, OSError) as error:
        names = "HTTPS_PROXY, ALL_PROXY, REQUESTS_CA_BUNDLE, SSL_CERT_FILE, SSL_CERT_DIR"
        got = f"got {type(error).__name__} when it was opened (a proxy must be http://host:port)"
        raise SettingsError([f"{names}: expected what an HTTP client can use, {got}"]) from None
