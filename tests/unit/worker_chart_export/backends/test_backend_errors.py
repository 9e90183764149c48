"""The translation of errors of Google's clients, and the wait during an outage."""

from __future__ import annotations

import pytest
import requests
from google.api_core import exceptions as google_errors
from google.auth import exceptions as auth_errors
from hypothesis import given
from hypothesis import strategies as st

from worker_chart_export.backends.errors import backend_errors, describe_error
from worker_chart_export.errors import BackendRefused, BackendUnavailable
from worker_chart_export.timing import full_jitter_seconds

UNAVAILABLE = [
    google_errors.ServiceUnavailable("x"),
    google_errors.DeadlineExceeded("x"),
    google_errors.GatewayTimeout("x"),
    google_errors.InternalServerError("x"),
    google_errors.Unknown("x"),
    google_errors.BadGateway("x"),
    google_errors.TooManyRequests("x"),
    google_errors.ResourceExhausted("x"),
    google_errors.Aborted("x"),
    google_errors.Cancelled("x"),
    google_errors.RetryError("x", cause=None),
    requests.exceptions.ConnectionError("x"),
    requests.exceptions.ReadTimeout("x"),
    requests.exceptions.ChunkedEncodingError("x"),
    auth_errors.TransportError("x"),
    auth_errors.RefreshError("x"),
]
REFUSING = [
    google_errors.InvalidArgument("x"),
    google_errors.NotFound("x"),
    google_errors.PermissionDenied("x"),
    google_errors.Unauthenticated("x"),
    google_errors.FailedPrecondition("x"),
    auth_errors.DefaultCredentialsError("x"),
]


@pytest.mark.parametrize("error", UNAVAILABLE, ids=lambda error: type(error).__name__)
def test_an_unavailable_backend_may_be_tried_later(error):
    """A retriable error becomes BackendUnavailable and keeps its cause."""
    with (
        pytest.raises(BackendUnavailable, match=rf"^b is unavailable: {type(error).__name__}") as caught,
        backend_errors("b"),
    ):
        raise error
    assert (caught.value.backend, caught.value.__cause__) == ("b", error)


@pytest.mark.parametrize("error", REFUSING, ids=lambda error: type(error).__name__)
def test_a_backend_that_refuses_will_refuse_again(error):
    """A refusal becomes BackendRefused, because a person has to change something."""
    with (
        pytest.raises(BackendRefused, match=rf"^b refused: {type(error).__name__}") as caught,
        backend_errors("b"),
    ):
        raise error
    assert caught.value.backend == "b"


def test_other_errors_pass_through():
    """Other errors are not translated, because they are defects of this worker."""
    with pytest.raises(KeyError), backend_errors("b"):
        raise KeyError("x")


@pytest.mark.parametrize(
    ("error", "description"),
    [
        (google_errors.NotFound("no\n such  thing"), "NotFound: no such thing"),
        (
            google_errors.RetryError("Timeout of 10.0s exceeded", google_errors.ServiceUnavailable("DNS")),
            "ServiceUnavailable: DNS",
        ),
        (
            google_errors.RetryError("Timeout of 10.0s exceeded", None),
            "RetryError: Timeout of 10.0s exceeded",
        ),
        (ValueError("x" * 900), "ValueError: " + "x" * 288),
    ],
)
def test_the_description_of_an_error_is_one_short_line(error, description):
    """The description of an error is one short line with its kind and the backend's message."""
    assert describe_error(error) == description


@given(st.floats(0, 100), st.floats(0, 100))
def test_jitter_stays_between_its_bounds(least, span):
    """The jitter is between its bounds, including both."""
    assert least <= full_jitter_seconds(low=least, high=least + span) <= least + span
