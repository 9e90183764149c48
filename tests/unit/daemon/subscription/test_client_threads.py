"""The threads that close a stream."""

from __future__ import annotations

import threading

import pytest
from google.cloud.pubsub_v1.subscriber._protocol import streaming_pull_manager

from daemon.subscription.client_threads import reserve_threads


def test_a_thread_that_can_t_be_started_is_replaced(monkeypatch):
    """The client's work is done by a thread that exists."""
    reserve_threads()
    done = threading.Event()

    def refuse(_thread):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        for _ in range(2):
            streaming_pull_manager.threading.Thread(target=done.set).start()
            assert done.wait(5)
            done.clear()


def test_other_modules_keep_their_threads():
    """Only the module of the client that closes streams is changed."""
    reserve_threads()
    assert streaming_pull_manager.threading.Lock is threading.Lock
    assert threading.Thread.__module__ == "threading"


def test_a_client_that_starts_threads_in_another_way_is_left_alone(monkeypatch):
    """A module without `threading` gets none."""
    monkeypatch.delattr(streaming_pull_manager, "threading")
    reserve_threads()
    assert not hasattr(streaming_pull_manager, "threading")


@pytest.mark.parametrize("name", ["close", "_on_rpc_done"])
def test_the_client_still_starts_threads_there(name):
    """Fails when Google's client no longer needs the reserved threads."""
    method = getattr(streaming_pull_manager.StreamingPullManager, name)
    assert "threading" in method.__code__.co_names
