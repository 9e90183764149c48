"""`CHARTS_FALLBACK`: another provider makes the chart when no account is left."""

from __future__ import annotations

import pytest

from tests.support.fakes import ScriptedProvider, chart_request, png_bytes
from worker_chart_export.charts.base import ChartImage
from worker_chart_export.charts.fallback import FallbackProvider
from worker_chart_export.errors import (
    BackendUnavailable,
    ChartApiFailed,
    ChartApiLimitExceeded,
    ChartTooLarge,
    Interrupted,
    OhlcvUnavailable,
    StepTimedOut,
)

LIMIT = ChartApiLimitExceeded("No account is left.", accounts={"first": "used up for today"})


class Local:
    """A provider that makes every chart, or fails."""

    def __init__(self, error=None):
        self.error, self.asked = error, 0

    def known_failure(self, _request):
        """Return the error that would end the chart."""
        return self.error

    def chart(self, _request):
        """Return the chart."""
        self.asked += 1
        if self.error is not None:
            raise self.error
        return ChartImage(png=png_bytes(), provider="local", meta={"candles": 100})


def _failing(error):
    def fail(_request):
        raise error

    return ScriptedProvider(script={"ctpl_a": fail})


def test_a_chart_that_there_is_an_account_for_is_its_own():
    """The fallback draws nothing when an account makes the chart."""
    second = Local()
    image = FallbackProvider(first=ScriptedProvider(), second=second).chart(chart_request())
    assert (image.provider, image.meta, second.asked) == ("mock", {"fixture": "none"}, 0)


def test_a_chart_without_an_account_is_drawn_and_marked(log_lines):
    """A chart from the fallback is marked in its metadata and logged."""
    image = FallbackProvider(first=_failing(LIMIT), second=Local()).chart(chart_request())
    assert (image.provider, image.meta) == ("local", {"candles": 100, "fallbackFrom": "chart-img"})
    (line,) = log_lines()
    assert (line["event"], line["severity"]) == ("chart_fallback", "WARNING")
    assert (line["chartTemplateId"], line["provider"]) == ("ctpl_a", "local")


def test_a_failing_fallback_raises_the_first_error():
    """When the fallback fails too, the first error is raised with the second's message in its details."""
    second = Local(OhlcvUnavailable("The candles are missing."))
    with pytest.raises(ChartApiLimitExceeded, match="No account is left") as caught:
        FallbackProvider(first=_failing(LIMIT), second=second).chart(chart_request())
    assert caught.value.details == {
        "accounts": {"first": "used up for today"},
        "fallbackCode": "OHLCV_UNAVAILABLE",
        "fallbackMessage": "The candles are missing.",
    }


@pytest.mark.parametrize(
    "error",
    [
        ChartApiFailed("x"),
        ChartTooLarge("x"),
        StepTimedOut("x"),
        Interrupted("x"),
        BackendUnavailable("f", "x"),
    ],
)
def test_other_errors_are_no_reason_to_draw(error):
    """Other errors do not use the fallback."""
    second = Local()
    with pytest.raises(type(error)) as caught:
        FallbackProvider(first=_failing(error), second=second).chart(chart_request())
    assert (caught.value, second.asked) == (error, 0)


@pytest.mark.parametrize("error", [Interrupted("stop"), BackendUnavailable("storage", "down")])
def test_a_stop_while_drawing_is_a_stop(error):
    """A stop during the drawing is raised as a stop, so the step is released and not failed."""
    with pytest.raises(type(error)):
        FallbackProvider(first=_failing(LIMIT), second=Local(error)).chart(chart_request())


@pytest.mark.parametrize(("error", "is_known"), [(None, False), (LIMIT, False), (ChartApiFailed("no"), True)])
def test_a_limit_is_no_known_failure_of_a_chart_with_a_fallback(error, is_known):
    """Of the failures that are known before, a limit ends no chart: the fallback makes it."""
    provider = FallbackProvider(first=Local(error), second=Local())
    assert provider.known_failure(chart_request()) is (error if is_known else None)
