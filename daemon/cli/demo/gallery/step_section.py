"""One step in the gallery: what was asked, what it came to, and its charts. Pure."""

from __future__ import annotations

import base64
from html import escape
from typing import TYPE_CHECKING
from urllib.parse import quote

from daemon.cli.demo.gallery.failure_words import meaning

if TYPE_CHECKING:
    from daemon.cli.demo.results import ChartFile, Failure, StepResult


def step_title(result: StepResult) -> str:
    """Symbol and timeframe; not escaped."""
    return f"{result.step.symbol} {result.step.timeframe}"


def seconds_words(seconds: float | None) -> str:
    """A span of time for a person."""
    if seconds is None:
        return "-"
    return f"{seconds:.2f} s" if seconds < 1 else f"{seconds:.1f} s"


def badge(status: str) -> str:
    """A status with its colour; a mark goes with it, for those who don't see colours."""
    return f'<span class="badge {escape(status.lower(), quote=True)}">{escape(status)}</span>'


def render_step(index: int, result: StepResult) -> str:
    """The step's section."""
    name = f"step-{index}"
    lesson = f'<p class="lesson">On purpose: {escape(result.step.lesson)}</p>' if result.step.lesson else ""
    failures = "\n".join(_failure(failure) for failure in result.failures)
    charts = "\n".join(_figure(result, chart) for chart in result.charts)
    return (
        f'<section class="step" id="{name}" aria-labelledby="{name}-title">\n'
        f'<header class="head"><h3 id="{name}-title">{escape(step_title(result))}</h3>'
        f"{badge(result.status)}</header>\n{lesson}{_facts(result)}\n"
        + (f'<ul class="failures" aria-label="Failures">\n{failures}\n</ul>\n' if failures else "")
        + (f'<div class="charts">\n{charts}\n</div>\n' if charts else "")
        + "</section>"
    )


def _facts(result: StepResult) -> str:
    step = result.step
    asked = f"{len(result.charts)} of {step.requested} made, {step.needed} needed"
    rows = [
        ("Charts", escape(asked)),
        ("Attempt", escape(str(result.attempt or "-"))),
        ("Time", escape(seconds_words(result.seconds))),
    ]
    if result.providers:
        rows.append(("Drawn by", escape(", ".join(result.providers))))
    rows += [
        ("Run and step", f"<code>{escape(step.run_id)}</code> · <code>{escape(step.step_id)}</code>"),
        ("Manifest", _manifest(result)),
    ]
    cells = [f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in rows]
    return f'<dl class="facts">{"".join(cells)}</dl>'


def _manifest(result: StepResult) -> str:
    if result.manifest_uri is None or result.manifest_path is None:
        return "none"
    return f'<a href="{_href(result.manifest_path)}"><code>{escape(result.manifest_uri)}</code></a>'


def _failure(failure: Failure) -> str:
    what = f"<code>{escape(failure.template_id)}</code>" if failure.template_id else "The step"
    return (
        f'<li><p><span class="code">{escape(failure.code)}</span> · {what}</p>'
        f"<p>{escape(meaning(failure.code))}. {escape(failure.message)}</p></li>"
    )


def _figure(result: StepResult, chart: ChartFile) -> str:
    title = step_title(result)
    source = f"data:image/png;base64,{base64.b64encode(chart.png).decode()}"
    words = escape(f"{title} chart: {chart.kind}, template {chart.template_id}", quote=True)
    return (
        f'<figure><a href="{_href(chart.path)}" data-title="{escape(title, quote=True)}"'
        f' data-kind="{escape(chart.kind, quote=True)}">'
        f'<img src="{source}" alt="{words}" {_size(chart.png)} loading="lazy" decoding="async"></a>'
        f"<figcaption><h4>{escape(chart.kind)}</h4><code>{escape(chart.template_id)}</code>"
        f"{_provenance(chart)}</figcaption></figure>"
    )


def _size(png: bytes) -> str:
    """Width and height, which a PNG's first chunk holds (https://www.w3.org/TR/png-3/#11IHDR): no jumps."""
    width, height = (int.from_bytes(png[start : start + 4], "big") for start in (16, 20))
    return f'width="{width}" height="{height}"'


def _provenance(chart: ChartFile) -> str:
    candles, last_bar = chart.meta.get("candles"), chart.meta.get("lastBar")
    if candles is None or last_bar is None:
        return ""
    return f"<br>{escape(f'{candles} candles up to {str(last_bar)[:10]}')}"


def _href(path: str) -> str:
    return escape(quote(path), quote=True)
