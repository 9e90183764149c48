"""The page in headless Chromium: of a real daemon, and of a worker that the test controls."""

from __future__ import annotations

import json
import signal
import threading
from datetime import UTC, datetime

import pytest
from pydantic import SecretStr

from daemon.cli.demo.resources import flow_run
from localcloud.faults import Fault
from tests.support.page.looking import overflow, own_requests_only, page_of, wait_while_looking
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
from worker_chart_export.errors import ChartApiFailed, StepError
from worker_chart_export.execution.outcome import Outcome, OutcomeKind
from worker_chart_export.observability.metrics import know_account
from worker_chart_export.observability.observers import Stage, notify_step_ended, stage
from worker_chart_export.timing import SystemClock

#: Texts that would break a page that treats them as markup, as far as the contract allows them.
SYMBOL = "<script>document.title='broken'<script>"
STEP_ID = "<img src=x onerror=alert(1)>"
TEMPLATE_ID = "<b>ctpl</b>"
WORDS = "<script>alert('broken')</script>"
FINISHED = "#finished tbody tr"


def put_hostile_step(deployment, templates, step_id=STEP_ID):
    """Store a run of one chart step with hostile texts and publish its message."""
    run_id = deployment.run_id("IBM")
    document = flow_run(run_id, SYMBOL, {"1d": "gs://b/n"}, templates, min_images=1)
    (own,) = [name for name, step in document["steps"].items() if step["stepType"] == "CHART_EXPORT"]
    document["steps"][step_id] = document["steps"].pop(own)
    deployment.documents.document(f"flow_runs/{run_id}").set(document)
    deployment.publish_step(run_id, step_id)
    return run_id


def is_text(tab, expected):
    """Return whether an element shows exactly this text."""
    return tab.run(
        "[...document.querySelectorAll('main *')]"
        f".some(e => !e.children.length && e.textContent.includes({json.dumps(expected)}))"
    )


def test_a_daemon_s_page_shows_a_step_from_its_claim_to_its_end(deployment, chromium):
    """The page shows a step from claim to end without a reload, as text and without other hosts."""
    go_on = threading.Event()
    held = Fault(method="Commit", match="chart_img_accounts_usage", before=lambda _: go_on.wait(30))
    deployment.cloud.firestore.faults.add(held)
    deployment.cloud.chart_img.faults.add(Fault(error=422, message=WORDS))
    with deployment.daemon().started() as daemon, chromium.tab() as tab:
        url = page_of(daemon)
        tab.open(url)
        tab.wait_for("document.title.includes('Ready · 0 in flight')")
        tab.run("window.isTheSame = true")
        run_id = put_hostile_step(deployment, ["ctpl_price_ma1226_vol_v1", "ctpl_that_nobody_made"])
        tab.wait_for("document.querySelector('#running .detail')?.textContent === '1 at the provider'")
        tab.wait_for("document.querySelector('#running .done').textContent === '0 of 2, 1 failed'")
        assert (tab.text("#running .run"), tab.text("#running .name")) == (run_id, STEP_ID)
        assert "1 in flight" in tab.run("document.title")

        go_on.set()
        tab.wait_for(f"document.querySelectorAll('{FINISHED}').length === 1")
        assert tab.text("#in-flight") == "0"
        assert (tab.text("#finished .run"), tab.text("#finished .name")) == (run_id, STEP_ID)
        assert tab.text("#finished .badge .word") == "FAILED"
        assert is_text(tab, WORDS)
        put_hostile_step(deployment, [TEMPLATE_ID], "charts:1d:other")
        tab.wait_for(f"document.querySelectorAll('{FINISHED}').length === 2")
        assert is_text(tab, TEMPLATE_ID)

        assert tab.run("window.isTheSame") is True
        assert tab.run("document.querySelectorAll('main script, main img[onerror], main b').length") == 0
        assert "broken" not in tab.run("document.title")
        assert own_requests_only(tab, url)
        assert tab.complaints() == []


def test_the_page_of_a_draining_daemon_keeps_its_data(deployment, chromium):
    """The page of a draining daemon says so, and afterwards shows its old data with their age."""
    deployment.cloud.chart_img.faults.add(Fault(delay_seconds=2.5))
    run_id, (step_id,) = deployment.put_run(charts=1)
    with deployment.daemon().started() as daemon, chromium.tab() as tab:
        tab.open(page_of(daemon))
        deployment.publish_step(run_id, step_id)
        tab.wait_for("document.title.includes('1 in flight')")
        daemon.signal(signal.SIGTERM)
        tab.wait_for("document.querySelector('#state').innerText.includes('Draining, 1 step to finish')")
        assert daemon.wait() == 0
        tab.wait_for("document.title.includes('No answer')")
        tab.wait_for("document.querySelector('#fresh').innerText.match(/Last answer [1-9] s ago/)")
        assert tab.run("document.querySelector('main').checkVisibility()")


@pytest.fixture
def served():
    """Serve a page with data of the test."""
    with served_page() as served:
        yield served


def test_a_run_id_that_is_markup_is_text(served, chromium):
    """A run id with markup is shown as text, although no message with one is accepted."""
    with chromium.tab() as tab:
        tab.open(served.url)
        error = StepError(code="CHART_API_FAILED", message=WORDS)
        work_step(WORDS, STEP_ID, kind=OutcomeKind.FAILED, error=error)
        with step_in_flight(WORDS, STEP_ID):
            wait_while_looking(
                tab, f"document.querySelectorAll('{FINISHED}, #running tbody tr').length === 2"
            )
            assert tab.text("#running .run") == tab.text("#finished .run") == WORDS
            assert tab.text("#finished .words") == WORDS
            assert tab.run("document.querySelectorAll('main script, main img[onerror]').length") == 0
        assert tab.complaints() == []
        assert own_requests_only(tab, served.url)


def test_thumbnails_are_shown_and_named(served, chromium):
    """Thumbnails are shown with names and link to the stored objects."""
    with chromium.tab() as tab:
        work_step(charts=3, png=picture(), manifest_uri="gs://charts-demo/charts/m.json")
        tab.open(served.url)
        wait_while_looking(
            tab, "document.images.length === 3 && [...document.images].every(i => i.naturalWidth === 800)"
        )
        assert tab.run("[...document.images].map(i => i.alt)") == [f"Chart ctpl_{n}" for n in range(3)]
        addresses = tab.run("[...document.querySelectorAll('.addresses a')].map(a => [a.textContent, a.rel])")
        assert [expected for expected, _ in addresses] == [
            *(f"gs://charts-demo/charts/ctpl_{n}.png" for n in range(3)),
            "gs://charts-demo/charts/m.json",
        ]
        assert {rel for _, rel in addresses} == {"noopener noreferrer"}
        assert tab.complaints() == []


def test_a_failed_thumbnail_is_requested_again(served, chromium):
    """A thumbnail that failed to load is requested again."""
    with chromium.tab() as tab:
        tab.ask("Network.setBlockedURLs", urls=["*/thumbnail*"])
        tab.open(served.url)
        work_step(png=picture())
        wait_while_looking(tab, "document.querySelector('.thumbs a')?.hidden")
        tab.ask("Network.setBlockedURLs", urls=[])
        wait_while_looking(tab, "document.images[0].naturalWidth === 800")
        assert not tab.run("document.querySelector('.thumbs a').hidden")


def test_a_drain_is_no_alarm(served, chromium):
    """The parts of a draining worker are shown without alarm."""
    with chromium.tab() as tab:
        tab.open(served.url)
        wait_while_looking(tab, "document.title.includes('Ready')")
        served.parts = served.parts | {"drain": "draining", "stream": "closed"}
        served.drain.start()
        wait_while_looking(tab, "document.querySelectorAll('#parts .leaving').length === 2")
        assert tab.run("document.querySelectorAll('.unwell').length") == 0


def test_a_narrow_screen_shows_the_attempt_too(served, chromium):
    """A narrow screen also shows the attempt."""
    with chromium.tab(width=390) as tab, step_in_flight():
        with stage(Stage.CHART, chartTemplateId="ctpl_a", attempt=3, requested=2):
            tab.open(served.url)
            wait_while_looking(tab, "document.querySelectorAll('#running tbody tr').length === 1")
        assert tab.run("document.querySelector('#running td.attempt').checkVisibility()")
        assert tab.text("#running td.attempt") == "3"


def test_focus_and_selection_survive_what_changes_around_them(served, chromium):
    """Focus and selection stay when rows are added, because each row keeps its elements."""
    with chromium.tab() as tab:
        work_step("run-first", png=picture())
        tab.open(served.url)
        wait_while_looking(tab, f"document.querySelectorAll('{FINISHED}').length === 1")
        while tab.run("document.activeElement.tagName") != "SUMMARY":
            tab.press("Tab")
        assert tab.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        tab.press("Enter")
        tab.run("window.before = document.activeElement")
        tab.run("getSelection().selectAllChildren(document.querySelector('#finished .run'))")
        with step_in_flight("run-second"):
            wait_while_looking(tab, "document.querySelectorAll('#running tbody tr').length === 1")
            work_step("run-third", png=picture())
            wait_while_looking(tab, f"document.querySelectorAll('{FINISHED}').length === 2")
        wait_while_looking(tab, "document.querySelector('#running').hidden")
        assert tab.run("document.activeElement === window.before && window.before.parentNode.open")
        assert tab.run("getSelection().toString()") == "run-first"
        assert tab.run("[...document.querySelectorAll('#finished .run')].map(e => e.innerText)") == [
            "run-third",
            "run-first",
        ]


@pytest.mark.parametrize("width", [320, 390, 821, 1280])
def test_nothing_is_wider_than_the_screen(served, chromium, width):
    """No text makes the page wider than the screen."""
    with chromium.tab(width=width) as tab:
        long_words = StepError(code="CHART_API_FAILED", message="x" * 500)
        work_step(
            "r" * 128,
            "s" * 256,
            charts=6,
            png=picture(),
            symbol="S" * 128,
            manifest_uri=f"gs://b/{'m' * 400}",
        )
        for number in range(2):
            names = {"runId": "r" * 128, "stepId": "s" * 256}
            settle_message(f"m{number}", "defer", "missing", detail="d" * 300, delaySeconds=9, **names)
        with step_in_flight("r" * 128, "s" * 256, symbol="S" * 128):
            with pytest.raises(ChartApiFailed):
                make_chart("t" * 128, None, error=ChartApiFailed("y" * 500))
            notify_step_ended(Outcome(kind=OutcomeKind.FAILED, error=long_words), 1.0)
        with step_in_flight("r" * 128, "s" * 256):
            tab.open(served.url)
            wait_while_looking(tab, f"document.querySelectorAll('{FINISHED}').length === 2")
            tab.run("document.querySelectorAll('details').forEach(d => { d.open = true; })")
            tab.run("document.querySelector('#finished .copy').click()")
            wait_while_looking(tab, "document.querySelectorAll('#running tbody tr').length === 1")
            assert overflow(tab) == 0


def test_problems_are_described_as_text(served, chromium):
    """Problems are described as text, also those that are no failures or still unknown."""
    account = Account(id="page-words", api_key=SecretStr("key"), daily_limit=44)
    served.accounts += account_states([account], SystemClock())
    know_account("page-words", daily_limit=44)
    with chromium.tab() as tab:
        work_step("run-left", charts=0, kind=OutcomeKind.NOT_RELEASED)
        work_step("run-lost", charts=0, kind=OutcomeKind.FINALIZE_REFUSED, reason="fenced")
        with step_in_flight("run-rescued", message_id=""), pytest.raises(ChartApiFailed):
            make_chart("ctpl_a", None, error=ChartApiFailed("It refuses."))
        tab.open(served.url)
        wait_while_looking(tab, f"document.querySelectorAll('{FINISHED}').length === 2")
        assert tab.run("[...document.querySelectorAll('#finished .words')].map(e => e.innerText)") == [
            "The step was lost, so its result was not written: another worker has taken the step over",
            "Could not release it; its lease will expire.",
        ]
        assert tab.text("#count-failed") == "0"
        assert tab.text("#also-failed") == "2 released or lost, 1 single chart"
        assert tab.text("#accounts .used") == "not read yet"
        with step_in_flight("run-rescued", message_id=""), step_in_flight():
            wait_while_looking(tab, "document.querySelector('#in-flight').textContent === '2'")
            assert tab.text("#capacity") == ", 1 of them rescued, of 8 slots"
            assert tab.run("document.querySelectorAll('#slots .used').length") == 1


def test_times_are_those_of_the_logs(served, chromium):
    """Times are in UTC, as in the logs, and complete in a row's details."""
    with chromium.tab() as tab:
        tab.ask("Emulation.setTimezoneOverride", timezoneId="Pacific/Auckland")
        tab.open(served.url)
        before = datetime.now(UTC).replace(microsecond=0)
        work_step()
        wait_while_looking(tab, f"document.querySelectorAll('{FINISHED}').length === 1")
        ended = tab.run("document.querySelector('#finished .at').textContent")
        shown_time = datetime.strptime(ended, "Ended %Y-%m-%d %H:%M:%S UTC").replace(tzinfo=UTC)
        assert before <= shown_time <= datetime.now(UTC)
        assert tab.text("#fresh").endswith(" UTC")


def test_a_screen_reader_can_use_the_page(served, chromium):
    """A screen reader gets landmarks, headings, named tables, a button, and texts for graphics."""
    with chromium.tab(width=390) as tab:
        work_step(png=picture())
        with step_in_flight():
            tab.open(served.url)
            wait_while_looking(tab, "document.querySelectorAll('#running tbody tr').length === 1")
            nodes = tab.ask("Accessibility.getFullAXTree")["nodes"]
    heard = {
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in nodes
        if not node.get("ignored")
    }
    roles = {role for role, _ in heard}
    assert {"main", "banner", "contentinfo", "status", "table", "row", "cell"} <= roles
    assert ("button", "Pause updates") in heard
    assert ("region", "Last finished steps") in heard
    assert ("image", "Chart ctpl_0") in heard
    assert any(role == "table" and name.startswith("Steps that this worker") for role, name in heard)
    assert any(role == "image" and name.startswith("Steps succeeded by minute: at") for role, name in heard)


def test_only_failures_and_state_changes_are_announced(served, chromium):
    """A failure and a change of the worker's state are announced, a success is not."""
    with chromium.tab() as tab:
        tab.open(served.url)
        wait_while_looking(tab, "document.title.includes('Ready')")
        work_step("run-good")
        wait_while_looking(tab, f"document.querySelectorAll('{FINISHED}').length === 1")
        assert tab.text("#news") == ""
        work_step("run-bad", "charts:bad", kind=OutcomeKind.FAILED)
        wait_while_looking(tab, "document.querySelector('#news').textContent === 'Step charts:bad failed.'")
        served.reason = "no stream is open"
        wait_while_looking(
            tab, "document.querySelector('#news').textContent === 'The worker: Not ready: no stream is open.'"
        )
        assert tab.run("document.title").startswith("▲ Not ready")


def test_it_pauses_while_hidden_or_by_a_key(served, chromium):
    """The page pauses by a key and while the tab is hidden, and then continues."""
    with chromium.tab() as tab:
        tab.open(served.url)
        wait_while_looking(tab, "document.title.includes('Ready')")
        tab.run("document.querySelector('#pause').focus()")
        tab.press("Enter")
        work_step("run-unseen")
        wait_while_looking(tab, "document.querySelector('#fresh').innerText.startsWith('Paused at')")
        assert tab.text("#state .word") == "Paused"
        assert tab.run("document.body.classList.contains('is-stale')")
        tab.run("new Promise(done => setTimeout(done, 1300))")
        assert tab.run(f"document.querySelectorAll('{FINISHED}').length") == 0
        tab.press("Enter")
        wait_while_looking(tab, f"document.querySelectorAll('{FINISHED}').length === 1")

        tab.run("Object.defineProperty(document, 'hidden', {value: true, configurable: true})")
        work_step("run-hidden")
        tab.run("new Promise(done => setTimeout(done, 1300))")
        assert tab.run(f"document.querySelectorAll('{FINISHED}').length") == 1
        tab.run("delete document.hidden; document.dispatchEvent(new Event('visibilitychange'))")
        wait_while_looking(tab, f"document.querySelectorAll('{FINISHED}').length === 2")


def test_it_comes_back_with_its_worker(chromium):
    """After a restart of the worker the page continues by itself."""
    with chromium.tab() as tab:
        with served_page() as served:
            tab.open(served.url)
            wait_while_looking(tab, "document.title.includes('Ready')")
        wait_while_looking(tab, "document.body.classList.contains('is-stale')")
        assert tab.run("document.title").startswith("✕ No answer")
        with served_page(port=served.port):
            wait_while_looking(tab, "document.title.includes('Ready')")
            assert not tab.run("document.body.classList.contains('is-stale')")
