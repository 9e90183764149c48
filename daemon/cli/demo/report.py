"""The results of the demo: its steps with their charts, copied into the output folder, and the totals."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from daemon.cli.demo.resources import DEMO_BUCKET
from daemon.cli.status.reader import RunReader
from worker_chart_export.errors import BackendUnavailable
from worker_chart_export.inputs.flow_run import StepStatus
from worker_chart_export.observability.logs import Event
from worker_chart_export.timing import SystemClock

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from daemon.cli.demo.output_folder import OutputFolder
    from daemon.cli.demo.progress import Progress, StepProgress
    from daemon.cli.demo.resources import DemoResources
    from daemon.cli.demo.scenario import DemoMessage, DemoStep
    from daemon.reports.report import Problem, StepReport


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a step failed, or one of its charts.

    Attributes:
        template_id: The template of the chart; None for the step itself.
    """

    template_id: str | None
    code: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChartFile:
    """One chart in the output folder.

    Attributes:
        path: The path relative to the output folder.
        meta: What the manifest holds about the chart.
    """

    template_id: str
    kind: str
    path: str
    png: bytes
    meta: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """One step of the demo with its charts.

    Attributes:
        attempt: The number of the claim that ended it; None if the daemon did not log it.
        seconds: The duration from claim to end; None if it has not ended.
        manifest_path: The copy of the manifest, relative to the output folder.
        failures: The failure of the step first, then those of its charts.
    """

    step: DemoStep
    status: str
    attempt: int | None
    seconds: float | None
    manifest_uri: str | None
    manifest_path: str | None
    charts: tuple[ChartFile, ...]
    failures: tuple[Failure, ...]

    @property
    def is_as_expected(self) -> bool:
        """Whether the step has the expected status."""
        return self.status == self.step.expected

    @property
    def providers(self) -> tuple[str, ...]:
        """The providers of its charts."""
        return tuple(sorted({str(chart.meta.get("provider")) for chart in self.charts}))


def collect_results(resources: DemoResources, progress: Progress, folder: OutputFolder) -> list[StepResult]:
    """Read all steps as `status` reads them, and copy their manifests and charts into the folder.

    Raises:
        BackendUnavailable: A manifest can't be read.
    """
    reports: dict[tuple[str, str], StepReport] = {}
    for run_id in dict.fromkeys(run_id for run_id, _ in progress.steps):
        reader = RunReader(
            documents=resources.documents,
            open_objects=lambda: resources.objects,
            bucket=DEMO_BUCKET,
            run_id=run_id,
            clock=SystemClock(),
        )
        run = reader.read()
        reports |= {(run_id, step.step_id): step for step in (run.chart_steps if run else ())}
    return [_step_result(resources, step, reports[key], folder) for key, step in progress.steps.items()]


def _step_result(
    resources: DemoResources, progress: StepProgress, report: StepReport, folder: OutputFolder
) -> StepResult:
    step = progress.step
    place = f"{step.run_id}/{re.sub(r'[^A-Za-z0-9_.-]', '_', step.step_id)}"
    problems: list[tuple[str | None, Problem]] = [(None, report.error)] if report.error else []
    problems += report.charts.failures.items() if report.charts else ()
    charts = []
    if report.manifest_uri is not None:
        if report.manifest is None:
            raise BackendUnavailable("storage", str(report.charts and report.charts.unknown_because))
        folder.write(f"{place}/manifest.json", resources.download(report.manifest_uri))
        for item in report.manifest["items"]:
            png = resources.download(item["png_gcs_uri"])
            path = f"{place}/{item['png_gcs_uri'].rpartition('/')[2]}"
            folder.write(path, png)
            template_id, meta = item["chartTemplateId"], item.get("meta", {})
            charts.append(
                ChartFile(template_id=template_id, kind=item["kind"], path=path, png=png, meta=meta)
            )
    return StepResult(
        step=step,
        status=report.status,
        attempt=progress.attempt,
        seconds=progress.seconds,
        manifest_uri=report.manifest_uri,
        manifest_path=f"{place}/manifest.json" if report.manifest_uri else None,
        charts=tuple(charts),
        failures=tuple(
            Failure(template_id=template_id, code=problem.code, message=problem.message)
            for template_id, problem in problems
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Milestone:
    """A point on the path of a message, and how often messages reached it.

    Attributes:
        note: A remark on the count; may be empty.
    """

    name: str
    count: int
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoReport:
    """The content of the gallery.

    Attributes:
        messages: The published messages.
        progress: What the daemon logged.
        places: Service -> where it ran, as text.
        seconds: The duration of the whole demo.
        made_at: When the demo ended, as text.
    """

    results: Sequence[StepResult]
    messages: Sequence[DemoMessage]
    progress: Progress
    places: dict[str, str]
    seconds: float
    made_at: str

    @property
    def charts(self) -> int:
        """How many charts were made."""
        return sum(len(result.charts) for result in self.results)

    @property
    def failed_steps(self) -> int:
        """How many steps ended FAILED."""
        return sum(result.status == StepStatus.FAILED for result in self.results)

    @property
    def failed_charts(self) -> int:
        """How many charts the manifests name as failed."""
        return sum(failure.template_id is not None for result in self.results for failure in result.failures)

    @property
    def surprises(self) -> list[StepResult]:
        """The steps without the expected status."""
        return [result for result in self.results if not result.is_as_expected]

    def milestones(self) -> list[Milestone]:
        """Return the points on the path of the messages, counted from the daemon's log."""
        events, settled = self.progress.events, self.progress.settled
        reused = events[Event.CHART_REUSED]
        dispositions = ", ".join(f"{count} {disposition}" for disposition, count in sorted(settled.items()))
        return [
            Milestone(name="messages published", count=len(self.messages)),
            Milestone(name="received", count=events[Event.MESSAGE_RECEIVED]),
            Milestone(name="steps claimed", count=self.progress.claims, note="each under a lease"),
            Milestone(
                name="charts stored",
                count=events[Event.CHART_STORED] + reused,
                note=f"{reused} by an earlier attempt" if reused else "",
            ),
            Milestone(name="manifests written", count=events[Event.MANIFEST_WRITTEN]),
            Milestone(name="steps finalized", count=events[Event.STEP_COMPLETED]),
            Milestone(name="messages settled", count=settled.total(), note=dispositions),
        ]
