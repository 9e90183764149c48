"""What a server sends beside the answer to a request never becomes the answer to another one."""

from __future__ import annotations

import contextlib
import gc
import json
import select
import socket
import threading
import time

import pytest
import requests
from google.auth.credentials import AnonymousCredentials

from worker_chart_export.backends.connections import open_connections
from worker_chart_export.backends.http import (
    CancellableAdapter,
    CancellableConnection,
)
from worker_chart_export.backends.storage import call_storage
from worker_chart_export.backends.storage_session import StorageSession
from worker_chart_export.concurrency.cancel_scope import CancelScope
from worker_chart_export.errors import BackendUnavailable, OhlcvUnavailable
from worker_chart_export.timing import SystemClock

EARLY_HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
PROCESSING = b"HTTP/1.1 102 Processing\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def _ok(body):
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


class Server:
    """Give each request its answer in order, over any connection. Bytes of an answer are sent at once.

    Attributes:
        connections: How many connections have been opened.
    """

    def __init__(self, answers, tls_context=None):
        self.connections = 0
        self._answers = iter(answers)
        self._tls = tls_context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()
        scheme = "http" if tls_context is None else "https"
        self.url = f"{scheme}://127.0.0.1:{self._listener.getsockname()[1]}"

    def _accept(self):
        while not self._stopping.is_set():
            if select.select([self._listener], [], [], 0.02)[0]:
                connection = self._listener.accept()[0]
                self.connections += 1
                self._threads.append(threading.Thread(target=self._serve, args=(connection,)))
                self._threads[-1].start()

    def _serve(self, connection):
        with contextlib.suppress(OSError), contextlib.ExitStack() as closing:
            closing.enter_context(connection)
            connection.settimeout(10)
            if self._tls is not None:
                connection = closing.enter_context(self._tls.wrap_socket(connection, server_side=True))
            while connection.recv(65536):
                connection.sendall(next(self._answers))

    def close(self):
        """End all threads."""
        self._stopping.set()
        self._threads[0].join()
        self._listener.close()
        for thread in self._threads[1:]:
            thread.join()


@pytest.fixture
def serve():
    """Return a function that starts a server with these answers, and closes its clients after the test."""
    with contextlib.ExitStack() as servers:
        with contextlib.ExitStack() as clients:

            def start(*answers, tls_context=None):
                server = servers.enter_context(contextlib.closing(Server(answers, tls_context)))
                return server, clients

            yield start
        gc.collect()  # urllib3 closes the connections of a pool when nothing refers to it, not even an error


def _with_pool(url, clients):
    manager = clients.enter_context(open_connections(url, kept=1))

    def get(seconds=5):
        answer = manager.request("GET", f"{url}/", retries=False, timeout=seconds)
        return answer.status, answer.data

    return get


def _with_storage(url, clients):
    session = StorageSession(AnonymousCredentials(), url=url, connections=1)
    clients.callback(session.close)

    def get(seconds=5):
        answer = session.request("GET", f"{url}/", timeout=(seconds, seconds))
        return answer.status_code, answer.content

    return get


def _with_adapter(url, clients):
    session = clients.enter_context(requests.Session())
    session.mount("http://", CancellableAdapter(max_retries=0))

    def get(seconds=5):
        answer = session.get(f"{url}/", timeout=seconds)
        return answer.status_code, answer.content

    return get


CLIENTS = pytest.mark.parametrize("client", [_with_pool, _with_storage, _with_adapter])


@CLIENTS
@pytest.mark.parametrize(
    "interim",
    [EARLY_HINTS, PROCESSING, CONTINUE, PROCESSING + EARLY_HINTS, CONTINUE + EARLY_HINTS + CONTINUE],
    ids=["103", "102", "100", "102 103", "100 103 100"],
)
def test_interim_answers_are_skipped(serve, client, interim):
    """Each request gets the final answer of its own, over one connection."""
    server, clients = serve(interim + _ok(b"first"), _ok(b"second"), interim + _ok(b"third"))
    get = client(server.url, clients)
    assert [get(), get(), get()] == [(200, b"first"), (200, b"second"), (200, b"third")]
    assert server.connections == 1


@CLIENTS
def test_an_error_after_an_interim_answer_is_the_answer(serve, client):
    """The status of an error that follows an interim answer is seen."""
    server, clients = serve(EARLY_HINTS + b"HTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n")
    assert client(server.url, clients)() == (503, b"")


def test_endless_interim_answers_are_an_error(serve):
    """A server that sends interim answers without end does not hold a thread."""
    server, clients = serve(EARLY_HINTS * 21 + _ok(b"late"))
    with pytest.raises(Exception, match=r"more than 20 interim answers"):
        _with_pool(server.url, clients)()


@CLIENTS
@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Type: a\r\nConte"])
def test_a_connection_that_ends_within_the_headers_is_an_error(client, head):
    """It is no empty answer."""
    with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.ExitStack() as clients:

        def answer():
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(head)

        thread = threading.Thread(target=answer)
        thread.start()
        get = client(f"http://127.0.0.1:{listener.getsockname()[1]}", clients)
        with pytest.raises(Exception, match="ended within the headers"):
            get()
        thread.join()


@pytest.mark.parametrize(
    "answer",
    [
        CONTINUE * 100_000 + _ok(b"late"),
        b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 20_000 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nX-A: " + b"b" * 65_000 + b"\r\nX-C: " + b"d" * 65_000 + b"\r\n\r\n",
        b"HTTP/1.1 103 X\r\nX-A: " + b"b" * 65_000 + b"\r\n\r\n" + EARLY_HINTS * 19 + _ok(b"x" * 9),
        b"HTTP/1.1 200 " + b"x" * 1_000_000,
        CHUNKED + b"5\r\nfirst\r\n0\r\nX: " + b"t" * 1_000_000 + b"\r\n\r\n",
        CHUNKED + b"5;x=" + b"t" * 1_000_000 + b"\r\nfirst\r\n0\r\n\r\n",
    ],
    ids=["100 000 x 100", "headers", "long headers", "with interim ones", "status", "trailer", "chunk"],
)
@CLIENTS
def test_what_is_no_body_takes_no_memory(serve, client, answer):
    """Of headers, trailers and chunk sizes at most 64 KiB are read; then the answer is an error."""
    server, clients = serve(answer, _ok(b"second"))
    get = client(server.url, clients)
    with pytest.raises(Exception, match=r"(?i)more than \d+ |got more than|LineTooLong|header"):
        get()
    assert get() == (200, b"second")
    assert server.connections == 2


@CLIENTS
@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 5\r\nContent-Length: 50\r\n",
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        b"Content-Length: 5\r\nTransfer-Encoding: gzip, chunked\r\n",
    ],
)
def test_an_answer_without_a_clear_end_is_the_last_of_its_connection(serve, client, head):
    """Headers that contradict each other may hide an answer, so the connection is not used again."""
    server, clients = serve(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n5\r\nab", _ok(b"second"))
    get = client(server.url, clients)
    with contextlib.suppress(Exception):
        get(1)  # some wait for the rest of the body, which never comes
    assert get() == (200, b"second")
    assert server.connections == 2


def test_headers_and_body_arrive_in_one_piece():
    """Two pieces would wake the server twice for each request."""
    pieces = []
    with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.ExitStack() as clients:

        def answer():
            with listener.accept()[0] as connection:
                for _ in range(2):
                    pieces.append(connection.recv(65536))
                    connection.sendall(_ok(b""))

        thread = threading.Thread(target=answer)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        manager = clients.enter_context(open_connections(url, kept=1))
        for body in (b"x" * 30_000, b"second"):
            assert manager.request("POST", url, body=body, retries=False, timeout=5).status == 200
        thread.join()
    assert [piece.partition(b"\r\n\r\n")[2] for piece in pieces] == [b"x" * 30_000, b"second"]


def test_an_answer_that_comes_with_the_connection_is_the_last_of_it(monkeypatch):
    """Else each later request would get the answer to the one before."""

    def serve():
        for body in (b"first", b"second"):
            with listener.accept()[0] as connection:
                connection.sendall(_ok(b"of nobody"))
                connection.recv(65536)
                time.sleep(0.2)  # the pool looks at the connection meanwhile
                with contextlib.suppress(OSError):
                    connection.sendall(_ok(body))
                    connection.recv(65536)

    connect = CancellableConnection.connect

    def connect_and_wait(self):
        connect(self)
        assert select.select([self.sock], [], [], 10)[0]

    monkeypatch.setattr(CancellableConnection, "connect", connect_and_wait)
    with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.ExitStack() as clients:
        thread = threading.Thread(target=serve)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        manager = clients.enter_context(open_connections(url, kept=1))
        for body in (b"ONE", b"TWO"):
            assert manager.request("POST", url, body=body, retries=False, timeout=5).data == b"of nobody"
        thread.join()


def test_an_answer_before_its_request_is_the_last_of_its_connection(serve):
    """A server that answers before it has the body may answer the body as another request."""
    server, clients = serve(_ok(b"early"), b"", b"", b"", b"")
    connection = CancellableConnection("127.0.0.1", int(server.url.rpartition(":")[2]))
    clients.callback(connection.close)

    def body():
        assert select.select([connection.sock], [], [], 10)[0]  # the answer to the headers
        yield b"{}"

    connection.request("POST", "/", body=body(), headers={"Transfer-Encoding": "chunked"}, chunked=True)
    assert connection.getresponse().data == b"early"
    assert connection.sock is None


@pytest.mark.parametrize(
    "head",
    [b"Content-Length: 1000\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n", None],
    ids=["length", "chunked", "close", "interim"],
)
def test_an_answer_of_cloud_storage_byte_by_byte_ends_with_the_time(head):
    """No read times out while bytes arrive; the call ends when the time of the step does."""
    start = CONTINUE if head is None else b"HTTP/1.1 200 OK\r\n" + head + b"\r\n"
    drop = b"1\r\nx\r\n" if head and b"chunked" in head else CONTINUE if head is None else b"x"
    listener, ended = socket.create_server(("127.0.0.1", 0)), threading.Event()

    def drip():
        with contextlib.suppress(OSError), listener.accept()[0] as connection:
            connection.recv(65536)
            connection.sendall(start)
            while not ended.wait(0.1):
                connection.sendall(drop)

    server = threading.Thread(target=drip)
    server.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    session = StorageSession(AnonymousCredentials(), url=url, connections=1)
    started = time.monotonic()
    try:
        with pytest.raises(BackendUnavailable):
            call_storage(
                lambda timeout: session.request("GET", url, timeout=timeout).content,
                name="x",
                refusal=OhlcvUnavailable,
                scope=CancelScope(seconds=1.5, clock=SystemClock()),
            )
        assert time.monotonic() - started < 5
    finally:
        ended.set()
        session.close()
        server.join()
        listener.close()


#: What a server may send in one piece: an answer, and bytes that belong to no request.
SURPLUS = {
    "longer than its length": _ok(b"first") + b" and more",
    "two answers": _ok(b"first") + _ok(b"of nobody"),
    "an interim answer too many": _ok(b"first") + EARLY_HINTS,
    "after the last chunk": CHUNKED + b"5\r\nfirst\r\n0\r\n\r\n" + _ok(b"x"),
    "one line too many": _ok(b"first") + b"\r\n",
}


@CLIENTS
@pytest.mark.parametrize("answer", SURPLUS.values(), ids=SURPLUS)
def test_a_connection_with_bytes_after_its_answer_is_not_used_again(serve, client, answer):
    """Bytes after an answer may be a part of another one, so the next request opens a new connection."""
    server, clients = serve(answer, _ok(b"second"))
    get = client(server.url, clients)
    assert [get(), get()] == [(200, b"first"), (200, b"second")]
    assert server.connections == 2


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
def test_an_answer_that_must_be_empty_but_is_not(serve, status):
    """A body after a status that allows none is not read as the next answer."""
    server, clients = serve(b"HTTP/1.1 " + status + b"\r\n\r\n" + _ok(b"body"), _ok(b"second"))
    get = _with_pool(server.url, clients)
    assert [get(), get()] == [(int(status[:3]), b""), (200, b"second")]
    assert server.connections == 2


def test_an_answer_of_another_protocol_ends_its_connection(serve):
    """No request is sent over a connection that the server has switched to another protocol."""
    server, clients = serve(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n", _ok(b"second"))
    get = _with_pool(server.url, clients)
    assert [get()[0], get()] == [101, (200, b"second")]
    assert server.connections == 2


@pytest.mark.parametrize(("surplus", "connections"), [(b"", 1), (_ok(b"of nobody"), 2), (b"\r\n", 2)])
def test_below_tls_the_same_holds(serve, tls, surplus, connections):
    """Bytes in OpenSSL's own buffer are found too. Without any, the connection is used again."""
    server, clients = serve(_ok(b"first") + surplus, _ok(b"second"), tls_context=tls)
    get = _with_pool(server.url, clients)
    assert [get(), get()] == [(200, b"first"), (200, b"second")]
    assert server.connections == connections


def test_an_answer_that_is_not_read_to_its_end_ends_its_connection(serve):
    """The rest of an answer that nobody reads is not read as the next answer."""
    server, clients = serve(_ok(b"x" * 1000 + _ok(b"of nobody")), _ok(b"second"))
    manager = clients.enter_context(open_connections(server.url, kept=1))
    with manager.urlopen("GET", server.url, retries=False, preload_content=False) as answer:
        assert answer.read(1000) == b"x" * 1000
    assert manager.request("GET", server.url, retries=False, timeout=5).data == b"second"
    assert server.connections == 2


@pytest.mark.parametrize("status", [b"403 Forbidden", b"503 Service Unavailable"])
@pytest.mark.parametrize("stream", [False, True])
def test_only_the_start_of_an_error_of_cloud_storage_is_read(serve, status, stream):
    """8 KiB of an error are read, also of a download, and the connection is not used again."""
    body = b"x" * 3_000_000
    server, clients = serve(
        b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body),
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 8\r\n\r\nnot here",
        _ok(body),
    )
    session = StorageSession(AnonymousCredentials(), url=server.url, connections=1)
    clients.callback(session.close)
    answers = [session.request("GET", server.url, timeout=(5, 5), stream=stream) for _ in range(3)]
    assert [answer.content for answer in answers] == [b"x" * 8192, b"not here", body]
    assert [answer.status_code for answer in answers] == [int(status[:3]), 404, 200]
    assert server.connections == 2


def test_a_whole_answer_keeps_its_connection(serve):
    """Connections are used again after all usual answers, also after errors and empty ones."""
    answers = [
        _ok(b"a"),
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\nabc",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        CHUNKED + b"1\r\nb\r\n0\r\nTrailer: x\r\n\r\n",
        _ok(json.dumps({"a": "x" * 100_000}).encode()),
        _ok(b"c"),
    ]
    server, clients = serve(*answers)
    get = _with_pool(server.url, clients)
    assert [get()[0] for _ in answers] == [200, 404, 204, 200, 200, 200]
    assert server.connections == 1
