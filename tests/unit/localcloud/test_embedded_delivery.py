"""The backlog: leases, backoff, dead letters, windows. Its clock is a number, so no test waits."""

from __future__ import annotations

import pytest

from localcloud.pubsub.delivery import Backlog, RetryRules, Window
from localcloud.pubsub.messages import PubsubMessage


def _backlog(count=1, **rules):
    backlog = Backlog("sub", RetryRules(**rules))
    for number in range(count):
        backlog.add(PubsubMessage(data=b"%d" % number))
    return backlog


def _take(backlog, now, *, limit=10, lease_seconds=10.0, window=None):
    return backlog.take(now, limit=limit, lease_seconds=lease_seconds, window=window or Window())


def test_a_lease_ends_exactly_at_its_deadline():
    """A lease ends exactly at its deadline; then its ack id is invalid."""
    backlog = _backlog()
    (lease,) = _take(backlog, 0.0)
    assert _take(backlog, 9.99) == []
    (again,) = _take(backlog, 10.0)
    assert again.ack_id != lease.ack_id
    assert backlog.acknowledge([lease.ack_id], 10.0) == [lease.ack_id]
    assert backlog.acknowledge([again.ack_id], 10.0) == []
    assert len(backlog) == 0


@pytest.mark.parametrize(("seconds", "back_at"), [(2.0, 3.0), (60.0, 61.0)])
def test_an_extended_lease_ends_at_its_new_deadline(seconds, back_at):
    """An extended lease ends at its new deadline, earlier or later than before."""
    backlog = _backlog()
    (lease,) = _take(backlog, 0.0)
    backlog.extend([lease.ack_id], 1.0, seconds)
    assert _take(backlog, back_at - 0.01) == []
    assert len(_take(backlog, back_at)) == 1


def test_an_expired_lease_cannot_be_extended():
    """An expired lease cannot be extended, because another receiver can have the message."""
    backlog = _backlog()
    (lease,) = _take(backlog, 0.0)
    backlog.extend([lease.ack_id], 10.0, 600.0)
    assert len(_take(backlog, 10.0)) == 1


def test_backoff_doubles_up_to_the_maximum():
    """The backoff doubles up to the maximum, from the first retry on, as in production."""
    rules = RetryRules(minimum_backoff_seconds=4, maximum_backoff_seconds=16)
    assert [rules.backoff_seconds(failures) for failures in range(1, 6)] == [4, 8, 16, 16, 16]
    assert rules.backoff_seconds(10_000) == 16


def test_a_nack_waits_for_its_backoff():
    """A nacked message waits for the backoff of its own count of failures."""
    backlog = _backlog(minimum_backoff_seconds=4, maximum_backoff_seconds=16)
    now = 0.0
    for wait in (4.0, 8.0, 16.0, 16.0):
        (lease,) = _take(backlog, now)
        backlog.nack([lease.ack_id], now)
        assert _take(backlog, now + wait - 0.01) == []
        now += wait
    assert len(_take(backlog, now)) == 1


def test_expiry_counts_as_a_failure():
    """An expired lease counts as a failure, and the backoff begins at its deadline."""
    backlog = _backlog(minimum_backoff_seconds=4, maximum_backoff_seconds=16)
    _take(backlog, 0.0)
    assert _take(backlog, 13.99) == []
    assert len(_take(backlog, 14.0)) == 1


def test_a_message_is_dead_after_its_last_attempt():
    """A message is dead-lettered after its last attempt; nacks and expiries count together."""
    backlog = _backlog(max_delivery_attempts=2)
    (lease,) = _take(backlog, 0.0)
    backlog.nack([lease.ack_id], 0.0)
    assert backlog.dead == []
    _take(backlog, 1.0)
    backlog.advance(11.0)
    assert [delivery.attempts for delivery in backlog.dead] == [2]
    assert len(backlog) == 0


def test_a_window_closes_and_opens_again():
    """A window by messages closes when full; acks, nacks and expiries open it again."""
    backlog, window = _backlog(5), Window(max_messages=2)
    first, second = _take(backlog, 0.0, window=window)
    assert _take(backlog, 0.0, window=window) == []
    backlog.acknowledge([first.ack_id], 1.0)
    assert len(_take(backlog, 1.0, window=window)) == 1
    backlog.nack([second.ack_id], 1.0)
    assert len(_take(backlog, 1.0, window=window)) == 1
    assert len(_take(backlog, 20.0, window=window)) == 2


def test_a_window_by_bytes():
    """A window by bytes closes once that many bytes are leased."""
    backlog, window = _backlog(3), Window(max_bytes=4)
    assert len(_take(backlog, 0.0, window=window)) == 2


def test_the_next_change_is_the_next_deadline_or_backoff():
    """The next change is the next deadline or backoff end, so that waiting needs no polling."""
    backlog = _backlog(2, minimum_backoff_seconds=1, maximum_backoff_seconds=1)
    assert backlog.next_change() is None
    (lease,) = _take(backlog, 0.0, limit=1)
    assert backlog.next_change() == 10.0
    backlog.nack([lease.ack_id], 5.0)
    assert backlog.next_change() == 6.0


def test_a_message_is_dropped_after_its_retention():
    """A message that nobody took in time is dropped; a leased one is kept until its lease ends."""
    backlog = _backlog(2)
    backlog.retention_seconds = 600.0
    _take(backlog, 599.0, limit=1)
    assert _take(backlog, 600.0) == []
    assert len(backlog) == 1
    assert _take(backlog, 609.0) == []
    assert len(backlog) == 0
