"""The streaming pull on the embedded Pub/Sub."""

from __future__ import annotations

import queue
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from google.api_core import exceptions as google_errors
from google.cloud.pubsub_v1 import PublisherClient, SubscriberClient
from google.cloud.pubsub_v1.subscriber._protocol import requests
from google.cloud.pubsub_v1.types import FlowControl

from daemon.settings import PubsubSettings, Settings
from daemon.subscription.delivery_window import MAX_RESTARTS, RESTARTS_SECONDS, DeliveryWindow
from daemon.subscription.stream import NackingScheduler, Stream, Subscriber, open_stream
from daemon.subscription.unsent_requests import UnsentRequests
from localcloud import Fault
from tests.support.cloud.clouds import PROJECT, clients_find
from tests.support.fakes import HandClock
from worker_chart_export.errors import BackendRefused, BackendUnavailable

TOPIC = f"projects/{PROJECT}/topics/steps"


@pytest.fixture
def settings():
    """Return settings of a daemon with two threads."""
    return Settings(
        worker_concurrency=2,
        ack_extension_seconds=10,
        google_cloud_project=PROJECT,
        pubsub_subscription="charts-sub",
        charts_bucket="gs://charts-demo",
        charts_api_mode="local",
    )


@pytest.fixture
def publisher(cloud, settings):
    """Return a publisher, with topic and subscription created."""
    with clients_find(cloud.environment()):
        client, admin = PublisherClient(), SubscriberClient()
    client.create_topic(name=TOPIC)
    admin.create_subscription(name=settings.subscription_path, topic=TOPIC)
    admin.close()
    yield client
    client.stop()
    client.transport.close()


@pytest.fixture
def subscriber(cloud, settings):
    """Return the subscriber under test."""
    with clients_find(cloud.environment()):
        made = Subscriber(settings)
    yield made
    made.close()


def _more_messages_than_threads(**given):
    return FlowControl(**{**given, "max_messages": 100})


def _until(holds, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.01)
    return holds()


def test_a_subscription_that_is_there_passes_the_probe(publisher, subscriber):
    """The probe of an existing subscription passes without a pull."""
    publisher.publish(TOPIC, b"x").result(10)
    assert subscriber.probe() is None


@pytest.mark.usefixtures("cloud")
def test_a_missing_subscription_is_refused(subscriber):
    """The probe of a missing subscription is refused, so the daemon exits with 3."""
    with pytest.raises(BackendRefused, match=r"^pubsub refused: NotFound"):
        subscriber.probe()


@pytest.mark.parametrize(
    ("status", "error"),
    [
        ("PERMISSION_DENIED", BackendRefused),
        ("UNAUTHENTICATED", BackendRefused),
        ("UNAVAILABLE", BackendUnavailable),
    ],
)
def test_a_probe_distinguishes_a_refusal_from_an_outage(publisher, subscriber, cloud, status, error):
    """The probe distinguishes a refusal from an outage, after which it passes."""
    assert publisher
    cloud.pubsub.faults.add(Fault(method="ModifyAckDeadline", error=status))
    with pytest.raises(error):
        subscriber.probe()


def test_a_stream_that_closes_waits_for_the_callback_that_runs(publisher, subscriber):
    """A closing stream waits for the running callback and sends its ack."""
    came, release = threading.Event(), threading.Event()

    def callback(message):
        came.set()
        release.wait(10)
        message.ack()

    publisher.publish(TOPIC, b"x").result(10)
    stream = subscriber.open(callback)
    assert came.wait(10)
    stream.cancel()
    try:
        with pytest.raises(TimeoutError):
            stream.result(timeout=0.5)
    finally:
        release.set()
    stream.result(timeout=10)


def test_deferred_messages_do_not_keep_others_away(publisher, settings, cloud):
    """Deferred messages as many as threads fill the stream; a new call of the same stream brings others."""
    came = queue.SimpleQueue()

    def callback(message):
        came.put(message.data)
        if message.data == b"later":
            message.modify_ack_deadline(600)
            message.drop()
        else:
            message.ack()

    for _ in range(2):
        publisher.publish(TOPIC, b"later").result(10)
    with clients_find(cloud.environment()):
        stream = open_stream(settings, callback)
    try:
        assert [came.get(timeout=10) for _ in range(2)] == [b"later", b"later"]
        publisher.publish(TOPIC, b"now").result(10)
        assert _get_while_renewing(came, stream) == b"now"
        assert stream.is_open
    finally:
        stream.cancel()
    assert stream.wait_until_ended(10)


def _get_while_renewing(came, stream):
    until = time.monotonic() + 30
    while True:
        stream.renew_if_blocked()
        try:
            return came.get(timeout=0.1)
        except queue.Empty:
            assert time.monotonic() < until, "no message came"


class TestDeliveryWindow:
    """When a stream gets a new call."""

    @pytest.fixture
    def clock(self):
        """Return a clock that the test sets."""
        return HandClock()

    @pytest.fixture
    def window(self, clock):
        """Return a full window: two messages are deferred, two are in progress."""
        window = DeliveryWindow(4, clock.monotonic)
        for ack_id in "abcd":
            window.add(ack_id)
        for ack_id in "ab":
            window.follow(_deferred(ack_id))
        return window

    def test_a_full_window_starts_again_once(self, window):
        """A window that deferred messages fill starts at 0, and does not count its old messages again."""
        assert window.restart_if_deferred()
        window.follow(_deferred("c"))
        window.follow(_deferred("d"))
        assert not window.restart_if_deferred()

    def test_the_client_is_never_asked_for_more_calls_than_it_makes(self, window, clock):
        """After some restarts the next one waits, because the client would block."""
        restarts = []
        for number in range(MAX_RESTARTS + 1):
            restarts.append(window.restart_if_deferred())
            for ack_id in "efgh":
                window.add(f"{ack_id}{number}")
                window.follow(_deferred(f"{ack_id}{number}"))
        assert restarts == [True] * MAX_RESTARTS + [False]
        clock.advance(RESTARTS_SECONDS)
        assert window.restart_if_deferred()

    def test_a_window_with_room_goes_on(self, window, clock):
        """After an ack, a nack, or the end of a deferral Pub/Sub sends by itself."""
        window.follow(requests.AckRequest("d", 1, 0.0, None, None))
        assert not window.restart_if_deferred()
        window.add("e")
        window.follow(requests.NackRequest("e", 1, None, None))
        assert not window.restart_if_deferred()
        window.add("f")
        clock.advance(60)
        assert not window.restart_if_deferred()

    def test_a_window_full_of_messages_in_progress_goes_on(self, window):
        """With few deferred messages the threads are busy, and more messages would only wait here."""
        window.follow(requests.AckRequest("a", 1, 0.0, None, None))
        window.add("e")
        assert not window.restart_if_deferred()


def _deferred(ack_id):
    return requests.ModAckRequest(ack_id, 60, None)


def test_messages_come_to_the_callback_at_most_as_many_as_threads(publisher, subscriber):
    """At most as many messages as threads are in callbacks; the others stay with Pub/Sub."""
    came = queue.SimpleQueue()
    release = queue.SimpleQueue()

    def callback(message):
        came.put(message.data)
        release.get(timeout=10)
        message.ack()

    for number in range(4):
        publisher.publish(TOPIC, b"%d" % number).result(10)
    stream = subscriber.open(callback)
    first = {came.get(timeout=10), came.get(timeout=10)}
    with pytest.raises(queue.Empty):
        came.get(timeout=0.3)
    for _ in range(4):
        release.put(None)
    rest = {came.get(timeout=10), came.get(timeout=10)}
    stream.cancel()
    stream.result(timeout=10)
    assert first | rest == {b"0", b"1", b"2", b"3"}


@pytest.mark.usefixtures("publisher")
def test_google_s_client_gets_every_limit(subscriber, settings):
    """Google's client gets every limit. Its private fields are read: most limits act after minutes."""
    stream = subscriber.open(lambda message: message.ack())
    manager = stream._StreamingPullFuture__manager
    bounds, awaits = manager.flow_control, manager._await_callbacks_on_shutdown
    threads = manager._scheduler._executor._max_workers
    stream.cancel()
    stream.result(timeout=10)
    assert (bounds.max_messages, threads) == (2, 2)
    assert bounds.max_lease_duration == settings.max_lease_seconds < 3600
    assert (bounds.min_duration_per_lease_extension, bounds.max_duration_per_lease_extension) == (10, 10)
    assert awaits is True


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (google_errors.NotFound("x"), BackendRefused),
        (google_errors.PermissionDenied("x"), BackendRefused),
        (google_errors.ServiceUnavailable("x"), BackendUnavailable),
        (RuntimeError("x"), BackendUnavailable),
        (None, BackendUnavailable),
    ],
)
def test_the_error_of_a_stream_decides_what_follows(error, kind):
    """A refusal ends the daemon; after any other error the stream is opened again."""
    future: Future[None] = Future()
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
    assert type(Stream(SimpleNamespace(close=lambda: None), future).end_error()) is kind  # type: ignore[arg-type]


def test_a_message_that_comes_while_the_stream_closes_is_nacked():
    """A message that arrives while the stream closes is nacked; the client would hold it."""
    executor, settled = ThreadPoolExecutor(1), []
    scheduler = NackingScheduler(executor, UnsentRequests(), DeliveryWindow(1))
    message = SimpleNamespace(ack_id="a", nack=lambda: settled.append("nack"))
    came = queue.SimpleQueue()
    scheduler.schedule(came.put, message)
    assert (came.get(timeout=10), settled) == (message, [])
    scheduler.shutdown(await_msg_callbacks=True)
    scheduler.schedule(came.put, message)
    assert (came.empty(), settled) == (True, ["nack"])


def test_messages_that_wait_for_a_thread_are_nacked_by_a_closing_stream(
    publisher, cloud, settings, monkeypatch
):
    """A closing stream nacks messages that wait for a thread, as from servers without flow control."""
    monkeypatch.setattr("daemon.subscription.stream.FlowControl", _more_messages_than_threads)
    came, release = queue.SimpleQueue(), threading.Event()

    def callback(message):
        came.put(message.data)
        release.wait(10)
        message.ack()

    with clients_find(cloud.environment()):
        stream = open_stream(settings, callback)
        for number in range(6):
            publisher.publish(TOPIC, b"%d" % number).result(10)
        first = {came.get(timeout=10), came.get(timeout=10)}
        leaser = stream._future._StreamingPullFuture__manager.leaser
        assert _until(lambda: leaser.message_count == 6)
        stream.cancel()
        assert not stream.wait_until_ended(0.3)
        release.set()
        assert stream.wait_until_ended(10)
        second = open_stream(settings, callback)
        rest = {came.get(timeout=5) for _ in range(4)}  # far sooner than their deadline of 10 s
        second.cancel()
        assert second.wait_until_ended(10)
    assert first | rest == {b"%d" % number for number in range(6)}


def test_a_stream_has_a_connection_of_its_own_and_closes_it_at_its_end(publisher, cloud, settings):
    """A stream has its own connection and closes it at its end."""
    assert publisher
    ended = threading.Event()
    with clients_find(cloud.environment()):
        one, other = (open_stream(settings, lambda message: message.ack()) for _ in range(2))
    one.on_end(ended.set)
    assert (one.is_open, one.has_ended) == (True, False)
    one.cancel()
    assert not one.is_open
    assert one.wait_until_ended(10)
    assert ended.wait(10)
    assert (one._subscriber._client.closed, other._subscriber._client.closed) == (True, False)
    assert (one.has_ended, other.is_open) == (True, True)
    other.cancel()
    assert other.wait_until_ended(10)


@pytest.mark.usefixtures("cloud")
def test_a_stream_that_can_t_be_opened_leaves_no_connection(cloud, settings, monkeypatch):
    """A stream that can't be opened leaves no connection."""
    closed = []
    monkeypatch.setattr(Subscriber, "close", lambda self: closed.append(self._client.close()))
    with clients_find(cloud.environment()), pytest.raises(BackendRefused):
        open_stream(settings, lambda message: message.ack())
    assert closed == [None]


@pytest.mark.parametrize(
    "error", [None, google_errors.NotFound("x"), RuntimeError("x"), TimeoutError("x")], ids=repr
)
def test_a_closed_stream_has_ended(error):
    """A closed stream has ended for the drain, also when it broke in between."""
    future: Future[None] = Future()
    stream = Stream(SimpleNamespace(close=lambda: None), future)  # type: ignore[arg-type]
    assert not stream.wait_until_ended(0)
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
    assert stream.wait_until_ended(0)
    assert (stream.is_open, stream.has_ended) == (False, True)


def test_the_connection_of_a_stream_that_does_not_end_is_cut_without_waiting():
    """The connection of a stream that does not end is cut without a wait, because a close may hang."""
    began, release = threading.Event(), threading.Event()

    def close():
        began.set()
        release.wait(10)

    Stream(SimpleNamespace(close=close), Future()).disconnect()  # type: ignore[arg-type]
    assert began.wait(10)
    release.set()


def test_settings_of_the_subscription_alone_name_its_path():
    """Settings with only a subscription give its path, as `publish` needs it."""
    assert (
        PubsubSettings(google_cloud_project="p", pubsub_subscription="abc").subscription_path
        == "projects/p/subscriptions/abc"
    )


@pytest.mark.parametrize(
    ("error", "own", "events"),
    [
        (google_errors.Cancelled("CANCELLED"), True, []),
        (google_errors.Cancelled("CANCELLED"), False, ["stream_ended"]),
        (google_errors.Unknown("x"), True, ["stream_ended"]),
    ],
)
def test_a_cancelled_stream_may_end_as_cancelled(log_lines, error, own, events):
    """A stream that the daemon has cancelled may end as CANCELLED; any other error of its end is logged."""
    future = Future()
    future.cancelled = lambda: own  # as of Google's future: cancelled by this process
    future.set_exception(error)
    assert Stream(SimpleNamespace(close=lambda: None), future).wait_until_ended(1)
    assert [line["event"] for line in log_lines()] == events
