"""The calls of a stopped step end at once, whatever they wait for on the network."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest
import requests
import urllib3

from daemon.clients import storage_client
from localcloud import Fault
from tests.support.charts.chart_img_samples import account
from tests.support.cloud.clouds import PROJECT, clients_find
from tests.support.cloud.tls import pem_of
from tests.support.fakes import BUCKET, NOON, chart_request, png_bytes, scope_of
from worker_chart_export.backends.http import POOLS, CancellableAdapter, cancellable_by
from worker_chart_export.charts.chart_img.client import ChartApi
from worker_chart_export.concurrency.cancel_scope import CancelScope
from worker_chart_export.errors import Interrupted
from worker_chart_export.outputs.artifact_store import ArtifactStore, StepFolder
from worker_chart_export.timing import Backoff, SystemClock

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

STOPPED = Interrupted("stop requested")
#: By the contract; the calls' own timeouts are 5 s and more.
MAX_SECONDS = 2.0
UNENDING = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n["
HALF_A_BODY = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n["
TUNNEL = b"HTTP/1.1 200 Connection established\r\n\r\n"


def _receive_request(connection: socket.socket) -> None:
    """Receive a whole request. The worker does not use a connection again whose server answers before."""
    received = b""
    while b"\r\n\r\n" not in received and (part := connection.recv(65536)):
        received += part
        if received.startswith(b"\x16"):  # the start of a TLS handshake
            return
    head, _, body = received.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: *(\d+)", head)
    missing = int(length[1]) - len(body) if length else 0
    while missing > 0 and (part := connection.recv(65536)):
        missing -= len(part)


class StallingServer:
    """Accepts connections, plays a script on each, and then sends nothing until it is released.

    Args:
        script: For each item something is received, then the item sent.
        tls: Encrypts the connections, if given.
    """

    def __init__(self, script: tuple[bytes, ...], tls: ssl.SSLContext | None = None) -> None:
        self._script, self._tls = script, tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()
        self._release = threading.Event()
        self.stalled = threading.Semaphore(0)
        self.connections = 0
        self.farewell = b""

    @property
    def url(self) -> str:
        """Return its address."""
        return "http{}://{}:{}".format("s" if self._tls else "", *self.address)

    @property
    def address(self) -> tuple[str, int]:
        """Return its host and port."""
        host, port = self._listener.getsockname()
        return host, port

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections += 1
                thread = threading.Thread(target=self._serve, args=(connection,))
                self._threads.append(thread)
                thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), contextlib.ExitStack() as closing:
            closing.enter_context(connection)
            if self._tls:
                connection = closing.enter_context(self._tls.wrap_socket(connection, server_side=True))
            for answer in self._script:
                _receive_request(connection)
                connection.sendall(answer)
            self.stalled.release()
            self._release.wait()
            connection.sendall(self.farewell)
            if self.farewell:
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(65536):
                    """Closing before all is read would reset the connection under the answer."""

    def release(self, farewell: bytes = b"") -> None:
        """Send `farewell` on every connection and close it."""
        self.farewell = farewell
        self._release.set()

    def close(self) -> None:
        """End all threads."""
        self.release()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()


@contextlib.contextmanager
def tls_proxy(tls: ssl.SSLContext, server: StallingServer):
    """Run a proxy that takes one connection, encrypted itself, to that server. Yield its URL."""
    listener = socket.create_server(("127.0.0.1", 0))

    def pass_on(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                socket.socket.shutdown(end, socket.SHUT_RDWR)

    def serve() -> None:
        with contextlib.suppress(OSError), contextlib.ExitStack() as closing:
            opened = closing.enter_context(listener.accept()[0])
            client = closing.enter_context(tls.wrap_socket(opened, server_side=True))
            _receive_request(client)
            client.sendall(TUNNEL)
            behind = closing.enter_context(socket.create_connection(server.address))
            back = threading.Thread(target=pass_on, args=(behind, client))
            back.start()
            pass_on(client, behind)
            back.join()

    thread = threading.Thread(target=serve)
    thread.start()
    yield f"https://127.0.0.1:{listener.getsockname()[1]}"
    listener.close()
    thread.join()


@pytest.fixture
def stalling():
    """Start stalling servers."""
    with contextlib.ExitStack() as servers:

        def start(*script: bytes, tls: ssl.SSLContext | None = None) -> StallingServer:
            return servers.enter_context(contextlib.closing(StallingServer(script, tls)))

        yield start


@pytest.fixture
def ask():
    """Yield each kind of network call, as `ask(url, scope)` to a service at `url`."""
    with contextlib.ExitStack() as clients:

        def api(url: str) -> ChartApi:
            made = ChartApi(base_url=url, connections=4, max_png_bytes=262144)
            return clients.enter_context(contextlib.closing(made))

        def store(url: str) -> ArtifactStore:
            with clients_find({"STORAGE_EMULATOR_HOST": url}):
                client = clients.enter_context(contextlib.closing(storage_client(PROJECT, connections=4)))
            return ArtifactStore(client=client, bucket=BUCKET)

        def chart(url, scope):
            return api(url).post(account(), chart_request(scope=scope))

        def upload(url, scope, content=b"png"):
            return store(url).upload_png("charts/r/s/a.png", content, metadata={}, scope=scope)

        def candles(url, scope):
            return store(url).read_candles(f"gs://{BUCKET}/candles.json", scope=scope)

        def manifest(url, scope):
            return store(url).write_manifest("m.json", b"{}", scope=scope, confirm_lease=lambda: None)

        def listing(url, scope):
            return store(url).stored_pngs(StepFolder("r", "s"), started_at=NOON, scope=scope)

        calls = {
            "chart": chart,
            "upload": upload,
            "candles": candles,
            "manifest": manifest,
            "listing": listing,
            "api": api,
            "store": store,
        }
        yield calls


def assert_comes_back(call: Callable[..., object], server: StallingServer, *args: object) -> None:
    """Run `call` until the server stalls, stop the step, and check that the call ends with the stop."""
    scope, moments = scope_of(300), []

    def stop() -> None:
        if server.stalled.acquire(timeout=20):
            moments.append(time.monotonic())
            scope.stop(STOPPED)

    stopping = threading.Thread(target=stop)
    stopping.start()
    with pytest.raises(Interrupted, match=r"stop requested"):
        call(args[0] if args else server.url, scope, *args[1:])
    came_back = time.monotonic()
    stopping.join()
    assert came_back - moments[0] < MAX_SECONDS
    assert server.connections == 1


# Google's client leaves the connection of a download that failed to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
class TestStop:
    """A stopped call ends within two seconds, with the stop and not as a failed request."""

    @pytest.mark.parametrize("kind", ["chart", "upload", "candles", "manifest", "listing"])
    def test_while_no_answer_comes(self, ask, stalling, kind):
        """A stop ends a call that waits for its response."""
        assert_comes_back(ask[kind], stalling(b""))

    @pytest.mark.parametrize("kind", ["chart", "upload", "candles"])
    @pytest.mark.parametrize("head", [UNENDING, HALF_A_BODY], ids=["unending", "half"])
    def test_in_the_middle_of_an_answer(self, ask, stalling, kind, head):
        """A stop ends a call in the middle of a response; a body without length is not taken as complete."""
        assert_comes_back(ask[kind], stalling(head))

    @pytest.mark.parametrize("kind", ["chart", "candles"])
    def test_on_a_connection_of_an_earlier_call(self, ask, stalling, kind):
        """A stop ends a call on a connection that served an earlier call."""
        body = png_bytes()
        server = stalling(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body), b"")
        api, store = ask["api"](server.url), ask["store"](server.url)

        def call(_url: str, scope: CancelScope) -> object:
            if kind == "chart":
                return api.post(account(), chart_request(scope=scope))
            return store.read_candles(f"gs://{BUCKET}/x.json", scope=scope)

        call(server.url, scope_of())
        assert_comes_back(call, server)

    @pytest.mark.parametrize("kind", ["chart", "upload", "candles"])
    def test_below_tls(self, ask, stalling, tls, kind):
        """A stop ends a TLS call by shutting its socket down, without a closing handshake."""
        assert_comes_back(ask[kind], stalling(b"", tls=tls))

    @pytest.mark.parametrize("kind", ["chart", "upload"])
    def test_during_a_handshake(self, ask, stalling, kind):
        """A stop ends a call during the TLS handshake."""
        server = stalling(b"")
        assert_comes_back(ask[kind], server, server.url.replace("http:", "https:"))

    @pytest.mark.parametrize("kind", ["chart", "upload"])
    @pytest.mark.parametrize("script", [(b"",), (TUNNEL, b"")], ids=["connect", "handshake"])
    def test_behind_a_proxy(self, ask, stalling, kind, script, monkeypatch):
        """A stop ends a call when the proxy, or the server behind it, does not respond."""
        server = stalling(*script)
        monkeypatch.setenv("HTTPS_PROXY", server.url)
        assert_comes_back(ask[kind], server, "https://charts.invalid")

    @pytest.mark.parametrize("kind", ["chart", "upload"])
    def test_below_tls_within_the_tls_of_a_proxy(self, ask, stalling, tls, kind, monkeypatch):
        """A stop ends a call whose connection is no socket but a transport over one."""
        server = stalling(b"", tls=tls)
        with tls_proxy(tls, server) as proxy:
            monkeypatch.setenv("HTTPS_PROXY", proxy)
            assert_comes_back(ask[kind], server)

    def test_while_the_server_does_not_read(self, ask, stalling):
        """A stop ends an upload that the server does not read."""
        server = stalling()
        assert_comes_back(ask["upload"], server, server.url, b"x" * 32 * 1024 * 1024)

    def test_while_waiting_for_an_access_token(self, stalling, key, tmp_path, monkeypatch):
        """A stop ends a call that waits for an access token from another server."""
        server = stalling(b"")
        account = {
            "type": "service_account",
            "client_email": "worker@demo.invalid",
            "token_uri": server.url,
            "private_key": pem_of(key).decode(),
        }
        (tmp_path / "account.json").write_text(json.dumps(account))
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "account.json"))
        with contextlib.closing(storage_client(PROJECT, connections=1)) as client:
            store = ArtifactStore(client=client, bucket=BUCKET)
            assert_comes_back(
                lambda _url, scope: store.upload_png("a.png", b"png", metadata={}, scope=scope), server
            )

    @pytest.mark.parametrize("library", ["urllib3", "requests"])
    def test_before_the_call_waits(self, stalling, library):
        """A socket that opens after the stop is shut down at once."""
        scope, server = scope_of(), stalling(b"")
        scope.stop(STOPPED)
        errors = (urllib3.exceptions.ProtocolError, requests.ConnectionError)
        with _getting(library) as get, cancellable_by(scope), pytest.raises(errors):
            get(server.url)

    def test_between_two_attempts(self, ask, cloud, monkeypatch):
        """A stop ends the pause between two attempts."""
        pauses = Backoff(low_seconds=60.0, first_seconds=60.0, max_seconds=60.0)
        monkeypatch.setattr("worker_chart_export.backends.storage.BACKOFF", pauses)
        cloud.storage.faults.add(Fault(method="objects.insert", error=503))
        asleep, moments = threading.Event(), []

        class Announcing(CancelScope):
            def sleep(self, seconds: float) -> None:
                asleep.set()
                super().sleep(seconds)

        def stop() -> None:
            if asleep.wait(20):
                moments.append(time.monotonic())
                scope.stop(STOPPED)

        scope = Announcing(seconds=300, clock=SystemClock())
        stopping = threading.Thread(target=stop)
        stopping.start()
        with pytest.raises(Interrupted):
            ask["upload"](cloud.storage.url, scope)
        came_back = time.monotonic()
        stopping.join()
        assert came_back - moments[0] < MAX_SECONDS


class TestOthers:
    """A stop does not disturb other calls."""

    def test_another_step_s_call_goes_on(self, ask, stalling):
        """A call of another step continues on its own connection of the same client."""
        server, got = stalling(b""), []
        api = ask["api"](server.url)
        first, second = scope_of(60), scope_of(60)

        def chart(scope) -> None:
            try:
                got.append(api.post(account(), chart_request(scope=scope)).body)
            except Interrupted as error:
                got.append(error)

        threads = [threading.Thread(target=chart, args=(scope,)) for scope in (first, second)]
        for thread in threads:
            thread.start()
        for _ in threads:
            assert server.stalled.acquire(timeout=20)
        first.stop(STOPPED)
        threads[0].join(20)
        server.release(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + png_bytes())
        threads[1].join(20)
        assert got == [STOPPED, png_bytes()]

    def test_a_connection_serves_one_call_after_the_other(self, ask):
        """A connection serves the next call, also after the step of an earlier call was stopped."""
        with _counting_server() as (url, ports):
            api, store = ask["api"](url), ask["store"](url)
            for call in (
                lambda scope: api.post(account(), chart_request(scope=scope)).body,
                lambda scope: store.read_candles(f"gs://{BUCKET}/x.json", scope=scope),
            ):
                ports.clear()
                for _ in range(3):
                    scope = scope_of()
                    assert call(scope) == png_bytes()
                    scope.stop(STOPPED)
                assert (len(ports), len(set(ports))) == (3, 1)

    @pytest.mark.parametrize("library", ["urllib3", "requests"])
    def test_a_released_connection_is_no_longer_the_call_s(self, library):
        """A stop of an earlier call's step does not affect the connection's next call."""
        with _counting_server() as (url, ports), _getting(library) as get:
            scope = scope_of()
            with cancellable_by(scope):
                get(url)
                scope.stop(STOPPED)
            get(url)
        assert (len(ports), len(set(ports))) == (2, 1)

    @pytest.mark.parametrize("kind", ["chart", "candles"])
    def test_tls_works_as_ever(self, ask, tls, kind):
        """TLS calls check the certificate and share one connection."""
        with _counting_server(tls) as (url, _):
            assert ask[kind](url, scope_of())

    def test_an_untrusted_server_is_refused(self, ask, tls, monkeypatch):
        """A server with an untrusted certificate is refused."""
        monkeypatch.delenv("SSL_CERT_FILE")
        monkeypatch.delenv("REQUESTS_CA_BUNDLE")
        with _counting_server(tls) as (url, ports), pytest.raises(Exception, match=r"SSLError"):
            ask["chart"](url, scope_of())
        assert ports == []


@contextlib.contextmanager
def _getting(library: str):
    """Return the `get` of a plain client whose calls can be stopped."""
    if library == "urllib3":
        with urllib3.PoolManager() as manager:
            manager.pool_classes_by_scheme = POOLS
            yield lambda url: manager.request("GET", url, retries=False)
    else:
        with requests.Session() as session:
            session.mount("http://", CancellableAdapter())
            yield session.get


@contextlib.contextmanager
def _counting_server(tls: ssl.SSLContext | None = None):
    """Answer every request with a PNG; yield the URL and the client's port of each request."""
    ports: list[int] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.do_GET()

        def do_GET(self):
            ports.append(self.client_address[1])
            self.send_response(200)
            self.send_header("Content-Length", str(len(png_bytes())))
            self.end_headers()
            self.wfile.write(png_bytes())

        def log_message(self, *_args):
            """Log nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_args):
            """Ignore a client that refuses the certificate."""

    server = Server(("127.0.0.1", 0), Handler)
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http{'s' if tls else ''}://127.0.0.1:{server.server_address[1]}", ports
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
