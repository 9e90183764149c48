"""The backlog of a subscription with ordering. Its clock is a number, so no test waits."""

from __future__ import annotations

from localcloud.pubsub.delivery import RetryRules, Window
from localcloud.pubsub.messages import PubsubMessage
from localcloud.pubsub.ordering import OrderedBacklog


def _backlog(*texts, **rules):
    """Return a backlog with messages like `a1`: the key `a` and a number. `-1` has no key."""
    backlog = OrderedBacklog("sub", RetryRules(**rules))
    for text in texts:
        backlog.add(PubsubMessage(data=text.encode(), ordering_key=text[0].strip("-")), 0.0)
    return backlog


def _take(backlog, now=0.0, *, limit=10, window=None):
    return backlog.take(now, limit=limit, lease_seconds=10.0, window=window or Window())


def _texts(leases):
    return [lease.delivery.message.data.decode() for lease in leases]


def test_one_call_gets_a_key_in_order():
    """One call gets several messages of each key in order, besides those without a key."""
    backlog = _backlog("a1", "b1", "a2", "-1", "b2")
    assert _texts(_take(backlog)) == ["-1", "a1", "a2", "b1", "b2"]
    assert len(backlog) == 5


def test_a_key_is_held_until_its_messages_are_settled():
    """The next messages of a key come when all leased ones are settled; other keys don't wait."""
    backlog = _backlog("a1", "a2", "a3", "b1")
    first, second = _take(backlog, limit=2)
    assert _texts(_take(backlog)) == ["b1"]
    backlog.acknowledge([first.ack_id], 1.0)
    assert _take(backlog, 1.0) == []
    backlog.acknowledge([second.ack_id], 1.0)
    assert _texts(_take(backlog, 1.0)) == ["a3"]


def test_a_nack_brings_later_messages_back_too():
    """After a nack the message and those after it come again in order; their old ack ids do nothing."""
    backlog, window = _backlog("a1", "a2", "a3", "a4"), Window()
    leases = _take(backlog, limit=3, window=window)
    assert backlog.nack([leases[1].ack_id], 1.0) == []
    assert backlog.acknowledge([leases[2].ack_id], 1.0) == [leases[2].ack_id]
    assert _take(backlog, 1.0) == []
    backlog.acknowledge([leases[0].ack_id], 1.0)
    assert window.messages == 0
    again = _take(backlog, 1.0)
    assert _texts(again) == ["a2", "a3", "a4"]
    assert [lease.delivery.attempts for lease in again] == [2, 2, 1]


def test_expired_leases_come_back_in_order():
    """Leases that expire together are delivered again in order."""
    backlog = _backlog("a1", "a2", "a3")
    _take(backlog, 0.0)
    assert _texts(_take(backlog, 10.0)) == ["a1", "a2", "a3"]


def test_a_backoff_delays_its_whole_key():
    """During the backoff of a message those after it wait too; other keys don't."""
    backlog = _backlog("a1", "a2", "b1", minimum_backoff_seconds=4, maximum_backoff_seconds=4)
    (first, _) = _take(backlog, limit=2)
    backlog.nack([first.ack_id], 0.0)
    assert _texts(_take(backlog, 3.9, limit=1)) == ["b1"]
    assert backlog.next_change() == 4.0
    assert _texts(_take(backlog, 4.0)) == ["a1", "a2"]


def test_a_dead_letter_lets_the_rest_of_its_key_through():
    """When a message is dead-lettered, the later ones of its key are delivered."""
    backlog = _backlog("a1", "a2", max_delivery_attempts=1)
    (first,) = _take(backlog, limit=1)
    backlog.nack([first.ack_id], 0.0)
    assert [delivery.message.data for delivery in backlog.dead] == [b"a1"]
    assert _texts(_take(backlog)) == ["a2"]


def test_a_cleared_backlog_is_empty():
    """A cleared backlog has no messages, and ack ids of before do nothing."""
    window = Window()
    backlog = _backlog("a1", "a2", "-1", minimum_backoff_seconds=4, maximum_backoff_seconds=4)
    held, failed = _take(backlog, limit=2, window=window)
    backlog.nack([failed.ack_id], 0.0)
    assert sorted(message.data for message in backlog.messages()) == [b"-1", b"a1", b"a2"]
    backlog.clear()
    assert (len(backlog), window.messages, backlog.next_change()) == (0, 0, None)
    assert backlog.acknowledge([held.ack_id], 1.0) == [held.ack_id]


def test_old_messages_are_dropped():
    """A message that was not delivered during the retention is dropped."""
    backlog = _backlog("a1", "-1")
    backlog.retention_seconds = 600.0
    assert _take(backlog, 600.0) == []
    assert len(backlog) == 0
