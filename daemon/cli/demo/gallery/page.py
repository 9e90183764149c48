"""The gallery of the demo: one HTML page with all results. Pure.

Pictures, style and script are part of the page, so that it can be sent as one file. Its content security
policy lets it load nothing else.
"""

from __future__ import annotations

import base64
import hashlib
from html import escape
from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING
from urllib.parse import quote

from daemon.reports.wording import plural
from worker_chart_export.descriptions import describe
from worker_chart_export.inputs.flow_run import StepStatus
from worker_chart_export.timing import span

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daemon.cli.demo.report import ChartFile, DemoReport, Failure, StepResult


def render_gallery(report: DemoReport) -> str:
    """Render the page."""
    style, script = _part("gallery.css"), _part("gallery.js")
    return Template(_part("gallery.html")).substitute(
        style=style,
        script=script,
        style_hash=_policy_hash(style),
        script_hash=_policy_hash(script),
        title=escape(f"{plural(report.charts, 'chart')} from {plural(len(report.results), 'step')}"),
        verdict=escape(_verdict(report)),
        verdict_class="bad" if report.surprises else "good",
        tiles=_tiles(report),
        circumstances=escape(_circumstances(report)),
        way=_way(report),
        overview="\n".join(_overview_row(index, result) for index, result in enumerate(report.results)),
        steps="\n".join(_step_section(index, result) for index, result in enumerate(report.results)),
        made_at=escape(report.made_at),
    )


def _part(name: str) -> str:
    return files("daemon.cli.demo.gallery").joinpath(name).read_text("utf-8")


def _policy_hash(text: str) -> str:
    """Hash inline text for a content security policy, https://www.w3.org/TR/CSP3/#grammardef-hash-source."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _verdict(report: DemoReport) -> str:
    if not report.surprises:
        fails = any(result.step.expected is StepStatus.FAILED for result in report.results)
        return f"Every step ended as expected{', including the failures on purpose' if fails else ''}."
    named = ", ".join(
        f"{result.step.title} is {result.status} instead of {result.step.expected}"
        for result in report.surprises
    )
    return f"Not as expected: {named}."


def _circumstances(report: DemoReport) -> str:
    """Say where the services ran, and what the messages named."""
    by_place: dict[str, list[str]] = {}
    for service, place in report.places.items():
        by_place.setdefault(place, []).append(service)
    groups = [f"{_listed(services)} {place}" for place, services in by_place.items()]
    kinds = ", by ".join(dict.fromkeys(message.kind.value for message in report.messages))
    return f"It ran against {_listed(groups)}. Its messages named their work by {kinds}."


def _listed(texts: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(texts[:-1]), texts[-1])))


def _took(result: StepResult) -> str:
    return "-" if result.seconds is None else span(result.seconds)


def _badge(status: str) -> str:
    """Return a status with its colour and, for people who don't see colours, a mark."""
    return f'<span class="badge {escape(status.lower(), quote=True)}">{escape(status)}</span>'


def _tiles(report: DemoReport) -> str:
    succeeded = sum(result.status == StepStatus.SUCCEEDED for result in report.results)
    requested = sum(result.step.requested for result in report.results)
    failures = report.failed_steps + report.failed_charts
    failures_note = "nothing failed"
    if failures:
        failures_note = (
            f"{plural(report.failed_steps, 'step')}, {plural(report.failed_charts, 'single chart')}"
        )
    tiles = [
        ("Steps", str(len(report.results)), f"{succeeded} succeeded, {report.failed_steps} failed"),
        ("Charts", str(report.charts), f"of {requested} requested"),
        ("Failures", str(failures), failures_note),
        ("Total time", span(report.seconds), "the whole demo, with its cloud and daemon"),
    ]
    return "\n".join(
        f'<div><dt>{escape(name)}</dt><dd><div class="figure">{escape(figure)}</div>'
        f'<div class="note">{escape(note)}</div></dd></div>'
        for name, figure, note in tiles
    )


def _way(report: DemoReport) -> str:
    items = []
    for milestone in report.milestones():
        note = f"<small>{escape(milestone.note)}</small>" if milestone.note else ""
        items.append(
            f"<li><strong>{milestone.count}</strong><span>{escape(milestone.name)}</span>{note}</li>"
        )
    return "\n".join(items)


def _overview_row(index: int, result: StepResult) -> str:
    reasons = [failure.code for failure in result.failures if failure.template_id is None]
    if of_charts := sum(failure.template_id is not None for failure in result.failures):
        reasons.append(f"{plural(of_charts, 'chart')} not made")
    # On a narrow screen a code may break after its underscores.
    text = escape(", ".join(reasons)).replace("_", "_<wbr>")
    why = f'<small class="why">{text}</small>' if reasons else ""
    return (
        f'<tr><th scope="row"><a href="#step-{index}">{escape(result.step.title)}</a></th>'
        f"<td>{_badge(result.status)}{why}</td>"
        f'<td class="number">{len(result.charts)} of {result.step.requested}</td>'
        f'<td class="number wide">{result.attempt or "-"}</td>'
        f'<td class="number">{escape(_took(result))}</td></tr>'
    )


def _step_section(index: int, result: StepResult) -> str:
    name = f"step-{index}"
    lesson = f'<p class="lesson">On purpose: {escape(result.step.lesson)}</p>' if result.step.lesson else ""
    failures = "\n".join(_failure(failure) for failure in result.failures)
    charts = "\n".join(_figure(result, chart) for chart in result.charts)
    return (
        f'<section class="step" id="{name}" aria-labelledby="{name}-title">\n'
        f'<header class="head"><h3 id="{name}-title">{escape(result.step.title)}</h3>'
        f"{_badge(result.status)}</header>\n{lesson}{_facts(result)}\n"
        + (f'<ul class="failures" aria-label="Failures">\n{failures}\n</ul>\n' if failures else "")
        + (f'<div class="charts">\n{charts}\n</div>\n' if charts else "")
        + "</section>"
    )


def _facts(result: StepResult) -> str:
    step = result.step
    manifest = "none"
    if result.manifest_uri is not None and result.manifest_path is not None:
        uri = escape(result.manifest_uri)
        manifest = f'<a href="{_href(result.manifest_path)}"><code>{uri}</code></a>'
    rows = [
        ("Charts", f"{len(result.charts)} of {step.requested} made, {step.needed} needed"),
        ("Attempt", escape(str(result.attempt or "-"))),
        ("Time", escape(_took(result))),
    ]
    if result.providers:
        rows.append(("Drawn by", escape(", ".join(result.providers))))
    rows += [
        ("Run and step", f"<code>{escape(step.run_id)}</code> · <code>{escape(step.step_id)}</code>"),
        ("Manifest", manifest),
    ]
    cells = [f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in rows]
    return f'<dl class="facts">{"".join(cells)}</dl>'


def _failure(failure: Failure) -> str:
    what = f"<code>{escape(failure.template_id)}</code>" if failure.template_id else "The step"
    description = describe(failure.code) or "this code is not known"
    return (
        f'<li><p><span class="code">{escape(failure.code)}</span> · {what}</p>'
        f"<p>{escape(description[0].upper() + description[1:])}. {escape(failure.message)}</p></li>"
    )


def _figure(result: StepResult, chart: ChartFile) -> str:
    title = result.step.title
    source = f"data:image/png;base64,{base64.b64encode(chart.png).decode()}"
    alt = escape(f"{title} chart: {chart.kind}, template {chart.template_id}", quote=True)
    # The first chunk of a PNG holds its size (https://www.w3.org/TR/png-3/#11IHDR). With it, the page does
    # not jump while pictures load.
    width, height = (int.from_bytes(chart.png[start : start + 4], "big") for start in (16, 20))
    candles, last_bar = chart.meta.get("candles"), chart.meta.get("lastBar")
    origin = ""
    if candles is not None and last_bar is not None:
        day = last_bar["date"][:10]
        origin = f"<br>{escape(f'{candles} candles up to {day}')}"
    return (
        f'<figure><a href="{_href(chart.path)}" data-title="{escape(title, quote=True)}"'
        f' data-kind="{escape(chart.kind, quote=True)}">'
        f'<img src="{source}" alt="{alt}" width="{width}" height="{height}" loading="lazy"'
        f' decoding="async"></a>'
        f"<figcaption><h4>{escape(chart.kind)}</h4><code>{escape(chart.template_id)}</code>"
        f"{origin}</figcaption></figure>"
    )


def _href(path: str) -> str:
    return escape(quote(path), quote=True)
