"""What an operator does on the page: filter, find what was not worked, copy commands, read the history."""

from __future__ import annotations

import json
import shlex
from urllib.parse import quote

import pytest
from pydantic import SecretStr

from localcloud.faults import Fault
from tests.support.cloud.resources import asked
from tests.support.fakes import suspend_machine
from tests.support.page.looking import overflow, own_requests_only, page_of, wait_while_looking
from tests.support.page.page_server import served_page, settle_message, step_in_flight, work_step
from tests.support.process.commands import run_command
from worker_chart_export.charts.chart_img.account_state import account_states
from worker_chart_export.charts.chart_img.accounts import Account
from worker_chart_export.errors import StepError
from worker_chart_export.execution.outcome import OutcomeKind
from worker_chart_export.observability.metrics import know_account
from worker_chart_export.timing import SystemClock

SCRIPT = "<script>document.title='broken'</script>"
FAILED = {"kind": OutcomeKind.FAILED, "error": StepError(code="CHART_API_FAILED", message="It refuses.")}


@pytest.fixture
def served():
    """Serve a page with data of the test."""
    with served_page() as served:
        yield served


def rows(tab, table, cell=".run"):
    """Return the texts of a table's rows."""
    return tab.run(f"[...document.querySelectorAll('#{table} tbody tr {cell}')].map(e => e.textContent)")


def choose(tab, name, value):
    """Set a filter as a person does."""
    tab.run(
        f"(field => {{ field.value = {json.dumps(value)};"
        f"field.dispatchEvent(new Event('input', {{bubbles: true}})); }})(document.forms.filters.{name})"
    )


class TestFilters:
    """Filters by run, symbol and result."""

    def test_a_link_keeps_them(self, served, chromium):
        """The address sets the filters, and a filter that is changed is in the address."""
        work_step("run-a", symbol="IBM")
        work_step("run-b", symbol="GOOG", **FAILED)
        work_step("run-ab", symbol="IBM", **FAILED)
        with chromium.tab() as tab, step_in_flight("run-x", symbol="GOOG"):
            tab.open(f"{served.url}/?symbol=ibm&result=failed")
            wait_while_looking(tab, "document.querySelectorAll('#finished tbody tr').length === 1")
            assert rows(tab, "finished") == ["run-ab"]
            assert tab.text("#finished-count") == "1 of 3, filtered"
            assert tab.text("#running-empty") == "None of them matches the filter."
            assert tab.text("#in-flight") == "1"
            choose(tab, "symbol", "")
            choose(tab, "run", "B")
            assert rows(tab, "finished") == ["run-ab", "run-b"]
            assert tab.run("location.search") == "?run=B&result=FAILED"
            tab.open(tab.run("location.href"))
            wait_while_looking(tab, "document.querySelectorAll('#finished tbody tr').length === 2")
            tab.run("document.querySelector('#clear').click()")
            assert rows(tab, "finished") == ["run-ab", "run-b", "run-a"]
            assert (tab.run("location.search"), tab.text("#finished-count")) == ("", "")
            assert rows(tab, "running") == ["run-x"]
            assert tab.complaints() == []

    @pytest.mark.parametrize("value", [SCRIPT, "x" * 5_000, "%FF", "IBM\x00", "'\"&?#"])
    def test_any_value_is_only_text(self, served, chromium, value):
        """A script, a long text or broken bytes in the address filter nothing wrongly and run nothing."""
        work_step("run-a")
        with chromium.tab(width=390) as tab:
            query = "&".join(f"{name}={quote(value)}" for name in ("run", "symbol", "result", "other"))
            tab.open(f"{served.url}/?{query}")
            wait_while_looking(
                tab, "document.querySelector('#finished-empty').textContent.startsWith('None')"
            )
            note = tab.text("#filter-note")
            assert note.startswith("The address asks for the unknown result ")
            assert note.endswith(" All results are shown.")
            assert len(note) < 150
            assert "broken" not in tab.run("document.title")
            assert tab.run("document.querySelectorAll('main script').length") == 0
            assert overflow(tab) == 0
            assert tab.complaints() == []

    def test_they_are_used_by_keyboard(self, served, chromium):
        """Tab reaches each field; each has a label and a visible focus; Enter does not leave the page."""
        with chromium.tab() as tab:
            tab.open(served.url)
            wait_while_looking(tab, "document.title.includes('Ready')")
            names = []
            while "clear" not in names:
                tab.press("Tab")
                names.append(tab.run("document.activeElement.name || document.activeElement.id"))
                assert tab.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
            assert [name for name in names if name in {"run", "symbol", "result"}] == [
                "run",
                "symbol",
                "result",
            ]
            assert tab.run(
                "[...document.querySelectorAll('#filters [name]')].every(e => e.labels.length === 1)"
            )
            tab.run("window.isTheSame = true; document.querySelector('[name=run]').focus()")
            tab.press("Enter")
            assert tab.run("window.isTheSame") is True


class TestWhatIsWrong:
    """Messages that were not worked, accounts, and the oldest step."""

    def test_messages_are_grouped_by_their_reason(self, served, chromium):
        """Rejected ones come first. Deferrals for one reason are one row, which names all its messages."""
        settle_message("m1", "ack", "run_id_invalid", rejected=True, detail=SCRIPT)
        for number in range(40):
            settle_message(
                f"d{number}",
                "defer",
                "firestore_unavailable",
                detail="firestore is unavailable",
                delaySeconds=30,
                runId=f"run-{number}",
            )
        with chromium.tab(width=390) as tab:
            tab.open(served.url)
            wait_while_looking(tab, "document.querySelectorAll('#messages tbody tr').length === 2")
            assert rows(tab, "messages", ".badge .word") == ["REJECTED", "DEFERRED"]
            assert rows(tab, "messages", ".why .words") == [f"{SCRIPT}.", "firestore is unavailable."]
            assert rows(tab, "messages", ".tries") == ["", "40 messages"]
            assert tab.run("document.querySelectorAll('#messages details li').length") == 39
            assert tab.text("#messages tbody tr:nth-child(2) .again").startswith("Comes again in ")
            choose(tab, "run", "run-7")
            assert rows(tab, "messages", "td .run") == ["run-7"]
            assert overflow(tab) == 0
            choose(tab, "run", "no such run")
            assert tab.text("#messages-empty") == "None of them matches the filter."

    def test_no_account_with_calls_left_is_a_badge(self, served, chromium):
        """The badge is there beside that of a paused intake, in the title, and it is announced."""
        with chromium.tab() as tab:
            tab.open(served.url)
            wait_while_looking(tab, "document.title.startsWith('● Ready ')")
            assert tab.run("document.querySelector('#no-calls').hidden")
            served.warnings = ("No Chart-IMG account is left: free: used up for today. Steps wait.",)
            served.parts = served.parts | {"intake": "paused: No Chart-IMG account is left"}
            served.reason = "intake is paused: No Chart-IMG account is left"
            wait_while_looking(tab, "!document.querySelector('#no-calls').hidden")
            assert tab.text("#no-calls") == f"▲\n{served.warnings[0]}"
            assert tab.text("#state .word") == "Intake paused"
            assert "no calls left" in tab.run("document.title")
            assert served.warnings[0] in tab.text("#news")

    def test_the_oldest_step_is_late(self, served, chromium, monkeypatch):
        """The tile has the age of the oldest step, and says when it is over the limit."""
        with chromium.tab() as tab, step_in_flight(), step_in_flight():
            tab.open(served.url)
            wait_while_looking(tab, "document.querySelector('#oldest').textContent.startsWith('oldest for ')")
            assert not tab.run("document.querySelector('#oldest').classList.contains('late')")
            suspend_machine(monkeypatch, 301)
            wait_while_looking(tab, "document.querySelector('#oldest.late')")
            assert tab.text("#oldest").endswith("over the 5 min 00 s of STEP_TIMEOUT_SECONDS")

    @pytest.mark.parametrize(("width", "is_above"), [(390, True), (820, True), (1280, False)])
    def test_health_and_accounts_are_above_the_lists_on_a_phone(self, served, chromium, width, is_above):
        """A narrow screen shows health and accounts first, a wide one beside the lists."""
        served.accounts += account_states([Account(id="a", api_key=SecretStr("k"))], SystemClock())
        know_account("a", daily_limit=44)
        with chromium.tab(width=width) as tab:
            tab.open(served.url)
            wait_while_looking(tab, "document.querySelectorAll('#accounts li').length === 1")
            box = "document.querySelector('{}').getBoundingClientRect()".format
            bottom = tab.run(f"Math.max({box('#parts')}.bottom, {box('#accounts')}.bottom)")
            assert (bottom < tab.run(f"{box('#filters')}.top")) is is_above
            assert (bottom < tab.run(f"{box('#running-title')}.top")) is is_above


COPIES = {
    "status": "#finished .copy",
    "retry": "#finished .copy + .copy",
    "quarantine": "#messages .copy",
}


def put_odd_run(deployment):
    """Store a run with ids that a shell must not read as options or code; its step fails. Return the ids."""
    source, (own,) = deployment.put_run(inputs={"requests": []})
    run_id, step_id = f"-{source}", 'it\'s $(id) "x"'
    document = deployment.run(source)
    document["steps"][step_id] = document["steps"].pop(own)
    deployment.documents.document(f"flow_runs/{run_id}").set(document)
    return run_id, step_id


def copied(tab, selector):
    """Copy a command as a person does; return its arguments as a shell reads them."""
    tab.run("document.querySelector('#toast span').textContent = ''")
    tab.run(f"document.querySelector('{selector}').click()")
    tab.wait_for("document.querySelector('#toast').textContent.startsWith('Copied: ')")
    line = tab.run("navigator.clipboard.readText()")
    assert tab.text("#toast") == f"Copied: {line}"
    program, *arguments = shlex.split(line)
    assert program == "worker-chart-export"
    return arguments


class TestCommands:
    """Commands to copy."""

    def test_copied_commands_find_and_retry_the_step(self, deployment, chromium):
        """The commands of a real daemon's page work as they are, for an odd run and step id."""
        run_id, step_id = put_odd_run(deployment)
        with deployment.daemon().started() as daemon, chromium.tab() as tab:
            tab.allow_clipboard()
            tab.open(page_of(daemon))
            deployment.publish_step(run_id, step_id)
            deployment.publish(b"{}")
            tab.wait_for("document.querySelector('#finished .badge .word')?.textContent === 'FAILED'")
            tab.wait_for("document.querySelector('#messages .badge .word')?.textContent === 'REJECTED'")
            done = {
                word: run_command(*copied(tab, selector), environment=deployment.settings())
                for word, selector in COPIES.items()
            }
            assert step_id in done["status"].stdout, done["status"].stderr
            assert done["retry"].returncode == 0, done["retry"].stderr
            assert "run_id_missing" in done["quarantine"].stdout, done["quarantine"].stderr
            tab.wait_for("document.querySelectorAll('#finished tbody tr').length === 2")  # it was retried
            assert asked(daemon, "/history.json?result=FAILED").json()["steps"][0]["runId"] == run_id
            assert own_requests_only(tab, page_of(daemon))

    def test_without_the_clipboard_the_command_is_shown_to_copy(self, served, chromium):
        """When the browser refuses, the command is shown and selected."""
        work_step("run-a")
        with chromium.tab(width=390) as tab:
            tab.open(served.url)
            wait_while_looking(tab, "document.querySelectorAll('#finished .copy').length === 1")
            tab.run("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
            tab.run("document.querySelector('#finished .copy').click()")
            wait_while_looking(tab, "!document.querySelector('#toast').hidden")
            assert tab.run("document.activeElement.value") == "worker-chart-export status run-a"
            assert tab.run("getSelection().toString()") == "worker-chart-export status run-a"
            assert overflow(tab) == 0


class TestHistory:
    """Finished steps from Firestore."""

    def test_it_is_read_on_demand_and_kept_in_the_link(self, deployment, chromium):
        """Nothing is read before a person asks. A link with `history` reads, with its filters."""
        error = {"code": "CHART_API_FAILED", "message": SCRIPT}
        runs = [
            deployment.put_run(symbol=symbol, status="FAILED", error=error, finishedAt="2025-12-15T10:30:00Z")
            for symbol in ("IBM", "GOOG")
        ]
        before = deployment.cloud.firestore.calls["RunQuery"]
        with served_page(documents=deployment.documents) as served, chromium.tab() as tab:
            tab.open(served.url)
            wait_while_looking(tab, "document.title.includes('Ready')")
            assert deployment.cloud.firestore.calls["RunQuery"] == before
            tab.run("document.querySelector('#read').click()")
            tab.wait_for("document.querySelectorAll('#history tbody tr').length === 2")
            assert set(rows(tab, "history")) == {run_id for run_id, _ in runs}
            assert rows(tab, "history", ".why .words") == [SCRIPT, SCRIPT]
            assert rows(tab, "history", ".copy") == 2 * ["Copy status", "Copy retry"]
            assert tab.text("#history-note").startswith("2 steps, read at ")
            choose(tab, "symbol", "GOOG")
            assert (rows(tab, "history"), tab.run("location.search")) == (
                [runs[1][0]],
                "?symbol=GOOG&history=1",
            )
            assert "The filter has changed since." in tab.text("#history-note")
            tab.open(tab.run("location.href"))
            tab.wait_for("document.querySelector('#history-note').textContent.startsWith('1 step, read at ')")
            assert rows(tab, "history") == [runs[1][0]]
            assert tab.complaints() == []

    def test_an_outage_of_firestore_is_shown_and_blocks_nothing(self, deployment, chromium):
        """The error is shown as a sentence, the rest of the page goes on, and a later read works."""
        outage = deployment.cloud.firestore.faults.add(Fault(method="RunQuery", error="RESOURCE_EXHAUSTED"))
        with served_page(documents=deployment.documents) as served, chromium.tab() as tab:
            tab.open(f"{served.url}/?history=1&result=NONSENSE")
            tab.wait_for("document.querySelector('#history-note').textContent.startsWith('▲ firestore ')")
            work_step("run-a")
            wait_while_looking(tab, "document.querySelectorAll('#finished tbody tr').length === 1")
            assert "the unknown result NONSENSE" in tab.text("#filter-note")
            deployment.cloud.firestore.faults.remove(outage)
            tab.run("document.querySelector('#read').click()")
            tab.wait_for(
                "document.querySelector('#history-note').textContent.startsWith('0 steps, read at ')"
            )
