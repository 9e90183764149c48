"""The page over HTTP: access, headers and data."""

from __future__ import annotations

import base64
import hashlib
import http.client
import itertools
import json
import re
import subprocess
import sys
from datetime import timedelta
from html.parser import HTMLParser
from importlib.resources import files

import pytest
from pydantic import SecretStr

from daemon.http.page.activity import MAX_FINISHED, Result
from daemon.http.page.routes import page_routes, why_refused
from daemon.http.page.thumbnails import Thumbnails
from daemon.http.server import Request
from tests.support.fakes import RUN_ID, STEP_ID, png_bytes, suspend_machine
from tests.support.page.page_server import (
    make_chart,
    picture,
    served_page,
    settle_message,
    step_in_flight,
    work_step,
)
from worker_chart_export.charts.chart_img.account_state import account_states
from worker_chart_export.charts.chart_img.accounts import Account
from worker_chart_export.errors import ChartApiFailed
from worker_chart_export.execution.outcome import Outcome, OutcomeKind
from worker_chart_export.ledger.lease import HeldLease, LeaseOffer, LeaseTerms, StoredLease
from worker_chart_export.observability.metrics import know_account, show_quota
from worker_chart_export.observability.observers import notify_step_ended
from worker_chart_export.timing import SystemClock

PATHS = ("/", "/state.json", "/history.json", "/thumbnail?1")


@pytest.fixture
def served():
    """Serve the page of a worker that is ready."""
    with served_page() as served:
        yield served


def _answer(served, path, method="GET", **headers):
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=5)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer, answer.read()
    finally:
        connection.close()


def _unread(_request):
    raise AssertionError("the history is not read here")


def _state(served):
    answer, content = _answer(served, "/state.json")
    assert answer.status == 200
    return json.loads(content)


def _request(**changes):
    given = {"query": "", "accept": "", "host": "localhost:8080", "client": "127.0.0.1", "port": 8080}
    return Request(**given | changes)


class TestWhoMaySeeIt:
    """Access only from this machine and by one of its names."""

    @pytest.mark.parametrize("client", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"])
    def test_loopback_clients_may(self, client):
        """Clients on loopback may see the page, because port-forwards and SSH tunnels end there."""
        assert why_refused(_request(client=client)) is None

    @pytest.mark.parametrize("client", ["10.0.0.7", "172.17.0.1", "2001:db8::1", "fe80::1%eth0", ""])
    def test_other_clients_get_a_hint(self, client):
        """Other clients get one sentence about how to get access."""
        refusal = why_refused(_request(client=client))
        assert "kubectl port-forward POD 8080" in refusal
        assert "ssh -L 8080:127.0.0.1:8080 HOST" in refusal

    @pytest.mark.parametrize("name", ["Forwarded", "X-Forwarded-For", "via"])
    def test_a_proxy_on_this_machine_is_refused(self, served, name):
        """A proxy on this machine that forwards for another client is refused."""
        answer, content = _answer(served, "/state.json", **{name: "for=192.0.2.1"})
        assert (answer.status, b"not behind a proxy" in content) == (403, True)
        assert _answer(served, "/readyz", **{name: "for=192.0.2.1"})[0].status == 200

    @pytest.mark.parametrize("path", ["/", "/state.json", "/history.json", "/thumbnail"])
    def test_others_are_refused_everywhere(self, path):
        """Other clients are refused on page, data and pictures."""
        routes = page_routes(report=dict, thumbnails=Thumbnails(), history=_unread)
        assert routes[path](_request(client="10.0.0.7")).status == 403

    @pytest.mark.parametrize(
        "host", ["localhost", "LOCALHOST:1", "127.0.0.1:8080", "[::1]:8080", "worker.localhost:80"]
    )
    def test_the_host_must_be_a_name_of_this_machine(self, served, host):
        """The Host header must be a name of this machine, with any port."""
        assert _answer(served, "/", Host=host)[0].status == 200

    @pytest.mark.parametrize(
        "host", ["evil.example", "localhost.evil.example", "10.0.0.7", "127.0.0.1.evil.example", "[", ""]
    )
    @pytest.mark.parametrize("path", PATHS)
    def test_no_other_host_is_answered(self, served, path, host):
        """Another Host is refused, so that no other site can include this page by DNS."""
        answer, content = _answer(served, path, Host=host)
        assert answer.status == 403
        assert f"http://localhost:{served.port}/".encode() in content
        assert _answer(served, "/readyz", Host=host)[0].status == 200

    @pytest.mark.parametrize("path", PATHS)
    @pytest.mark.parametrize("method", ["POST", "DELETE", "OPTIONS"])
    def test_it_can_only_be_read(self, served, path, method):
        """Methods that change something are refused."""
        assert _answer(served, path, method)[0].status == 405


class TestHeaders:
    """The security headers of responses."""

    def test_the_page_may_run_its_own_script_and_nothing_else(self, served):
        """The policy allows only the hashes of the file's own script and style."""
        answer, content = _answer(served, "/")
        policy = answer.getheader("Content-Security-Policy")
        assert policy.startswith("default-src 'none'; ")
        assert "unsafe" not in policy
        for element in ("script", "style"):
            (text,) = re.findall(rf"<{element}>(.*?)</{element}>", content.decode(), re.DOTALL)
            digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
            assert f"{element}-src 'sha256-{digest}';" in policy
        for rule in ("frame-ancestors 'none'", "base-uri 'none'", "require-trusted-types-for 'script'"):
            assert rule in policy

    @pytest.mark.parametrize("path", PATHS)
    def test_every_answer_is_strict(self, served, path):
        """Responses are not stored, sniffed, referred or shared."""
        headers = dict(_answer(served, path)[0].getheaders())
        assert headers["Cache-Control"] == "no-store"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]

    def test_a_head_is_answered_like_a_get_without_the_content(self, served):
        """HEAD gets the response of GET without the content."""
        answer, nothing = _answer(served, "/", "HEAD")
        assert (answer.status, nothing) == (200, b"")
        assert int(answer.getheader("Content-Length")) == len(_answer(served, "/")[1])


class TestState:
    """The data of the page."""

    def test_a_worker_that_has_just_started(self, served):
        """A worker that has just started shows its identity and no work."""
        state = _state(served)
        assert (state["running"], state["finished"], state["accounts"]) == ([], [], [])
        assert state["readiness"] == {
            "reason": None,
            "parts": {"stream": "ok", "drain": "ok", "intake": "ok"},
            "warnings": [],
        }
        assert state["process"]["owner"] == "vm:1:boot"
        assert state["process"]["subscription"] == "projects/demo-project/subscriptions/charts-sub"
        assert state["drain"] == {"isDraining": False, "seconds": 0.0, "limitSeconds": 25}
        assert len(state["minutes"]["succeeded"]) == 60

    def test_a_step_in_flight_and_its_charts(self, served):
        """A step in flight is shown with its charts."""
        with step_in_flight():
            make_chart("ctpl_a", png_bytes(), requested=4)
            (running,) = _state(served)["running"]
        assert (running["runId"], running["stepId"], running["stage"]) == (RUN_ID, STEP_ID, "chart")
        assert (running["stored"], running["requested"], running["attempt"]) == (1, 4, 1)

    def test_a_step_in_flight_has_the_owner_and_the_end_of_its_lease(self, served):
        """Owner and end of the lease are those of Firestore, by the server's clock."""
        clock = SystemClock()
        lease = LeaseOffer(owner="vm:1:boot", token="", message_id="m1", finished_at="", terms=LeaseTerms())
        ahead = clock.now() + timedelta(hours=1)  # the clock of this machine is an hour late
        held = HeldLease(
            run_id=RUN_ID,
            step_id=STEP_ID,
            stored=StoredLease(lease=lease.first(ahead), update_time=None),
            trusted_until=clock.monotonic() + 100,
            clock=clock,
            server_time=lambda _monotonic: ahead + timedelta(seconds=20),
        )
        with step_in_flight(), step_in_flight("another"):
            served.held.append(held)
            state = _state(served)
        mine, other = state["running"]
        assert (mine["owner"], round(mine["leaseEnds"] - state["now"], 1)) == ("vm:1:boot", 100.0)
        assert (other["owner"], other["leaseEnds"]) == (None, None)

    def test_each_item_has_its_symbol_and_the_commands_to_copy(self, served):
        """Every step has `status`, only a FAILED one has `retry`. Ids are quoted."""
        work_step("-r", "a b", symbol="GOOG")
        work_step("-r", "a b", kind=OutcomeKind.FAILED)
        with step_in_flight():
            state = _state(served)
        status = "worker-chart-export status -- -r"
        failed, succeeded = state["finished"]
        assert (failed["symbol"], succeeded["symbol"]) == ("IBM", "GOOG")
        assert succeeded["commands"] == {"status": status}
        assert failed["commands"] == {"status": status, "retry": "worker-chart-export retry -- -r 'a b'"}
        assert state["running"][0]["commands"] == {"status": f"worker-chart-export status {RUN_ID}"}

    @pytest.mark.parametrize(
        ("disposition", "topic", "command"),
        [
            ("ack", "bad", "worker-chart-export quarantine list --reason body_empty"),
            ("nack", None, "worker-chart-export quarantine list --dead-letter"),
            ("ack", None, None),
        ],
    )
    def test_a_rejected_message_has_the_command_that_finds_it(self, disposition, topic, command):
        """It is in the quarantine, among the dead letters, or only in the log."""
        with served_page(quarantine_topic=topic) as served:
            settle_message("m1", disposition, "body_empty", rejected=True, detail="It is empty.")
            (message,) = _state(served)["messages"]
        assert (message["fate"], message["detail"], message["againAt"]) == ("REJECTED", "It is empty.", None)
        assert message["commands"].get("quarantine") == command

    def test_a_finished_step_with_its_addresses(self, served, monkeypatch):
        """A finished step has links to Google's page for signed-in users, or to the emulator."""
        monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
        work_step(manifest_uri="gs://charts-demo/charts/m.json")
        (finished,) = _state(served)["finished"]
        assert (finished["result"], finished["seconds"]) == ("SUCCEEDED", 0.25)
        assert finished["manifest"] == {
            "uri": "gs://charts-demo/charts/m.json",
            "href": "https://storage.cloud.google.com/charts-demo/charts/m.json",
        }
        (chart,) = finished["charts"]
        assert (chart["template"], chart["uri"]) == ("ctpl_0", "gs://charts-demo/charts/ctpl_0.png")

    def test_a_step_that_failed(self, served):
        """A failed step is counted in its minute."""
        work_step(kind=OutcomeKind.FAILED)
        state = _state(served)
        assert state["finished"][0]["result"] == "FAILED"
        assert (state["minutes"]["failed"][-1], state["minutes"]["succeeded"][-1]) == (1, 0)

    def test_fifty_steps_of_thousands_of_failed_charts_take_some_megabytes(self, served):
        """Fifty steps with thousands of failed charts take a few megabytes, so a tab can poll each second."""
        for _ in range(MAX_FINISHED):
            with step_in_flight():
                for number in range(300):
                    with pytest.raises(ChartApiFailed):
                        make_chart(f"ctpl_{number}", None, error=ChartApiFailed("x" * 300))
                notify_step_ended(Outcome(kind=OutcomeKind.SUCCEEDED), 1.0)
        assert len(_answer(served, "/state.json")[1]) < 3 * 1024 * 1024

    def test_simultaneous_requests_share_one_report(self):
        """Simultaneous requests share one report; a moment later a new one is made."""
        made, now = itertools.count(1), [100.0]
        routes = page_routes(
            report=lambda: {"count": next(made)},
            thumbnails=Thumbnails(),
            history=_unread,
            monotonic=lambda: now[0],
        )
        counts = []
        for seconds in (0.0, 0.4, 0.4):
            now[0] += seconds
            counts.append(json.loads(routes["/state.json"](_request()).content)["count"])
        assert counts == [1, 1, 2]

    def test_settings_hide_their_secrets(self):
        """Settings hide secrets as `daemon --check` does."""
        accounts = json.dumps([{"id": "first", "apiKey": "key-that-must-never-be-seen"}])
        with served_page(charts_api_mode="real", chart_img_accounts_json=accounts) as served:
            content = _answer(served, "/state.json")[1].decode()
        assert json.loads(content)["settings"]["CHART_IMG_ACCOUNTS_JSON"] == "(hidden)"
        assert "key-that-must-never-be-seen" not in content

    def test_accounts_with_what_is_used_and_why_not(self, served):
        """Accounts are shown by priority with usage and problems, without keys."""
        given = [
            Account(id=name, api_key=SecretStr("key-of-the-account"), daily_limit=44)
            for name in ("page-a", "page-b")
        ]
        served.accounts += account_states(given, SystemClock())
        for account in given:
            know_account(account.id, daily_limit=44)
        show_quota("page-a", used=12, limit=50, is_over=lambda: False)
        served.accounts[1].refuse_key("its key is refused (403 Forbidden)", SystemClock().monotonic())
        first, second = _state(served)["accounts"]
        assert (first["id"], first["used"], first["limit"], first["whyNot"]) == ("page-a", 12, 50, None)
        assert (second["used"], second["isDisabled"]) == (None, True)
        assert second["whyNot"] == "its key is refused (403 Forbidden)"
        assert 0 < first["resetsAt"] - _state(served)["now"] <= 86400

    def test_an_account_that_was_used_up_before_a_suspend_is_usable_on_its_next_day(
        self, served, monkeypatch
    ):
        """The page and the quota use the same clock, which counts a suspend of the machine."""
        clock = SystemClock()
        served.accounts += account_states([Account(id="page-c", api_key=SecretStr("k"))], clock)
        know_account("page-c", daily_limit=44)
        now = clock.monotonic()
        served.accounts[0].exhaust(now=now, until=now + 300, day_ends=now + 300)
        suspend_machine(monkeypatch, 301)
        assert _state(served)["accounts"][0]["whyNot"] is None

    def test_draining_is_shown_with_the_remaining_work(self, served):
        """Draining is shown with the remaining work."""
        served.drain.start()
        drain = _state(served)["drain"]
        assert drain["isDraining"]
        assert 0 <= drain["seconds"] < 5


class TestThumbnails:
    """Thumbnails are addressed by number only."""

    def test_a_chart_is_shown_as_it_was_stored(self, served):
        """A chart is served as its stored bytes while the worker has it; the browser scales it."""
        work_step(png=picture())
        number = _state(served)["finished"][0]["charts"][0]["thumbnail"]
        answer, content = _answer(served, f"/thumbnail?{number}")
        assert (answer.status, answer.getheader("Content-Type")) == (200, "image/png")
        assert content == picture()

    def test_nothing_here_can_decode_a_picture(self):
        """The process with the keys has no code that decodes pictures."""
        loads = "import sys, daemon.http.page.live_page; sys.exit('PIL' in sys.modules)"
        assert subprocess.run([sys.executable, "-c", loads], check=False).returncode == 0
        page = files("daemon.http.page")
        sources = [entry.read_text("utf-8") for entry in page.iterdir() if entry.name.endswith(".py")]
        assert not any("PIL" in source for source in sources)

    @pytest.mark.parametrize("query", ["", "?", "?x", "?-1", "?1e3", "?%31", "?../..", "?" + "9" * 17])
    def test_anything_else_is_not_found(self, served, query):
        """Any other address, such as a path, gives 404."""
        assert _answer(served, f"/thumbnail{query}")[0].status == 404


class _Seen(HTMLParser):
    """A parser that notes elements and their attributes."""

    def __init__(self):
        super().__init__()
        self.elements = []

    def handle_starttag(self, tag, attrs):
        """Note the element."""
        self.elements.append((tag, dict(attrs)))


def _page():
    return files("daemon.http.page").joinpath("page.html").read_text("utf-8")


class TestTheFile:
    """Checks of the page's file without a browser."""

    def test_it_is_whole(self):
        """The page needs no other file and no other host."""
        seen = _Seen()
        seen.feed(_page())
        tags = [tag for tag, _ in seen.elements]
        assert (tags.count("script"), tags.count("style")) == (1, 1)
        loads = [
            attrs[name] for _, attrs in seen.elements for name in ("src", "srcset", "data") if name in attrs
        ]
        links = [attrs["href"] for tag, attrs in seen.elements if tag in ("link", "a") and "href" in attrs]
        assert loads == []
        outside = {link for link in links if not link.startswith("#")}
        assert outside == {"data:,", "/state.json", "/metrics", "/livez", "/readyz"}
        ids = {attrs["id"] for _, attrs in seen.elements if "id" in attrs}
        assert {link[1:] for link in links if link.startswith("#")} <= ids
        assert not re.search(
            r"url\(|@import|https?://(?!www\.w3\.org/2000/svg)", _page().replace(r"https?:\/\/", "")
        )

    def test_the_results_to_choose_are_those_that_there_are(self):
        """The filter offers each result, and the script has words for it."""
        offered = re.findall(r"<option>([A-Z]+)</option>", _page())
        assert set(offered) == set(Result)
        assert all(re.search(rf"^  {result}: \[", _page(), re.MULTILINE) for result in Result)

    def test_no_text_of_others_can_become_markup(self):
        """The script writes no HTML, style or code from text."""
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|srcdoc|\.cssText", _page()
        )

    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_its_colours_can_be_read(self, scheme):
        """Every text has a contrast of at least 4.5 to 1 (WCAG 2.2, 1.4.3)."""
        light, dark = (
            dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{3,6});", block))
            for block in re.findall(r":root \{(.*?)\}", _page(), re.DOTALL)
        )
        colours = {"light": light, "dark": dark}[scheme]
        pairs = [(text, on) for text in ("text", "muted", "accent") for on in ("ground", "surface")]
        pairs += [(tone, on) for tone in ("good", "bad", "warn") for on in (f"{tone}-tint", "surface")]
        pairs += [("muted", "faint"), ("ground", "text")]
        low = {pair: _contrast(colours[pair[0]], colours[pair[1]]) for pair in pairs}
        assert {pair: ratio for pair, ratio in low.items() if ratio < 4.5} == {}


def _contrast(one, other):
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour):
    """Return the luminance as WCAG 2.2 defines it."""
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(share * part for share, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
