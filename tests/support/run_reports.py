"""Runs, leases and manifests for `status`, their reports, and the displayed reports."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta

from rich.console import Console
from rich.live_render import LiveRender

from daemon.cli.status.to_text import report_lines
from daemon.reports.assemble import BucketFacts, run_report
from tests.support.fakes import BUCKET
from worker_chart_export.inputs.flow_run import FlowRun
from worker_chart_export.ledger.lease import Lease

NOW = datetime(2025, 12, 15, 10, 30, tzinfo=UTC)
RUN_ID = "20251215-102530_IBM_k3f7a"
STEP_ID = "charts:1d:all"
OWNER = "host-7:4242:9f3ac1d2"
URI = f"gs://{BUCKET}/charts/{RUN_ID}/{STEP_ID}/manifest.json"
HOSTILE = "[red]x[/] \x1b]0;owned\x07\x1b[2J\u202e\n[link=http://evil]"


def chart_step(status="READY", **fields):
    """Return a chart step of two charts, as in a run document."""
    return {
        "stepType": "CHART_EXPORT",
        "status": status,
        "timeframe": "1d",
        "inputs": {"requests": [{"chartTemplateId": "ctpl_a"}, {"chartTemplateId": "ctpl_b"}]},
        **fields,
    }


def lease(**changed):
    """Return a lease that is valid at `NOW`."""
    fields = {
        "owner": OWNER,
        "token": "t",
        "attempt": 1,
        "released": 0,
        "started_at": NOW - timedelta(seconds=65),
        "acquired_at": NOW - timedelta(seconds=65),
        "expires_at": NOW + timedelta(seconds=95),
        "message_id": "m",
    }
    return Lease(**{**fields, **changed})


def manifest(stored=("ctpl_a",), failed=("ctpl_b",)):
    """Return a manifest that matches its schema."""
    return {
        "schemaVersion": 1,
        "runId": RUN_ID,
        "stepId": STEP_ID,
        "createdAt": "2025-12-15T10:29:00Z",
        "symbol": "IBM",
        "timeframe": "1d",
        "minImages": 1,
        "requested": [{"chartTemplateId": name} for name in (*stored, *failed)],
        "items": [
            {
                "chartTemplateId": name,
                "kind": name,
                "generatedAt": "2025-12-15T10:28:00Z",
                "png_gcs_uri": f"gs://{BUCKET}/{name}.png",
            }
            for name in stored
        ],
        "failures": [
            {
                "request": {"chartTemplateId": name},
                "error": {
                    "code": "CHART_API_FAILED",
                    "message": "It answered 500.",
                    "details": {"http": 500},
                },
            }
            for name in failed
        ],
    }


def report(steps, leases=None, found=None, **run):
    """Return the report of a run with these steps at `NOW`."""
    document = {"status": "RUNNING", "scope": {"symbol": "IBM"}, **run, "steps": steps}
    return run_report(FlowRun.parse(RUN_ID, document), leases or {}, found or {}, read_at=NOW)


def alone(step, held=None, **found):
    """Return the report of one chart step."""
    return report({STEP_ID: step}, {STEP_ID: held} if held else {}, {STEP_ID: BucketFacts(**found)})


def lines(shown):
    """Return a report as printed to a pipe."""
    return "\n".join(report_lines(shown))


def on_terminal(view, width=80, height=200):
    """Return a report as printed to a terminal, with escape sequences."""
    console = Console(
        width=width, height=height, file=io.StringIO(), force_terminal=True, legacy_windows=False
    )
    console.print(view)
    return console.file.getvalue()


def words_on_terminal(view, width=80, height=200):
    """Return the same without escape sequences."""
    console = Console(width=width, height=height, file=io.StringIO())
    console.print(view)
    return console.file.getvalue()


def live_on_terminal(view, width=80, height=200):
    """Return what `rich.live.Live` shows of the view, without escape sequences."""
    return words_on_terminal(LiveRender(view, vertical_overflow="ellipsis"), width, height)


def squeezed(text):
    """Return the text without white space, so that wrapping makes no difference."""
    return "".join(text.split())
