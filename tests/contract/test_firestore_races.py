"""Many writers of one document: the guarantees that compare-and-commit depends on."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from google.api_core import exceptions

pytestmark = pytest.mark.serves("Commit")

WRITERS = 8


def _together(work):
    """Run `work(number)` in all threads at the same time."""
    barrier = threading.Barrier(WRITERS)

    def run(number):
        barrier.wait(10)
        return work(number)

    with ThreadPoolExecutor(WRITERS) as threads:
        return list(threads.map(run, range(WRITERS)))


def test_one_of_many_creates_wins(collection):
    """Of many concurrent creates one succeeds; the others get AlreadyExists."""
    document = collection.document("d")

    def create(number):
        try:
            document.create({"by": number})
        except exceptions.AlreadyExists:
            return False
        return True

    won = _together(create)
    assert won.count(True) == 1
    assert document.get().to_dict() == {"by": won.index(True)}


def test_no_update_is_lost(client, collection):
    """Concurrent increments by read, compare and commit with retries are all counted."""
    document = collection.document("d")
    document.set({"n": 0})

    def add(_number):
        losses = 0
        for _ in range(3):
            while True:
                read = document.get()
                option = client.write_option(last_update_time=read.update_time)
                try:
                    document.update({"n": read.get("n") + 1}, option=option)
                except (exceptions.FailedPrecondition, exceptions.Aborted):
                    losses += 1
                else:
                    break
        return losses

    losses = _together(add)
    assert document.get().to_dict() == {"n": 3 * WRITERS}
    assert sum(losses) > 0


def test_masked_updates_of_different_fields_all_land(collection):
    """Concurrent masked updates of different fields are all applied without preconditions."""
    document = collection.document("d")
    document.set({"steps": {}})
    _together(lambda number: [document.update({f"steps.s{number}.n": count}) for count in range(5)])
    assert document.get().to_dict() == {"steps": {f"s{number}": {"n": 4} for number in range(WRITERS)}}
