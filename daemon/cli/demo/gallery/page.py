"""The demo's gallery: one self-contained HTML page of what a demo came to. Pure.

Its pictures, style and script are inside it, so that it can be sent around as one file, and its own content
security policy lets it load nothing else.
"""

from __future__ import annotations

import base64
import hashlib
from html import escape
from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING

from daemon.cli.demo.gallery.step_section import badge, render_step, seconds_words, step_title
from worker_chart_export.inputs.flow_run import StepStatus

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daemon.cli.demo.report import DemoReport, Station
    from daemon.cli.demo.results import StepResult


def render_gallery(report: DemoReport) -> str:
    """The page."""
    style, script = _part("gallery.css"), _part("gallery.js")
    return Template(_part("gallery.html")).substitute(
        style=style,
        script=script,
        style_hash=_policy_hash(style),
        script_hash=_policy_hash(script),
        title=escape(f"{_many(report.charts, 'chart')} from {_many(len(report.results), 'step')}"),
        verdict=escape(_verdict(report)),
        verdict_class="bad" if report.surprises else "good",
        tiles="\n".join(_tile(*tile) for tile in _tiles(report)),
        circumstances=escape(_circumstances(report)),
        way="\n".join(_station(station) for station in report.way()),
        overview="\n".join(_overview_row(index, result) for index, result in enumerate(report.results)),
        steps="\n".join(render_step(index, result) for index, result in enumerate(report.results)),
        made_at=escape(report.made_at),
    )


def _part(name: str) -> str:
    return files("daemon.cli.demo.gallery").joinpath(name).read_text("utf-8")


def _policy_hash(text: str) -> str:
    """As a content security policy names inline text, https://www.w3.org/TR/CSP3/#grammardef-hash-source."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _verdict(report: DemoReport) -> str:
    if not report.surprises:
        fails = any(result.step.expected is StepStatus.FAILED for result in report.results)
        return f"Every step came to what it had to{', also where it fails on purpose' if fails else ''}."
    named = ", ".join(
        f"{step_title(result)} is {result.status} and had to be {result.step.expected}"
        for result in report.surprises
    )
    return f"Not as it had to be: {named}."


def _circumstances(report: DemoReport) -> str:
    """Where it ran, services of one place together, and what its messages named."""
    by_place: dict[str, list[str]] = {}
    for service, place in report.places.items():
        by_place.setdefault(place, []).append(service)
    groups = [f"{_listed(services)} {place}" for place, services in by_place.items()]
    kinds = ", by ".join(report.message_kinds)
    return f"It ran against {_listed(groups)}. Its messages named their work by {kinds}."


def _listed(words: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def _tiles(report: DemoReport) -> list[tuple[str, str, str]]:
    """Name, figure and a note of each tile."""
    succeeded = sum(result.status == "SUCCEEDED" for result in report.results)
    failures = report.failed_steps + report.failed_charts
    of_failures = (
        f"{_many(report.failed_steps, 'whole step')}, {_many(report.failed_charts, 'single chart')}"
        if failures
        else "nothing failed"
    )
    return [
        ("Steps", str(len(report.results)), f"{succeeded} succeeded, {report.failed_steps} failed"),
        ("Charts", str(report.charts), f"of {report.requested} asked for"),
        ("Failures", str(failures), of_failures),
        ("Total time", seconds_words(report.seconds), "the whole demo, its cloud and daemon included"),
    ]


def _tile(name: str, figure: str, note: str) -> str:
    return (
        f'<div><dt>{escape(name)}</dt><dd><div class="figure">{escape(figure)}</div>'
        f'<div class="note">{escape(note)}</div></dd></div>'
    )


def _station(station: Station) -> str:
    note = f"<small>{escape(station.note)}</small>" if station.note else ""
    return f"<li><strong>{station.count}</strong><span>{escape(station.name)}</span>{note}</li>"


def _overview_row(index: int, result: StepResult) -> str:
    made = f"{len(result.charts)} of {result.step.requested}"
    return (
        f'<tr><th scope="row"><a href="#step-{index}">{escape(step_title(result))}</a></th>'
        f'<td>{badge(result.status)}{_why(result)}</td><td class="number">{made}</td>'
        f'<td class="number wide">{result.attempt or "-"}</td>'
        f'<td class="number">{escape(seconds_words(result.seconds))}</td></tr>'
    )


def _why(result: StepResult) -> str:
    """The failures in a word or two; their sections say more."""
    of_step = [failure.code for failure in result.failures if failure.template_id is None]
    of_charts = sum(failure.template_id is not None for failure in result.failures)
    words = of_step + ([f"{_many(of_charts, 'chart')} not made"] if of_charts else [])
    return f'<small class="why">{_breakable(", ".join(words))}</small>' if words else ""


def _breakable(words: str) -> str:
    """Escaped, and a code may be broken after its underscores where there is little room."""
    return escape(words).replace("_", "_<wbr>")
