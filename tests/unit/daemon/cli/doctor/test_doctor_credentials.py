"""Credentials are found as by Google's clients, and tried."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from daemon.cli.doctor.checks.credentials import check_credentials
from daemon.cli.doctor.runner import run_checks
from daemon.settings.emulators import Emulators
from tests.support.fakes import scope_of
from tests.support.process.daemons import ROOT, clean_environment

REAL = Emulators(pubsub=None, firestore=None, storage=None)


@contextmanager
def metadata_server(token_status=200):
    """Run a metadata server as on a machine of Google Cloud."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            status, body = self._answer()
            self.send_response(status)
            self.send_header("Metadata-Flavor", "Google")
            self.send_header("Content-Type", "application/json" if body[:1] == b"{" else "text/plain")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _answer(self):
            if "/token" in self.path:
                return token_status, b'{"access_token": "never-to-be-seen", "expires_in": 3600}'
            if "service-accounts" in self.path:
                output = {"email": "w@p.iam.gserviceaccount.com", "scopes": [], "aliases": ["default"]}
                return 200, json.dumps(output).encode()
            return 200, b"p"

        def log_message(self, *_args):
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(autouse=True)
def _nobody_is_logged_in(monkeypatch, tmp_path):
    """Remove this machine's own credentials from the tests."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")


def log_in(monkeypatch, tmp_path):
    """Write the credentials of a logged-in person."""
    file = tmp_path / "user.json"
    kept = {"type": "authorized_user", "client_id": "c", "client_secret": "s", "refresh_token": "r"}
    file.write_text(json.dumps(kept), encoding="utf-8")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))


CHECK = """
from daemon.cli.doctor.checks.credentials import check_credentials
from daemon.settings.emulators import Emulators

(found,) = check_credentials("p", Emulators(pubsub=None, firestore=None, storage=None))
print(found.status.value, found.summary, "fix:", found.fix)
"""


def checked_on_google_cloud(address):
    """Return the check's result on a machine of Google Cloud or in a pod with Workload Identity.

    It runs in a process of its own, because Google's library reads the metadata server's address only once.
    """
    names = ("GCE_METADATA_HOST", "GCE_METADATA_IP", "GCE_METADATA_ROOT")
    done = subprocess.run(
        [sys.executable, "-c", CHECK],
        env=clean_environment({"HOME": "/nonexistent", **dict.fromkeys(names, address)}),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout


def test_without_credentials_the_fix_is_to_log_in():
    """Without credentials the fix is to log in, and the message has the places that Google searched."""
    (found,) = check_credentials("p", REAL)
    assert (found.check, found.status) == ("credentials", "failure")
    assert "application-default login" in found.fix


def test_emulators_alone_need_none():
    """With emulators alone no credentials are needed; with one real service they are."""
    (found,) = check_credentials("p", Emulators(pubsub="h:1", firestore="h:2", storage="http://h:3"))
    assert found.status == "not_checkable"
    (found,) = check_credentials("p", Emulators(pubsub="h:1", firestore="h:2", storage=None))
    assert found.status == "failure"


def test_the_account_with_a_token_is_named():
    """The account is named when it got a token, and the token is not shown."""
    with metadata_server() as address:
        output = checked_on_google_cloud(address)
    assert output.startswith("ok service account w@p.iam.gserviceaccount.com")
    assert "never-to-be-seen" not in output


def test_an_account_that_gets_no_token_is_a_failure():
    """An account without a token, such as an unbound Workload Identity, fails with the server's message."""
    with metadata_server(token_status=403) as address:
        output = checked_on_google_cloud(address)
    assert output.startswith("failure RefreshError")
    assert "403" in output
    assert "Workload Identity" in output.partition("fix:")[2]


def test_credentials_that_can_t_reach_google_need_a_network_and_no_log_in(monkeypatch, tmp_path):
    """When Google can't be reached the fix is the network and not a login."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    log_in(monkeypatch, tmp_path)
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
    (found,) = check_credentials("p", REAL)
    assert (found.status, found.summary.partition(":")[0]) == ("failure", "TransportError")
    assert "googleapis.com" in found.fix
    assert "login" not in found.fix


@pytest.mark.parametrize("content", ["{", "[]", '{"type": "secret-words"}', '{"type": "service_account"}'])
def test_a_file_that_holds_no_credentials_is_a_failure_that_quotes_nothing(monkeypatch, tmp_path, content):
    """An invalid credentials file fails without being quoted, because it may hold a key."""
    file = tmp_path / "key.json"
    file.write_text(content, encoding="utf-8")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
    (found,) = check_credentials("p", REAL)
    assert found.status == "failure"
    assert found.fix


def test_an_unreachable_metadata_server_is_not_reported_as_no_credentials(monkeypatch, tmp_path):
    """When the metadata server does not answer, no line says that there are no credentials."""
    log_in(monkeypatch, tmp_path)
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "p")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{silent.getsockname()[1]}")
        report = run_checks(REAL, scope_of(), call=False, credentials_seconds=0.5)
    found = {result.check: result for result in report.results}
    assert found["credentials"].summary == "it did not end in time"
    assert "metadata server" in found["credentials"].fix
    assert found["firestore.write"].status == "not_checkable"
    assert found["firestore.write"].summary == "it needs credentials that get a token, see above"
