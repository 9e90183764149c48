"""The history of the page: bounded reads of Firestore on demand, which nothing waits for."""

from __future__ import annotations

import http.client
import json
import threading
from datetime import UTC, datetime, timedelta

import pytest

from daemon.http.page import history
from daemon.http.page.activity import Result
from daemon.http.page.history import MAX_PAGES, MAX_STEPS, Filter
from localcloud.faults import Fault
from tests.support.page.page_server import served_page
from worker_chart_export.ledger.listing import RUNS_A_PAGE

START = datetime(2025, 12, 15, tzinfo=UTC)
ERROR = {"code": "CHART_API_FAILED", "message": "Chart-IMG answered 500."}


def _answer(served, query="", **headers):
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=20)
    try:
        connection.request("GET", f"/history.json?{query}", headers=headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def _put_runs(documents, count, *, steps=1, symbol="IBM", status="SUCCEEDED", first=0):
    """Store runs, a minute apart, with steps that ended at their creation; return their ids."""
    run_ids = [f"{symbol}-{number:05}" for number in range(first, first + count)]
    batch = documents.batch()
    for number, run_id in enumerate(run_ids, first):
        moment = f"{START + timedelta(minutes=number):%Y-%m-%dT%H:%M:%SZ}"
        step = {"stepType": "CHART_EXPORT", "status": status, "finishedAt": moment, "inputs": {"x": "y" * 99}}
        if status == "FAILED":
            step["error"] = ERROR
        document = {
            "createdAt": moment,
            "status": "RUNNING",
            "scope": {"symbol": symbol},
            "steps": {f"charts:{at}": step for at in range(steps)},
        }
        batch.set(documents.document(f"flow_runs/{run_id}"), document)
        if (number + 1 - first) % 250 == 0:
            batch.commit()
            batch = documents.batch()
    batch.commit()
    return run_ids


@pytest.fixture
def served(documents):
    """Serve a page that reads the test's own Firestore."""
    with served_page(documents=documents) as served:
        yield served


class TestWhatIsRead:
    """The steps."""

    def test_the_last_finished_steps_of_all_runs(self, served, documents):
        """Finished steps come with the words of `steps`, the latest first; others are left out."""
        _put_runs(documents, 2)
        _put_runs(documents, 1, symbol="AAPL", status="FAILED", first=1)
        _put_runs(documents, 1, symbol="GOOG", status="READY")
        status, found = _answer(served)
        assert status == 200
        assert {row["runId"] for row in found["steps"][:2]} == {"AAPL-00001", "IBM-00001"}
        assert found["steps"][2]["runId"] == "IBM-00000"
        (failed,) = (row for row in found["steps"] if row["status"] == "FAILED")
        assert (failed["symbol"], failed["error"], failed["reason"]) == ("AAPL", ERROR, ERROR["message"])
        assert failed["ended"] == (START + timedelta(minutes=1)).timestamp()
        assert failed["commands"] == {
            "status": "worker-chart-export status AAPL-00001",
            "retry": "worker-chart-export retry AAPL-00001 charts:0",
        }
        assert (found["isWhole"], found["unreadableRuns"]) == (True, 0)

    def test_an_empty_database(self, served):
        """No step is no error."""
        status, found = _answer(served)
        assert (status, found["steps"], found["isWhole"]) == (200, [], True)

    @pytest.mark.parametrize(
        ("query", "run_ids"),
        [
            ("symbol=aapl", {"AAPL-00001"}),
            ("symbol=AAP", set()),
            ("run=-0000", {"AAPL-00001", "IBM-00000"}),
            ("run=ibm-", {"IBM-00000"}),
            ("result=FAILED", {"AAPL-00001"}),
            ("result=LOST", set()),
            ("run=%3Cscript%3E", set()),
            ("run=" + 3000 * "x", set()),
            ("other=1&symbol=", {"AAPL-00001", "IBM-00000"}),
        ],
    )
    def test_the_filters(self, served, documents, query, run_ids):
        """A part of a run id, a whole symbol and a result choose the steps, in any case."""
        _put_runs(documents, 1)
        _put_runs(documents, 1, symbol="AAPL", status="FAILED", first=1)
        status, found = _answer(served, query)
        assert (status, {row["runId"] for row in found["steps"]}) == (200, run_ids)

    def test_10_000_steps_cost_few_pages(self, served, documents, cloud):
        """Of 10,000 steps in 1,000 runs one page and the next are read, and 100 steps are listed."""
        _put_runs(documents, 1000, steps=10)
        before = cloud.firestore.calls["RunQuery"]
        status, found = _answer(served)
        assert (status, len(found["steps"]), found["isWhole"]) == (200, MAX_STEPS, False)
        assert found["steps"][0]["runId"] == "IBM-00999"
        assert cloud.firestore.calls["RunQuery"] - before <= 2  # the next page is read ahead
        before = cloud.firestore.calls["RunQuery"]
        _, found = _answer(served, "run=no-such-run&symbol=IBM")
        assert (found["steps"], found["isWhole"]) == ([], False)
        assert found["commands"] == {
            "steps": "worker-chart-export steps --status FAILED,SUCCEEDED --symbol=IBM",
            "status": "worker-chart-export status no-such-run",
        }
        assert cloud.firestore.calls["RunQuery"] - before <= MAX_PAGES + 1
        assert MAX_PAGES * RUNS_A_PAGE == 1000

    def test_a_run_that_can_t_be_read_is_counted(self, served, documents):
        """A broken run does not hide the others."""
        _put_runs(documents, 1)
        documents.document("flow_runs/broken").set({"createdAt": "2026-01-01T00:00:00Z", "steps": 3})
        _, found = _answer(served)
        assert (len(found["steps"]), found["unreadableRuns"]) == (1, 1)


class TestWhatIsRefused:
    """Wrong requests, and a Firestore that does not answer."""

    @pytest.mark.parametrize(
        ("query", "words"),
        [
            ("result=DONE", f"result: expected one of {', '.join(Result)}, got 'DONE'"),
            ("result=%3Cscript%3E", "got '<script>'"),
            ("&".join(["a=1"] * 30), "fields"),
        ],
    )
    def test_an_unknown_result_is_refused_with_a_sentence(self, served, query, words):
        """The sentence says what was expected."""
        status, found = _answer(served, query)
        assert (status, words in found["error"]) == (400, True)

    def test_another_site_causes_no_read(self, served, cloud):
        """A page of another site can't make a browser on this machine read Firestore."""
        before = cloud.firestore.calls["RunQuery"]
        for site in ("cross-site", "same-site"):
            assert _answer(served, **{"Sec-Fetch-Site": site})[0] == 403
        assert cloud.firestore.calls["RunQuery"] == before
        assert _answer(served, **{"Sec-Fetch-Site": "same-origin"})[0] == 200

    def test_before_the_worker_is_connected(self):
        """A worker that starts has no connection yet."""
        with served_page() as served:
            assert _answer(served) == (
                502,
                {"error": "firestore is unavailable: the worker is not connected yet"},
            )

    @pytest.mark.parametrize("error", ["PERMISSION_DENIED", "RESOURCE_EXHAUSTED"])
    def test_an_error_of_firestore_is_a_sentence(self, served, cloud, error):
        """The error is shown as the commands show it."""
        cloud.firestore.faults.add(Fault(method="RunQuery", error=error))
        status, found = _answer(served)
        assert status == 502
        assert found["error"].startswith("firestore ")
        assert "injected fault" in found["error"]

    def test_nothing_waits_for_a_firestore_that_does_not_answer(self, served, cloud, monkeypatch):
        """The read ends in a sentence in time. Meanwhile probes and state are answered; later reads work."""
        monkeypatch.setattr(history, "MAX_SECONDS", 0.5)
        asked, go_on = threading.Event(), threading.Event()
        held = Fault(method="RunQuery", before=lambda _: (asked.set(), go_on.wait(30)), times=1)
        cloud.firestore.faults.add(held)
        answers = []
        reads = [threading.Thread(target=lambda: answers.append(_answer(served))) for _ in range(2)]
        for read in reads:
            read.start()
        assert asked.wait(10)
        for path in ("/livez", "/readyz", "/state.json"):
            connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=5)
            connection.request("GET", path)
            assert connection.getresponse().status == 200
            connection.close()
        for read in reads:
            read.join(10)
        assert answers == 2 * [(504, {"error": history.SILENT})]
        go_on.set()
        monkeypatch.setattr(history, "MAX_SECONDS", 8.0)
        assert _answer(served)[0] == 200


def test_a_filter_of_the_page_is_a_command():
    """The command lists what the page leaves out; a run id that can't exist has none of its own."""
    assert Filter(run="a b", result="FAILED", symbol="x'y").commands() == {
        "steps": "worker-chart-export steps --status FAILED '--symbol=x'\"'\"'y'"
    }
