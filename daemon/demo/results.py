"""What the demo's steps came to: read back from Firestore and Storage, and written into a folder."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from daemon.demo.stage import DemoStep, Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class ChartFile:
    """One chart, on disk and in its manifest."""

    template_id: str
    kind: str
    uri: str
    path: Path
    png: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """One step as it stands in the run document, with its charts."""

    step: DemoStep
    status: str
    error: dict[str, Any] | None
    manifest_uri: str | None
    charts: tuple[ChartFile, ...]
    failures: tuple[dict[str, Any], ...]


def collect_result(stage: Stage, step: DemoStep, folder: Path) -> StepResult:
    """Read a step's result and write its PNGs and manifest into `folder`."""
    document = stage.step_document(step)
    error = document.get("error")
    uri = document["outputs"].get("gcs_uri") or ((error or {}).get("details") or {}).get("manifestGcsUri")
    target = folder / step.run_id / re.sub(r"[^A-Za-z0-9_.-]", "_", step.step_id)
    manifest = _save_manifest(stage, uri, target) if uri else {"items": [], "failures": []}
    return StepResult(
        step=step,
        status=document["status"],
        error=error,
        manifest_uri=uri,
        charts=tuple(_save_chart(stage, item, target) for item in manifest["items"]),
        failures=tuple(manifest.get("failures", ())),
    )


def _save_manifest(stage: Stage, uri: str, target: Path) -> dict[str, Any]:
    target.mkdir(parents=True, exist_ok=True)
    content = _download(stage, uri)
    (target / "manifest.json").write_bytes(content)
    manifest: dict[str, Any] = json.loads(content)
    return manifest


def _save_chart(stage: Stage, item: dict[str, Any], target: Path) -> ChartFile:
    path = target / item["png_gcs_uri"].rpartition("/")[2]
    png = _download(stage, item["png_gcs_uri"])
    path.write_bytes(png)
    return ChartFile(
        template_id=item["chartTemplateId"], kind=item["kind"], uri=item["png_gcs_uri"], path=path, png=png
    )


def _download(stage: Stage, uri: str) -> bytes:
    bucket, _, name = uri.removeprefix("gs://").partition("/")
    content: bytes = stage.objects.bucket(bucket).blob(name).download_as_bytes()
    return content
