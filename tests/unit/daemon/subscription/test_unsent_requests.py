"""How long acks, nacks and new deadlines wait until Google's client has sent them."""

from __future__ import annotations

import queue

import pytest

from daemon.subscription.unsent_requests import UnsentRequests
from tests.support.fakes import HandClock


@pytest.fixture
def clock():
    """Return a clock that the test sets."""
    return HandClock()


@pytest.fixture
def requests(clock):
    """Return an empty queue."""
    return UnsentRequests(clock=clock.monotonic)


def test_an_empty_queue_has_no_age(requests, clock):
    """Without a request the age is 0."""
    clock.advance(10)
    assert requests.oldest_seconds() == 0


def test_a_request_that_nobody_takes_gets_older(requests, clock):
    """The oldest request counts, as when the dispatcher has ended."""
    requests.put("first")
    clock.advance(2)
    requests.put("second")
    clock.advance(3)
    assert requests.oldest_seconds() == 5


def test_requests_that_are_taken_are_unsent_until_the_dispatcher_waits_for_the_next_batch(requests, clock):
    """A dispatcher that hangs between two batches, or within one, has not sent them."""
    requests.put("first")
    clock.advance(2)
    requests.put("second")
    assert [requests.get(), requests.get(timeout=1)] == ["first", "second"]
    with pytest.raises(queue.Empty):
        requests.get(timeout=0)
    clock.advance(3)
    assert requests.oldest_seconds() == 5
    requests.put("third")
    assert requests.get() == "third"
    assert requests.oldest_seconds() == 0
    clock.advance(1)
    assert requests.oldest_seconds() == 1
