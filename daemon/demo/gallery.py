"""The demo's gallery: one self-contained HTML page of all charts. Pure."""

from __future__ import annotations

import base64
from html import escape
from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daemon.demo.results import ChartFile, StepResult


def render_gallery(results: Sequence[StepResult], *, made_at: str) -> str:
    """The page; its pictures are inside it, so that it can be sent around as one file."""
    page = Template(files("daemon.demo").joinpath("gallery.html").read_text("utf-8"))
    charts = sum(len(result.charts) for result in results)
    return page.substitute(
        made_at=escape(made_at),
        summary=escape(f"{len(results)} steps, {charts} charts"),
        contents="\n".join(_contents_entry(index, result) for index, result in enumerate(results)),
        steps="\n".join(_section(index, result) for index, result in enumerate(results)),
    )


def _title(result: StepResult) -> str:
    return escape(f"{result.step.symbol} {result.step.timeframe}")


def _contents_entry(index: int, result: StepResult) -> str:
    return f'<li><a href="#step-{index}">{_title(result)}</a> {_badge(result.status)}</li>'


def _badge(status: str) -> str:
    return f'<span class="badge {escape(status.lower(), quote=True)}">{escape(status)}</span>'


def _section(index: int, result: StepResult) -> str:
    facts = f"{escape(result.step.run_id)} · {escape(result.step.step_id)}"
    failures = "".join(_failure(failure) for failure in result.failures)
    error = f'<p class="error">{escape(_error_words(result.error))}</p>' if result.error else ""
    charts = "\n".join(_figure(result, chart) for chart in result.charts)
    return (
        f'<section id="step-{index}"><h2>{_title(result)} {_badge(result.status)}</h2>'
        f'<p class="facts">{facts}<br>{escape(result.manifest_uri or "no manifest")}</p>'
        f'{error}{failures}<div class="charts">{charts}</div></section>'
    )


def _error_words(error: dict[str, object]) -> str:
    return f"{error.get('code')}: {error.get('message')}"


def _failure(failure: dict[str, dict[str, object]]) -> str:
    template_id = failure["request"]["chartTemplateId"]
    return f'<p class="error">{escape(str(template_id))}: {escape(_error_words(failure["error"]))}</p>'


def _figure(result: StepResult, chart: ChartFile) -> str:
    source = f"data:image/png;base64,{base64.b64encode(chart.png).decode()}"
    words = escape(f"{result.step.symbol} {result.step.timeframe}: {chart.kind}", quote=True)
    relative = escape("/".join(chart.path.parts[-3:]), quote=True)
    return (
        f'<figure><a href="{relative}"><img src="{source}" alt="{words}" loading="lazy"></a>'
        f"<figcaption>{escape(chart.kind)}<br><code>{escape(chart.template_id)}</code></figcaption></figure>"
    )
