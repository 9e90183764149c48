"""Looks at a run: the run and its leases each time, the bucket as seldom as possible."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple

from daemon.cli.status.assemble import Found, manifest_uri, run_report, step_status
from worker_chart_export.errors import WorkerError
from worker_chart_export.inputs.flow_run import StepStatus
from worker_chart_export.ledger.lease.lease import NEVER
from worker_chart_export.ledger.run_snapshot import read_run_with_all_leases
from worker_chart_export.outputs.results import StoredResults

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from daemon.cli.status.report import RunReport
    from worker_chart_export.inputs.flow_run import FlowRun
    from worker_chart_export.ledger.lease.lease import Lease
    from worker_chart_export.timing import Clock

#: Charts of a step that is RUNNING are counted, and what failed is tried, once in so long.
AGAIN_AFTER_SECONDS = 5.0
#: So a bucket that is away keeps a person waiting once, unless the run has many steps.
READS_AT_ONCE = 16
NO_BUCKET = "set CHARTS_BUCKET to have them counted"


class _Question(NamedTuple):
    """What to find out about a step in the bucket; an answer is good for any question of the same key."""

    key: tuple[str, ...]
    ask: Callable[[StoredResults], Found]


class _Answer(NamedTuple):
    found: Found
    good_until: float


class RunReader:
    """Looks at one run, again and again.

    Args:
        documents: A Firestore client.
        open_objects: Opens a Cloud Storage client; called once it is needed.
        bucket: The charts bucket's name, if it is known: in it, charts of RUNNING steps are counted.
        run_id: The run.
        clock: Says when the bucket may be asked again.
    """

    def __init__(
        self,
        *,
        documents: Any,
        open_objects: Callable[[], Any],
        bucket: str | None,
        run_id: str,
        clock: Clock,
    ) -> None:
        self._documents = documents
        self._open_objects = open_objects
        self._bucket = bucket
        self._run_id = run_id
        self._clock = clock
        self._opening = threading.Lock()
        self._results: StoredResults | None = None
        self._answers: dict[tuple[str, ...], _Answer] = {}

    def look(self) -> RunReport | None:
        """The run as it is now, or None when there is none of that id.

        A bucket or a manifest that can't be read is a fact of the report.

        Raises:
            RunInvalid: The document can't be read as a flow run.
            BackendUnavailable: Firestore is away.
            BackendRefused: Firestore refuses.
        """
        snapshot = read_run_with_all_leases(self._documents, self._run_id, self._clock)
        if snapshot.run is None:
            return None
        leases = {name: stored.lease for name, stored in snapshot.leases.items() if stored is not None}
        found = self._found(self._questions(snapshot.run, leases))
        return run_report(snapshot.run, leases, found, read_at=snapshot.read_time or self._clock.now())

    def _questions(self, run: FlowRun, leases: Mapping[str, Lease]) -> dict[str, _Question]:
        steps = run.document["steps"]
        asked = {name: self._question(name, steps[name], leases.get(name)) for name in run.chart_step_ids()}
        return {name: question for name, question in asked.items() if question is not None}

    def _question(self, step_id: str, raw: Mapping[str, Any], lease: Lease | None) -> _Question | None:
        status, uri = step_status(raw), manifest_uri(raw)
        if status in {StepStatus.SUCCEEDED, StepStatus.FAILED} and uri is not None:
            key = (step_id, uri, str(raw.get("finishedAt")))
            return _Question(key, lambda results: Found(manifest=results.manifest(uri)))
        if status == StepStatus.RUNNING and lease is not None and lease.started_at != NEVER:
            return self._count_question(step_id, lease.started_at)
        return None

    def _count_question(self, step_id: str, started_at: datetime) -> _Question:
        def count(results: StoredResults) -> Found:
            if self._bucket is None:
                return Found(problem=NO_BUCKET)
            return Found(stored=results.count_charts(self._bucket, self._run_id, step_id, started_at))

        return _Question((step_id, started_at.isoformat()), count)

    def _found(self, questions: Mapping[str, _Question]) -> dict[str, Found]:
        now = self._clock.monotonic()
        due = [
            question
            for question in questions.values()
            if question.key not in self._answers or self._answers[question.key].good_until <= now
        ]
        if due:
            self._ask_all(due)
        return {name: self._answers[question.key].found for name, question in questions.items()}

    def _ask_all(self, questions: Sequence[_Question]) -> None:
        with ThreadPoolExecutor(READS_AT_ONCE, thread_name_prefix="storage") as pool:
            found = list(pool.map(self._ask, questions))
        soon = self._clock.monotonic() + AGAIN_AFTER_SECONDS
        for question, answer in zip(questions, found, strict=True):
            # A manifest stays what it is: it is written last, and the step is final.
            self._answers[question.key] = _Answer(answer, inf if answer.manifest is not None else soon)

    def _ask(self, question: _Question) -> Found:
        try:
            return question.ask(self._opened())
        except WorkerError as error:
            return Found(problem=str(error))

    def _opened(self) -> StoredResults:
        with self._opening:
            if self._results is None:
                self._results = StoredResults(client=self._open_objects(), clock=self._clock)
            return self._results
