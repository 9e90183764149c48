"""Draw the picture of a trace for the docs, and print the trace as text.

Run `python -m tests.support.page.trace_picture docs/pictures/trace.svg`. A real daemon draws charts on the
embedded cloud, and a collector receives its spans.
"""

from __future__ import annotations

import sys
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from daemon.cli.demo.resources import sample_templates
from localcloud import LocalCloud
from tests.support.cloud.otlp_collector import SeenSpan, collecting
from tests.support.cloud.resources import deployment_on
from tests.support.process.commands import run_command

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.support.cloud.resources import Deployment

Row = tuple[int, SeenSpan]

WIDTH, ROW, LEFT, RIGHT, TOP = 1000, 22, 330, 90, 62
COLOURS = {"PRODUCER": "#8250df", "CONSUMER": "#8250df", "CLIENT": "#0969da", "INTERNAL": "#57606a"}
ERROR_COLOUR = "#cf222e"
LEGEND = {"messages": COLOURS["CONSUMER"], "calls": COLOURS["CLIENT"], "own work": COLOURS["INTERNAL"]}
NANOS_IN_MS = 1e6
FONT = 'font-family="system-ui, sans-serif" font-size="13" fill="#1f2328"'


def main(file: Path) -> None:
    """Trace a step and draw it."""
    rows = list(in_order(traced_step()))
    file.write_text(drawn(rows), encoding="utf-8")
    sys.stdout.write(as_text(rows))


def traced_step() -> list[SeenSpan]:
    """Return the spans of a step with six charts, one of which fails, after a first step as warm-up."""
    asked = [str(template["id"]) for template in sample_templates()]
    inputs = {
        "minImages": len(asked),
        "requests": [{"chartTemplateId": name} for name in [*asked, "ctpl_missing"]],
    }
    with (
        LocalCloud.start() as cloud,
        deployment_on(cloud.environment(), cloud) as deployment,
        collecting() as collector,
    ):
        candles = files("worker_chart_export").joinpath("data/samples/ohlcv/IBM_1d.json").read_bytes()
        deployment.objects.bucket(deployment.bucket).blob("ohlcv.json").upload_from_string(candles)
        runs = [deployment.put_run(inputs=inputs) for _ in range(2)]
        changed = {**collector.settings(), "CHARTS_API_MODE": "local", "CHART_IMG_ACCOUNTS_JSON": None}
        with deployment.daemon(**changed).started() as daemon:
            for number, (run_id, (step_id,)) in enumerate(runs, 1):
                publish(deployment, run_id, step_id, deployment.settings(**changed))
                daemon.wait_for_event("message_settled", count=number)
            daemon.terminate()
        last = collector.spans("step")[-1].trace_id
        return [renamed(span, deployment) for span in collector.spans() if span.trace_id == last]


def publish(deployment: Deployment, run_id: str, step_id: str, environment: dict[str, str]) -> None:
    """Publish with the command."""
    topic = deployment.topic.rsplit("/", maxsplit=1)[-1]
    done = run_command("publish", run_id, step_id, "--topic", topic, environment=environment)
    if done.returncode:
        raise RuntimeError(done.stderr)


def renamed(span: SeenSpan, deployment: Deployment) -> SeenSpan:
    """Return the spans with real names for topic and subscription."""
    name = span.name.replace(deployment.subscription.rsplit("/", maxsplit=1)[-1], "chart-export")
    if span.name.startswith("publish "):
        name = "publish flow-steps"
    fields = {field: getattr(span, field) for field in SeenSpan.__slots__}
    return SeenSpan(**fields | {"name": name})


def in_order(spans: Sequence[SeenSpan], parent: str = "", depth: int = 0) -> Iterator[Row]:
    """Return each span after its parent, children in the order of their begin."""
    for span in spans:
        if span.parent_id == parent:
            yield depth, span
            yield from in_order(spans, span.span_id, depth + 1)


def words_of(span: SeenSpan) -> str:
    """Return the span's name, for a chart with its template."""
    template = span.attributes.get("chart_export.chart_template_id") if span.name == "chart" else None
    return f"chart {template}" if template else span.name


def milliseconds(span: SeenSpan) -> str:
    """Return the duration."""
    return f"{(span.end - span.begin) / NANOS_IN_MS:.1f} ms"


def as_text(rows: Sequence[Row]) -> str:
    """Return a line per span: name, begin and end since the first, in milliseconds."""
    start = min(span.begin for _, span in rows)
    lines = []
    for depth, span in rows:
        error = f"  ERROR {span.attributes['error.type']}" if span.is_error else ""
        since = (span.begin - start) / NANOS_IN_MS
        lines.append(f"{'  ' * depth + words_of(span):<52}{since:>8.1f} {milliseconds(span):>10}{error}\n")
    return "".join(lines)


def drawn(rows: Sequence[Row]) -> str:
    """Return the same as SVG on a light background."""
    start, end = min(span.begin for _, span in rows), max(span.end for _, span in rows)
    per_nano = (WIDTH - LEFT - RIGHT) / (end - start)
    height = TOP + ROW * len(rows) + 14
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" {FONT}>',
        f"<title>One trace of one step: {len(rows)} spans, {(end - start) / NANOS_IN_MS:.0f} ms</title>",
        f'<polygon points="0,0 {WIDTH},0 {WIDTH},{height} 0,{height}" fill="white"/>',
        '<text x="12" y="24" font-weight="600">One trace of one step</text>',
        *legend(),
        *scale((end - start) / NANOS_IN_MS, height),
    ]
    for number, (depth, span) in enumerate(rows):
        left = LEFT + (span.begin - start) * per_nano
        parts += bar(TOP + ROW * number, depth, span, left, (span.end - span.begin) * per_nano)
    return "\n".join([*parts, "</svg>"]) + "\n"


def legend() -> Iterator[str]:
    """Draw the meaning of the colours."""
    for number, (text, colour) in enumerate([*LEGEND.items(), ("ended in an error", ERROR_COLOUR)]):
        left = LEFT + 110 * number
        yield f'<rect x="{left}" y="14" width="12" height="12" rx="2" fill="{colour}"/>'
        yield f'<text x="{left + 18}" y="24">{text}</text>'


def scale(total_ms: float, height: int) -> Iterator[str]:
    """Draw at most ten lines of the time scale."""
    step = next(step for step in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 5000) if total_ms / step <= 10)
    for at in range(0, int(total_ms) + 1, step):
        left = LEFT + at / total_ms * (WIDTH - LEFT - RIGHT)
        yield f'<line x1="{left:.1f}" x2="{left:.1f}" y1="{TOP - 6}" y2="{height - 10}" stroke="#d0d7de"/>'
        yield f'<text x="{left:.1f}" y="{TOP - 12}" font-size="11" text-anchor="middle">{at} ms</text>'


def bar(top: int, depth: int, span: SeenSpan, left: float, width: float) -> Iterator[str]:
    """Draw the row of a span."""
    colour = ERROR_COLOUR if span.is_error else COLOURS[span.kind]
    middle = top + 15
    yield f'<text x="{12 + 14 * depth}" y="{middle}">{escape(words_of(span))}</text>'
    yield (
        f'<rect x="{left:.1f}" y="{top + 4}" width="{max(width, 1.5):.1f}" height="{ROW - 8}" rx="2" '
        f'fill="{colour}"/>'
    )
    after = left + max(width, 1.5) + 5
    yield f'<text x="{after:.1f}" y="{middle}" font-size="11">{milliseconds(span)}</text>'


if __name__ == "__main__":
    main(Path(sys.argv[1]))
