"""Access tokens that Google refuses although the wall clock says that they are valid."""

from __future__ import annotations

from types import SimpleNamespace

import grpc
import pytest
from google.api_core import exceptions as google_errors
from google.auth.transport.grpc import AuthMetadataPlugin

from localcloud import Fault
from tests.support.fakes import Tokens, suspend_machine
from worker_chart_export.backends import access_tokens
from worker_chart_export.backends.errors import backend_errors
from worker_chart_export.backends.firestore import send
from worker_chart_export.errors import BackendRefused

CONTEXT = SimpleNamespace(method_name="Commit", service_url="https://firestore.googleapis.com/")


@pytest.fixture
def sent(monkeypatch):
    """Return a function that returns the token which Google's own code sends with a gRPC call."""
    monkeypatch.setattr(access_tokens, "_next_at", 0.0)
    plugin = AuthMetadataPlugin(Tokens(), request=None)
    return lambda: dict(plugin._get_authorization_headers(CONTEXT))["authorization"]


def _refuse(error):
    with pytest.raises(BackendRefused), backend_errors("firestore"):
        raise error


def test_a_refused_token_is_not_used_again(sent):
    """The next call gets a new token; by itself Google's client keeps the old one."""
    assert [sent(), sent()] == ["Bearer token-1", "Bearer token-1"]
    _refuse(google_errors.from_grpc_status(grpc.StatusCode.UNAUTHENTICATED, "expired"))
    assert [sent(), sent()] == ["Bearer token-2", "Bearer token-2"]


def test_a_token_refused_at_a_commit_is_not_used_again(sent, documents, cloud):
    """Commits have their own errors."""
    assert sent() == "Bearer token-1"
    cloud.firestore.faults.add(Fault(method="Commit", error="UNAUTHENTICATED"))
    batch = documents.batch()
    batch.set(documents.document("x/y"), {})
    with pytest.raises(BackendRefused):
        send(batch)
    assert sent() == "Bearer token-2"


def test_a_refusal_for_another_reason_keeps_the_token(sent):
    """A missing permission needs no other token."""
    assert sent() == "Bearer token-1"
    _refuse(google_errors.PermissionDenied("no"))
    assert sent() == "Bearer token-1"


def test_new_tokens_are_not_asked_for_more_than_once_a_minute(sent, monkeypatch):
    """Credentials that are wrong cause no flood of requests for tokens."""
    for _ in range(3):
        _refuse(google_errors.Unauthenticated("wrong"))
        sent()
    assert sent() == "Bearer token-1"
    suspend_machine(monkeypatch, access_tokens.MIN_INTERVAL_SECONDS)
    _refuse(google_errors.Unauthenticated("wrong"))
    assert sent() == "Bearer token-2"
