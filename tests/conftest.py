"""What all tests share: the clouds, and an environment without surprises."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

pytest_plugins = ["tests.browser", "tests.clouds", "tests.log_lines", "tests.server_time", "tests.tls"]

_SCRUBBED = (
    *("GOOGLE_", "GCLOUD_", "PUBSUB_", "FIRESTORE_", "STORAGE_", "CHART", "DATASTORE_"),
    *("NOTIFY_", "WATCHDOG_", "OTEL_"),
)


@pytest.fixture(scope="session", autouse=True)
def _scrubbed_environment() -> Iterator[None]:
    """No test depends on this machine's environment; `tests.clouds` remembers the emulators named there."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(_SCRUBBED)]:
            patch.delenv(name)
        patch.setenv("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "true")
        yield
