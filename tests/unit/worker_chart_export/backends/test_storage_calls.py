"""The repetition of calls to Cloud Storage."""

from __future__ import annotations

import threading

import pytest
import requests

from tests.support.fakes import HandClock
from worker_chart_export.backends.storage import call_storage
from worker_chart_export.concurrency.cancel_scope import CancelScope
from worker_chart_export.errors import BackendUnavailable, ObjectRefused


def test_a_process_that_stands_still_in_the_pause_finds_the_backend_unavailable():
    """When the time ends between two attempts, the error is that of the attempt, not a timeout."""
    clock = HandClock()

    def fail(_timeout):
        threading.Timer(0.2, clock.advance, [3600]).start()  # in the pause, which has half a second or more
        raise requests.ConnectionError("refused")

    with pytest.raises(BackendUnavailable, match="refused"):
        call_storage(fail, name="o", refusal=ObjectRefused, scope=CancelScope(seconds=60, clock=clock))
