"""All clients use the same proxies: gRPC, the worker's HTTP, Google's requests for tokens, the exporter."""

from __future__ import annotations

import os
import socket
import threading
from contextlib import closing, suppress

import grpc
import pytest
from google.auth.exceptions import TransportError
from google.auth.transport.requests import Request
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace.export import SpanExportResult
from urllib3.exceptions import HTTPError

from daemon.clients import firestore_client
from daemon.lifecycle.library_defaults import set_library_defaults
from daemon.lifecycle.proxies import (
    FOR_GRPC,
    LOCAL,
    PROXIES,
    check_grpc_proxy,
    grpc_targets,
    variables_for_grpc,
    without_local,
)
from daemon.settings import SettingsError
from worker_chart_export.backends.connections import open_connections

#: No such domain exists, so that a direct connection fails without leaving this machine.
DOMAIN = "cloud.invalid"
#: Of each environment: whether a proxy is used for these clients. `PROXY` is its host and port.
ENVIRONMENTS = [
    ({"https_proxy": "http://PROXY"}, True),
    ({"HTTPS_PROXY": "http://PROXY"}, True),
    ({"HTTPS_PROXY": "PROXY"}, True),
    ({"ALL_PROXY": "http://PROXY"}, True),
    ({"all_proxy": "http://user:p%40ss@PROXY"}, True),
    ({"HTTPS_PROXY": "http://PROXY", "NO_PROXY": "other.invalid"}, True),
    ({"http_proxy": "http://PROXY"}, False),
    ({"HTTP_PROXY": "http://PROXY"}, False),
    ({"HTTPS_PROXY": "http://PROXY", "NO_PROXY": "*"}, False),
    ({"https_proxy": "http://PROXY", "no_proxy": "*"}, False),
    ({"https_proxy": "http://PROXY", "NO_PROXY": DOMAIN}, False),
    ({"HTTPS_PROXY": "http://PROXY", "no_proxy": f"x, .{DOMAIN}"}, False),
]


@pytest.fixture
def set_environment(monkeypatch):
    """Set the proxy variables as a process with only these has them after its start."""

    def prepare(variables):
        for name in (*PROXIES, *FOR_GRPC, "no_proxy"):
            for spelling in (name, name.upper()):
                monkeypatch.setenv(spelling, "")  # so that it is restored
                monkeypatch.delenv(spelling)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        set_library_defaults()

    for name in ("PUBSUB_EMULATOR_HOST", "FIRESTORE_EMULATOR_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GOOGLE_CLOUD_UNIVERSE_DOMAIN", DOMAIN)
    return prepare


@pytest.fixture
def proxy():
    """Run a proxy that refuses every connection. Return its address, and the targets asked of it."""
    targets = []
    listener = socket.create_server(("127.0.0.1", 0))

    def accept():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                words = connection.recv(65536).split()
                targets.append(words[1].decode() if len(words) > 1 else "")
                connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")

    thread = threading.Thread(target=accept)
    thread.start()
    yield f"127.0.0.1:{listener.getsockname()[1]}", targets
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(10)


def call_by_grpc(host):
    """Make a gRPC call to the host, which fails."""
    with (
        grpc.secure_channel(f"{host}:443", grpc.ssl_channel_credentials()) as channel,
        pytest.raises(grpc.RpcError),
    ):
        channel.unary_unary("/service/Method")(b"", timeout=5)


def call_by_http(host):
    """Make a request to the host with the connections of the worker, which fails."""
    with open_connections(f"https://{host}", kept=1) as manager, suppress(HTTPError):
        manager.request("GET", f"https://{host}/", retries=False, timeout=5)


def ask_for_a_token(host):
    """Make a request to the host as Google's credentials do, which fails."""
    with suppress(TransportError):
        Request()(f"https://{host}/token", timeout=5)


def export_spans(host):
    """Export to the host with the exporter of the worker's spans, which fails."""
    exporter = OTLPSpanExporter(endpoint=f"https://{host}/v1/traces", timeout=0.5)  # no time for a second try
    assert exporter.export([]) is SpanExportResult.FAILURE
    exporter.shutdown()


@pytest.mark.parametrize(("variables", "is_used"), ENVIRONMENTS, ids=str)
def test_all_clients_use_the_same_proxy(set_environment, proxy, variables, is_used):
    """Each client asks the proxy, or none does, whatever the spelling of the variables."""
    address, targets = proxy
    set_environment({name: value.replace("PROXY", address) for name, value in variables.items()})
    call_by_grpc(f"firestore.{DOMAIN}")
    call_by_http(f"storage.{DOMAIN}")
    ask_for_a_token(f"oauth2.{DOMAIN}")
    export_spans(f"otlp.{DOMAIN}")
    expected = {f"{service}.{DOMAIN}:443" for service in ("firestore", "storage", "oauth2", "otlp")}
    assert set(targets) == (expected if is_used else set())


def test_grpc_s_own_variables_are_left_alone(set_environment, proxy):
    """An operator can give gRPC a proxy of its own, or none."""
    address, targets = proxy
    set_environment({"HTTPS_PROXY": f"http://{address}", "grpc_proxy": ""})
    call_by_grpc(f"firestore.{DOMAIN}")
    assert targets == []


def test_this_machine_is_reached_directly(set_environment, proxy, cloud):
    """No proxy is used for emulators on this machine, nor for the metadata server."""
    address, targets = proxy
    emulators = {name: value for name, value in cloud.environment().items() if name.endswith("_HOST")}
    for name in ("HTTP_PROXY", "ALL_PROXY"):
        set_environment({name: f"http://{address}", **emulators})
        with closing(firestore_client("demo-project", "(default)")) as client:
            assert not client.document("flow_runs/none").get(timeout=5).exists
        call_by_http("127.0.0.1:1")
    assert targets == []
    assert set(LOCAL) <= set(os.environ["no_proxy"].split(","))


def test_without_a_proxy_nothing_is_changed(set_environment):
    """Without a proxy the environment stays as it is."""
    set_environment({"NO_PROXY": "a"})
    assert not any(name in os.environ for name in ("no_proxy", *FOR_GRPC))


@pytest.mark.parametrize("proxy", ["https://proxy:443", "socks5://proxy:1", "foo://proxy:1"])
def test_a_proxy_that_grpc_would_ignore_is_refused(set_environment, proxy):
    """GRPC connects directly without a word if it can't use a proxy, so the worker refuses it."""
    set_environment({"HTTPS_PROXY": proxy})
    with pytest.raises(ValueError, match="http://"):
        check_grpc_proxy(os.environ)
    with pytest.raises(SettingsError, match="HTTPS_PROXY"):
        firestore_client("demo-project", "(default)")


def test_a_star_is_kept_alone():
    """`NO_PROXY=*` means every host only if it stands alone."""
    assert without_local(" * ") == "*"
    assert without_local("a, localhost,") == ",".join(["a", "localhost", *LOCAL[1:]])


def test_grpc_has_one_target_for_each_service():
    """An emulator takes the place of the service."""
    assert list(grpc_targets({})) == ["https://firestore.googleapis.com", "https://pubsub.googleapis.com"]
    environment = {"PUBSUB_EMULATOR_HOST": "host:1", "GOOGLE_CLOUD_UNIVERSE_DOMAIN": DOMAIN}
    assert list(grpc_targets(environment)) == [f"https://firestore.{DOMAIN}", "http://host:1"]


def test_hosts_that_are_reached_directly_are_named_to_grpc():
    """A target without a proxy is excluded by its host, also with a port and as IPv6."""
    proxies = {"https://a": "p:1", "http://b:80": None, "http://[::2]:80": None}
    found = variables_for_grpc(list(proxies), proxies.get)
    assert found == {"grpc_proxy": "http://p:1", "no_grpc_proxy": ",".join(["b", "::2", *LOCAL])}
