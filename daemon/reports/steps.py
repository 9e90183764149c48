"""List the chart steps of all runs that match a filter."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from daemon.reports.assemble import as_map, manifest_uri, parse_instant, step_report, step_status
from daemon.reports.report import RunReport, StepReport
from daemon.reports.wording import situation
from worker_chart_export.errors import RunInvalid, visible
from worker_chart_export.inputs.flow_run import FlowRun, StepStatus
from worker_chart_export.ledger.lease import NEVER
from worker_chart_export.ledger.listing import read_leases, run_pages
from worker_chart_export.timing import rfc3339

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from worker_chart_export.ledger.lease import Lease
    from worker_chart_export.ledger.listing import ListedRun

#: With a limit of age, only runs are read that were created at most so much earlier. A run takes minutes.
LONGEST_RUN_DAYS = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFilter:
    """Which steps to list.

    Attributes:
        statuses: Steps with one of these statuses; empty: with any.
        codes: Steps with one of these error codes; empty: with any or none.
        symbol: Steps of runs with this `scope.symbol`; None: with any.
        older_than: The least age.
        since: The largest age.
    """

    statuses: frozenset[str] = frozenset()
    codes: frozenset[str] = frozenset()
    symbol: str | None = None
    older_than: timedelta | None = None
    since: timedelta | None = None

    def takes(self, step: Mapping[str, Any]) -> bool:
        """Return whether status and error code match."""
        if self.statuses and step.get("status") not in self.statuses:
            return False
        return not self.codes or as_map(step.get("error")).get("code") in self.codes

    def takes_age(self, age: timedelta | None) -> bool:
        """Return whether an age matches. An unknown age matches only if no age is asked for."""
        if age is None:
            return self.older_than is None and self.since is None
        return (self.older_than is None or age >= self.older_than) and (
            self.since is None or age <= self.since
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedStep:
    """A step in a list.

    Attributes:
        run: The report of its run, without steps.
        step: The report of the step.
        lease: The lease of a RUNNING step, if it has one.
        since: The time that its age counts from: the start of a RUNNING step, the end of a final one, and
            the creation of any other. None: not known.
        raw: The step as it is stored.
    """

    run: RunReport
    step: StepReport
    lease: Lease | None
    since: datetime | None
    raw: Mapping[str, Any] = field(repr=False)

    @property
    def age(self) -> timedelta | None:
        """The time since `since`, by the server's clock."""
        return None if self.since is None else self.run.read_at - self.since

    @property
    def manifest_uri(self) -> str | None:
        """The URI of its manifest, if it has one. Few lists show it, so it is looked for when it is used."""
        return manifest_uri(self.raw)

    @property
    def reason(self) -> str:
        """Why it is in this state: the message of its error, or what it waits for."""
        error = self.step.error
        if error is not None and self.step.status == StepStatus.FAILED:
            return error.message
        return situation(self.run, self.step) or ""

    def to_dict(self) -> dict[str, Any]:
        """Return the object of the JSON output. Its names are stable."""
        lease, error, times = self.lease, self.step.error, self.step.times
        return {
            "runId": self.run.run_id,
            "stepId": self.step.step_id,
            "status": self.step.status,
            "runStatus": self.run.status or None,
            "symbol": self.run.symbol or None,
            "timeframe": self.step.timeframe or None,
            "flowKey": self.run.flow_key or None,
            "since": None if self.since is None else rfc3339(self.since),
            "ageSeconds": None if self.age is None else round(self.age.total_seconds(), 3),
            "startedAt": None if lease is None or lease.started_at == NEVER else rfc3339(lease.started_at),
            "finishedAt": None if times.finished_at is None else rfc3339(times.finished_at),
            "lease": self.step.holding.hold.value,
            "owner": self.step.owner or None,
            "attempt": self.step.attempt,
            "released": self.step.holding.released,
            "expiresAt": None if lease is None or lease.expires_at == NEVER else rfc3339(lease.expires_at),
            "error": None if error is None else {"code": error.code, "message": error.message},
            "reason": self.reason or None,
        }


def step_pages(
    client: Any, steps: StepFilter, *, on_invalid: Callable[[str], None] = lambda _why: None
) -> Iterator[list[ListedStep]]:
    """Yield the chart steps that match, page by page: by run, the newest first, then by step id.

    Each page holds what was found in the next runs, perhaps nothing. So a caller can limit what is read.

    Args:
        client: A Firestore client.
        steps: The filter.
        on_invalid: Called with a sentence for each run that can't be read.

    Raises:
        BackendUnavailable: Firestore is unavailable.
        BackendRefused: Firestore refuses.
    """
    created_since = None
    if steps.since is not None:
        created_since = datetime.now(UTC) - steps.since - timedelta(days=LONGEST_RUN_DAYS)
    pages = (
        [match for listed in page for match in _matching_steps(listed, steps, on_invalid)]
        for page in run_pages(client, created_since=created_since)
    )
    for matching, leases in _with_leases(client, pages):
        rows = [_listed(match, leases.get(match.key)) for match in matching]
        yield [row for row in rows if steps.takes_age(row.age)]


def _with_leases(
    client: Any, pages: Iterator[list[_Match]]
) -> Iterator[tuple[list[_Match], dict[tuple[str, str], Lease]]]:
    """Yield each page with the leases of its RUNNING steps.

    A caller that uses more than one page mostly uses all of them. So from the second page on, the leases of
    the next page are read meanwhile.
    """

    def leases_of(page: list[_Match]) -> dict[tuple[str, str], Lease]:
        running = [match.key for match in page if step_status(match.raw) == StepStatus.RUNNING]
        return read_leases(client, running)

    first = next(pages, None)
    if first is None:
        return
    yield first, leases_of(first)
    with ThreadPoolExecutor(1, thread_name_prefix="leases") as reader:
        before: list[_Match] = []
        coming = None
        for page in pages:
            reading = reader.submit(leases_of, page)
            if coming is not None:
                yield before, coming.result()
            before, coming = page, reading
        if coming is not None:
            yield before, coming.result()


class _Match(NamedTuple):
    """A step that matches as far as it is known without its age, with the report of its run."""

    run: FlowRun
    report: RunReport
    step_id: str
    raw: Mapping[str, Any]

    @property
    def key(self) -> tuple[str, str]:
        return self.run.run_id, self.step_id


def _matching_steps(
    listed: ListedRun, steps: StepFilter, on_invalid: Callable[[str], None]
) -> Iterator[_Match]:
    symbol = as_map(listed.fields.get("scope")).get("symbol")
    if steps.symbol not in (None, symbol):
        return
    try:
        run = FlowRun.parse(listed.run_id, listed.fields)
    except RunInvalid as error:
        on_invalid(f"run {visible(listed.run_id)} can't be read: {error}")
        return
    report = RunReport(
        run_id=run.run_id,
        status=run.status or "",
        symbol=run.symbol,
        flow_key=str(run.document.get("flowKey") or ""),
        read_at=listed.read_at,
        is_final=run.is_final,
        steps=(),
    )
    for step_id in run.chart_step_ids():
        raw = run.document["steps"][step_id]
        if steps.takes(raw):
            yield _Match(run, report, step_id, raw)


def _listed(match: _Match, lease: Lease | None) -> ListedStep:
    run, report, step_id, raw = match
    step = step_report(run, step_id, lease, None, report.read_at)
    since = step.times.finished_at
    if lease is not None and lease.started_at != NEVER:
        since = lease.trying_since
    if since is None:
        since = parse_instant(raw.get("createdAt")) or parse_instant(run.document.get("createdAt"))
    return ListedStep(run=report, step=step, lease=lease, since=since, raw=raw)
