"""The Cloud Storage client of the composition root."""

from __future__ import annotations

import http.server
import threading

import pytest
from google.cloud.exceptions import NotFound

from daemon.clients import storage_client
from daemon.settings import SettingsError

HOST = "http://storage.invalid"


@pytest.fixture
def proxy():
    """Return a proxy that answers 404, and the URLs that it received."""
    asked = []

    class Proxy(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *_args):
            """Log nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
        server.shutdown()


@pytest.fixture
def client(monkeypatch):
    """Return a function that builds the client in an environment, for an unknown host."""
    made = []

    def build(**environment):
        for name, value in {"STORAGE_EMULATOR_HOST": HOST, **environment}.items():
            monkeypatch.setenv(name, value)
        made.append(storage_client("demo-project", connections=2))
        return made[-1]

    yield build
    for client in made:
        client.close()


def get_object(client):
    """Get an object with one request."""
    return client.bucket("charts").get_blob("chart.png", retry=None, timeout=5)


def test_a_proxy_of_the_environment_is_used(client, proxy):
    """The client uses the proxy of the environment."""
    url, asked = proxy
    assert get_object(client(HTTP_PROXY=url)) is None
    assert [path.split("?")[0] for path in asked] == [f"{HOST}/storage/v1/b/charts/o/chart.png"]


def test_a_host_that_needs_no_proxy_is_reached_directly(client, proxy):
    """A host in `NO_PROXY`, such as the metadata server, is reached directly."""
    url, asked = proxy
    with pytest.raises(Exception, match=r"storage\.invalid") as failure:
        get_object(client(HTTP_PROXY=url, NO_PROXY="storage.invalid"))
    assert not isinstance(failure.value, NotFound)
    assert asked == []


def test_the_environment_is_read_once(client, proxy):
    """The environment is read once and not for every call, which would cost milliseconds."""
    url, asked = proxy
    directly = client(NO_PROXY="storage.invalid")
    client(HTTP_PROXY=url, NO_PROXY="")
    with pytest.raises(Exception, match=r"storage\.invalid"):
        get_object(directly)
    assert asked == []


@pytest.mark.parametrize("wrong", [{"REQUESTS_CA_BUNDLE": "/none.pem"}, {"HTTPS_PROXY": "foo://bar:1"}])
def test_an_environment_that_can_t_be_used_is_refused(client, wrong):
    """An invalid environment is refused when the client is built."""
    with pytest.raises(SettingsError, match=r"HTTPS_PROXY.*: expected what an HTTP client can use"):
        client(STORAGE_EMULATOR_HOST="https://storage.invalid", **wrong)
