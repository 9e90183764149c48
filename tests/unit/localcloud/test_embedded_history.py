"""Messages kept for a seek."""

from __future__ import annotations

import time

from localcloud.pubsub.history import History, merged
from localcloud.pubsub.messages import PubsubMessage


def _message(number, age_seconds):
    message = PubsubMessage(data=b"%d" % number, message_id=str(number))
    message.publish_time.FromNanoseconds(int((time.time() - age_seconds) * 1e9))
    return message


def test_old_messages_are_dropped_when_they_are_added_and_read():
    """Messages older than the retention are gone; a longer one does not bring them back."""
    history = History(600.0)
    history.add([_message(1, 601), _message(2, 500)])
    assert [message.data for message in history.kept()] == [b"2"]
    history.retention_seconds = 400.0
    assert history.kept() == []
    history.retention_seconds = 600.0
    assert history.kept() == []


def test_merged_messages_come_once_in_order():
    """Groups of messages are merged by publish time, and each message comes once."""
    old, new = _message(2, 20), _message(1, 10)
    assert [message.data for message in merged([new], [old, new])] == [b"2", b"1"]
