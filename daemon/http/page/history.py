"""Read the last finished steps of all workers from Firestore, on demand.

The list is the one of the command `steps`. A read is limited in documents and in time, only one runs at a
time, and it runs in a thread of its own: the page and the probes never wait for Firestore.
"""

from __future__ import annotations

import json
import shlex
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from daemon.http.page.activity import Result
from daemon.http.server import Response
from daemon.reports.steps import StepFilter, step_pages
from daemon.reports.wording import command_line
from worker_chart_export.errors import BackendUnavailable, WorkerError, shown
from worker_chart_export.inputs.flow_run import StepStatus, why_run_id_refused
from worker_chart_export.ledger.lease import NEVER
from worker_chart_export.observability.logs import Event, log

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from daemon.http.server import Request
    from daemon.reports.steps import ListedStep

#: The limit of listed steps.
MAX_STEPS = 100
#: The limit of pages that are read; a page has at most 100 runs.
MAX_PAGES = 10
#: A connection lasts at most 10 s, so the answer has to be sent before.
MAX_SECONDS = 8.0
#: No page is read later than so long before the answer has to be sent.
LAST_PAGE_SECONDS = 3.0
SILENT = f"Firestore has not answered within {MAX_SECONDS:g} s."
FINAL = frozenset({StepStatus.SUCCEEDED, StepStatus.FAILED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which steps to show; an empty text is no filter. The page filters its own lists in the same way.

    Attributes:
        run: A part of the run id, in any case.
        symbol: The symbol, in any case.
        result: The result.
    """

    run: str = ""
    symbol: str = ""
    result: str = ""

    @classmethod
    def parse(cls, query: str) -> Filter:
        """Read the query of a URL. Other names in it have no effect.

        Raises:
            ValueError: The result is unknown, or there are too many names.
        """
        given = parse_qs(query, max_num_fields=20)
        fields = {name: given[name][0].strip() for name in ("run", "symbol", "result") if name in given}
        if fields.get("result") and fields["result"] not in set(Result):
            raise ValueError(f"result: expected one of {', '.join(Result)}, got {shown(fields['result'])}")
        return cls(**fields)

    @property
    def statuses(self) -> frozenset[str]:
        """The statuses of these steps in Firestore, which has no LOST or RELEASED ones."""
        return FINAL & {self.result} if self.result else frozenset(FINAL)

    def takes(self, row: ListedStep) -> bool:
        """Return whether run and symbol match."""
        run_id, symbol = row.run.run_id.casefold(), row.run.symbol.casefold()
        return self.run.casefold() in run_id and self.symbol.casefold() in {"", symbol}

    def commands(self) -> dict[str, str]:
        """Return the commands that read more, by their names."""
        symbol = [f"--symbol={self.symbol}"] if self.symbol else []
        statuses = ",".join(sorted(self.statuses or FINAL))
        found = {"steps": shlex.join(["worker-chart-export", "steps", "--status", statuses, *symbol])}
        if self.run and why_run_id_refused(self.run) is None:
            found["status"] = command_line("status", self.run)
        return found


class History:
    """Answers `/history.json`.

    Args:
        to_json: Returns the object of a step.
    """

    def __init__(self, to_json: Callable[[ListedStep], dict[str, Any]]) -> None:
        self._to_json = to_json
        self._client: Any = None
        self._reading = threading.Lock()

    def use(self, client: Any) -> None:
        """Read with this Firestore client from now on."""
        self._client = client

    def response(self, request: Request) -> Response:
        """Read the steps that match the query; an error is a sentence in `error`."""
        if request.is_cross_site:
            return _answer(HTTPStatus.FORBIDDEN, error="Another site may not cause reads of Firestore.")
        try:
            wanted = Filter.parse(request.query)
        except ValueError as error:
            return _answer(HTTPStatus.BAD_REQUEST, error=str(error))
        status = HTTPStatus.BAD_GATEWAY
        try:
            return _answer(HTTPStatus.OK, **self._read(wanted))
        except TimeoutError:
            status, sentence = HTTPStatus.GATEWAY_TIMEOUT, SILENT
        except WorkerError as error:
            sentence = str(error)
        except Exception as error:  # noqa: BLE001 - the page shows that it failed, and the log why
            log.error(Event.INTERNAL_ERROR, f"Reading the history failed: {error!r:.300}", exc_info=error)
            sentence = f"The read has failed ({type(error).__name__}). The log says why."
        return _answer(status, error=sentence)

    def _read(self, wanted: Filter) -> dict[str, Any]:
        """Read in another thread.

        Raises:
            TimeoutError: This read, or the one before it, takes too long.
            BackendUnavailable: Firestore is unavailable.
            BackendRefused: Firestore refuses.
            RuntimeError: The system has no more threads.
        """
        if self._client is None:
            raise BackendUnavailable("firestore", "the worker is not connected yet")
        deadline = time.monotonic() + MAX_SECONDS
        if not self._reading.acquire(timeout=MAX_SECONDS):
            raise TimeoutError
        found: Future[dict[str, Any]] = Future()

        def read() -> None:
            try:
                found.set_result(self._find(wanted, until=deadline - LAST_PAGE_SECONDS))
            except BaseException as error:  # noqa: BLE001 - raised in the thread that waits
                found.set_exception(error)
            finally:
                self._reading.release()

        try:
            threading.Thread(target=read, name="history", daemon=True).start()
        except RuntimeError:
            self._reading.release()
            raise
        return found.result(max(0.0, deadline - time.monotonic()))

    def _find(self, wanted: Filter, *, until: float) -> dict[str, Any]:
        """Read page by page, until there are enough steps or the time is over."""
        unreadable: list[str] = []
        pages: Iterator[list[ListedStep]] = iter(())
        if wanted.statuses:
            steps = StepFilter(statuses=wanted.statuses)
            pages = step_pages(self._client, steps, on_invalid=unreadable.append)
        rows: list[ListedStep] = []
        is_whole = True
        for number, page in enumerate(pages, 1):
            rows += filter(wanted.takes, page)
            if len(rows) > MAX_STEPS or number == MAX_PAGES or time.monotonic() > until:
                is_whole = False
                break
        rows.sort(key=lambda row: row.since or NEVER, reverse=True)
        return {
            "steps": [self._to_json(row) for row in rows[:MAX_STEPS]],
            "isWhole": is_whole,
            "unreadableRuns": len(unreadable),
            "commands": wanted.commands(),
            "readAt": time.time(),
        }


def _answer(status: HTTPStatus, **body: Any) -> Response:
    return Response(status=status, content_type="application/json", content=json.dumps(body).encode())
