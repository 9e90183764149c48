"""The Chart-IMG stand-in, called through httpx as the worker does."""

from __future__ import annotations

import io
import time

import httpx
import pytest
from PIL import Image

from localcloud import Fault
from localcloud.chart_img.answers import ANSWERS
from localcloud.http_server import Response


@pytest.fixture
def ask(cloud):
    """Request a chart."""
    with httpx.Client(base_url=cloud.chart_img.url, timeout=10) as client:

        def post(key="k1", **body):
            headers = {"x-api-key": key} if key else {}
            body = {"symbol": "BINANCE:BTCUSDT", "interval": "1h", **body}
            return client.post("/v2/tradingview/advanced-chart", json=body, headers=headers)

        yield post


@pytest.mark.parametrize(("asked", "size"), [({}, (800, 600)), ({"width": 1024, "height": 50}, (1024, 50))])
def test_a_chart_is_a_png_of_the_requested_size(ask, asked, size):
    """A chart is a PNG of the requested size, and Pillow can read it."""
    answer = ask(**asked)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    with Image.open(io.BytesIO(answer.content)) as image:
        image.load()
        assert (image.format, image.size) == ("PNG", size)


def test_different_requests_get_different_charts(ask):
    """Different requests get different charts, equal requests the same chart."""
    assert ask(interval="1h").content == ask(interval="1h").content != ask(interval="4h").content


def test_keys(cloud, ask):
    """A request without key is refused; configured keys are valid up to their limit, others are not."""
    assert (ask(key="").status_code, ask(key="").json()) == (403, {"message": "Forbidden"})
    cloud.chart_img.configure({"k1": 2, "k2": None})
    assert ask(key="other").status_code == 403
    answers = [ask(key="k1") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[2].json() == {"message": "Limit Exceeded"}
    assert ask(key="k2").status_code == 200
    assert cloud.chart_img.calls_per_key.as_dict() == {"": 2, "other": 1, "k1": 3, "k2": 1}
    assert cloud.chart_img.charts_per_key.as_dict() == {"k1": 2, "k2": 1}


@pytest.mark.parametrize("body", [{"symbol": ""}, {"width": "800"}, {"height": 0}, {"width": True}])
def test_bodies_that_make_no_sense_are_422(ask, body):
    """An invalid body gets 422 in one of the API's two formats."""
    assert ask(**body).status_code == 422


def test_other_paths_are_404(cloud):
    """Other paths get 404, and bodies that are no JSON object get 400."""
    assert httpx.get(f"{cloud.chart_img.url}/v1/x").status_code == 404
    url = f"{cloud.chart_img.url}/v2/tradingview/advanced-chart"
    for content in (b"[", b"[" * 100_000):
        assert httpx.post(url, content=content, headers={"x-api-key": "k"}).status_code == 400


@pytest.mark.parametrize("name", sorted(ANSWERS))
def test_every_scripted_answer_is_returned_once(cloud, ask, name):
    """Each scripted response is returned once; the next request gets a chart."""
    cloud.chart_img.faults.add(Fault(answer=name, times=1))
    answer = ask()
    assert (answer.status_code, answer.content) == (ANSWERS[name].status, ANSWERS[name].body)
    assert ask().status_code == 200


def test_answers_for_one_key_only(cloud, ask):
    """A fault can match one key, because its subject is key, symbol and interval."""
    cloud.chart_img.faults.add(Fault(match="k1 ", answer="limit_exceeded"))
    assert [ask(key=key).status_code for key in ("k1", "k2")] == [429, 200]


def test_truncated_and_reset_answers(cloud, ask):
    """A truncated response is less than a PNG; a reset gives no response."""
    cloud.chart_img.faults.add(Fault(truncate_bytes=100, times=1))
    assert len(ask().content) == 100
    cloud.chart_img.faults.add(Fault(reset=True, times=1))
    with pytest.raises(httpx.RemoteProtocolError):
        ask()
    assert [call.status for call in cloud.chart_img.requests] == [200, 0]


def test_interim_inflating_and_trickling_answers(cloud, ask):
    """Interim responses come first, gzip inflates to the size, and a trickling response takes its time."""
    sent = Response(body=b"{}", interim=3).raw()
    assert [sent.count(status) for status in (b" 100 Continue", b" 103 Early Hints", b" 200 OK")] == [2, 1, 1]
    cloud.chart_img.faults.add(Fault(interim=3, trickle_seconds=0.2, times=1))
    started = time.monotonic()
    assert ask().content.startswith(b"\x89PNG")
    assert time.monotonic() - started > 0.15
    cloud.chart_img.faults.add(Fault(inflated_bytes=3_000_000, error=503, times=1))
    answer = ask()
    assert (answer.status_code, len(answer.content)) == (503, 3_000_000)
    assert int(answer.headers["content-length"]) < 10_000


def test_a_paid_chart_whose_answer_is_lost(cloud, ask):
    """A fault after the effect counts the chart, although the response is lost."""
    cloud.chart_img.faults.add(Fault(reset=True, after_effect=True, times=1))
    with pytest.raises(httpx.RemoteProtocolError):
        ask()
    assert cloud.chart_img.charts_per_key["k1"] == 1


def test_requests_are_logged(cloud, ask):
    """Each request is logged with key, body, status and time."""
    ask(key="k7", studies=[{"name": "RSI"}])
    (call,) = cloud.chart_img.requests
    assert (call.key, call.status, call.body["studies"]) == ("k7", 200, [{"name": "RSI"}])
    assert call.at > 1_700_000_000
    cloud.chart_img.restart(lose_state=True)
    assert cloud.chart_img.requests == []
