"""Fixtures of all tests: the clouds, and a clean environment."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from daemon.lifecycle.library_defaults import set_library_defaults

if TYPE_CHECKING:
    from collections.abc import Iterator

set_library_defaults()  # before a plugin imports one of the libraries
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell ignores Ctrl-C for commands in the background, and the processes of tests would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
pytest_plugins = [
    "tests.support.distribution",
    "tests.support.garbage",
    "tests.support.skips",
    "tests.support.page.browser",
    "tests.support.cloud.clouds",
    "tests.support.process.log_lines",
    "tests.support.cloud.server_time",
    "tests.support.cloud.tls",
]

_SCRUBBED = (
    *("GOOGLE_", "GCLOUD_", "PUBSUB_", "FIRESTORE_", "STORAGE_", "CHART", "DATASTORE_"),
    *("NOTIFY_", "WATCHDOG_", "OTEL_"),
)


@pytest.fixture(scope="session", autouse=True)
def _scrubbed_environment() -> Iterator[None]:
    """Remove this machine's variables from the environment; `clouds` keeps the emulators' addresses."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(_SCRUBBED)]:
            patch.delenv(name)
        yield
