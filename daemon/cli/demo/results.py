"""What the demo's steps came to: read back from Firestore and Storage, and written into a folder."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from daemon.cli.demo.output_folder import OutputFolder
    from daemon.cli.demo.progress import StepProgress
    from daemon.cli.demo.resources import DemoResources
    from daemon.cli.demo.scenario import DemoStep


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a step, or one chart of it, was not made.

    Attributes:
        template_id: Of the chart; None for the step as a whole.
    """

    template_id: str | None
    code: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChartFile:
    """One chart, on disk and in its manifest.

    Attributes:
        path: Relative to the output folder.
        meta: What its provider said of it.
    """

    template_id: str
    kind: str
    path: str
    png: bytes
    meta: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """One step as it stands in the run document, with its charts.

    Attributes:
        attempt: Which claim of the step ended it; None when the daemon did not say.
        seconds: From its claim to its end; None when it has not ended.
        manifest_uri: Where its manifest is; None without one.
        manifest_path: The copy, relative to the output folder.
        failures: Its own first, then those of its charts.
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
        """Whether it came to what it had to."""
        return self.status == self.step.expected

    @property
    def providers(self) -> tuple[str, ...]:
        """Who drew its charts."""
        return tuple(sorted({str(chart.meta.get("provider")) for chart in self.charts}))


def collect_result(stage: DemoResources, progress: StepProgress, folder: OutputFolder) -> StepResult:
    """Read a step's result and write its PNGs and manifest into `folder`."""
    step = progress.step
    document = stage.step_document(step)
    error = document.get("error")
    uri = document["outputs"].get("gcs_uri") or ((error or {}).get("details") or {}).get("manifestGcsUri")
    place = f"{step.run_id}/{re.sub(r'[^A-Za-z0-9_.-]', '_', step.step_id)}"
    manifest: dict[str, Any] = {"items": []}
    if uri:
        content = _download(stage, uri)
        folder.write(f"{place}/manifest.json", content)
        manifest = json.loads(content)
    return StepResult(
        step=step,
        status=document["status"],
        attempt=progress.attempt,
        seconds=progress.seconds,
        manifest_uri=uri,
        manifest_path=f"{place}/manifest.json" if uri else None,
        charts=tuple(_save_chart(stage, item, folder, place) for item in manifest["items"]),
        failures=_failures(error, manifest),
    )


def _save_chart(stage: DemoResources, item: Mapping[str, Any], folder: OutputFolder, place: str) -> ChartFile:
    path = f"{place}/{item['png_gcs_uri'].rpartition('/')[2]}"
    png = _download(stage, item["png_gcs_uri"])
    folder.write(path, png)
    return ChartFile(
        template_id=item["chartTemplateId"], kind=item["kind"], path=path, png=png, meta=item.get("meta", {})
    )


def _failures(error: Mapping[str, Any] | None, manifest: Mapping[str, Any]) -> tuple[Failure, ...]:
    of_step = [_failure(None, error)] if error else []
    of_charts = [
        _failure(failure["request"]["chartTemplateId"], failure["error"])
        for failure in manifest.get("failures", ())
    ]
    return (*of_step, *of_charts)


def _failure(template_id: str | None, error: Mapping[str, Any]) -> Failure:
    return Failure(template_id=template_id, code=str(error["code"]), message=str(error["message"]))


def _download(stage: DemoResources, uri: str) -> bytes:
    bucket, _, name = uri.removeprefix("gs://").partition("/")
    content: bytes = stage.objects.bucket(bucket).blob(name).download_as_bytes()
    return content
