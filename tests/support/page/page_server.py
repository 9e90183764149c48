"""The page on a health server of this process, with observer calls in place of real steps."""

from __future__ import annotations

import io
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageDraw

from daemon.http.page.live_page import LivePage
from daemon.http.probes import health_routes
from daemon.http.server import HealthServer
from daemon.lifecycle.drain import Drain
from daemon.lifecycle.liveness import HealthReport
from daemon.settings import Settings
from tests.support.fakes import RUN_ID, STEP_ID
from worker_chart_export.execution.outcome import Outcome, OutcomeKind
from worker_chart_export.observability.observers import (
    Stage,
    annotate,
    notify_chart,
    notify_step_ended,
    stage,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

READY = {"stream": "ok", "drain": "ok", "intake": "ok"}


@dataclass
class ServedPage:
    """A served page.

    Attributes:
        documents: The Firestore client for the history.
        held: The leases that it holds.
        reason: The reason why the worker is not ready.
        parts: The health of its parts.
        warnings: What a person has to know although it is ready.
    """

    drain: Drain
    accounts: list[Any]
    documents: Any = None
    held: list[Any] = field(default_factory=list)
    reason: str | None = None
    parts: dict[str, str] = field(default_factory=lambda: READY)
    warnings: tuple[str, ...] = ()
    port: int = 0

    @property
    def url(self) -> str:
        """Return its address."""
        return f"http://127.0.0.1:{self.port}"

    def readiness(self) -> HealthReport:
        """Return the readiness."""
        return HealthReport(parts=self.parts, reason=self.reason, warnings=self.warnings)


@contextmanager
def served_page(*, port: int = 0, documents: Any = None, **settings: Any) -> Iterator[ServedPage]:
    """Serve the page of a ready worker without accounts, by default in `local` mode."""
    given = {"charts_api_mode": "local"} | settings
    daemon_settings = Settings(
        google_cloud_project="demo-project",
        pubsub_subscription="charts-sub",
        charts_bucket="gs://charts-demo",
        **given,
    )
    served = ServedPage(drain=Drain(), accounts=[], documents=documents)
    alive = HealthReport(parts={"main": "ok"}, reason=None)
    page = LivePage(
        settings=daemon_settings, drain=served.drain, readiness=served.readiness, liveness=lambda: alive
    )
    routes = health_routes(liveness=lambda: alive, readiness=served.readiness) | page.routes()
    server = HealthServer(host="127.0.0.1", port=port, routes=routes)
    served.port = server.port
    server.start()
    try:
        with page.watching(
            "vm:1:boot", served.accounts, held=lambda: served.held, documents=served.documents
        ):
            yield served
    finally:
        server.stop()


@contextmanager
def step_in_flight(
    run_id: str = RUN_ID, step_id: str = STEP_ID, *, message_id: str = "m1", symbol: str = "IBM"
) -> Iterator[None]:
    """Begin a claimed step that does not end."""
    with stage(Stage.STEP, runId=run_id, stepId=step_id, messageId=message_id, symbol=symbol):
        with stage(Stage.CLAIM):
            pass
        yield


def make_chart(
    template_id: str, png: bytes | None, *, requested: int = 1, error: Exception | None = None
) -> None:
    """Make one chart of the step in flight, stored or failed."""
    with stage(Stage.CHART, chartTemplateId=template_id, attempt=1, requested=requested):
        if error is not None:
            raise error
        notify_chart(
            template_id=template_id,
            provider="mock",
            uri=f"gs://charts-demo/charts/{template_id}.png",
            png=png,
        )


def work_step(
    run_id: str = RUN_ID,
    step_id: str = STEP_ID,
    *,
    charts: int = 1,
    png: bytes | None = None,
    symbol: str = "IBM",
    kind: OutcomeKind = OutcomeKind.SUCCEEDED,
    **outcome: Any,
) -> None:
    """Record a step from its claim to its end."""
    with step_in_flight(run_id, step_id, symbol=symbol):
        for number in range(charts):
            make_chart(f"ctpl_{number}", png or picture(), requested=charts)
        notify_step_ended(Outcome(kind=kind, **outcome), 0.25)


def picture(width: int = 800, height: int = 600, colour: str = "#274b7a") -> bytes:
    """Return a PNG that can be decoded."""
    image = Image.new("RGB", (width, height), "white")
    ImageDraw.Draw(image).line(((0, height), (width, 0)), fill=colour, width=9)
    written = io.BytesIO()
    image.save(written, "PNG")
    return written.getvalue()


def settle_message(message_id: str, disposition: str, reason: str, **about: str | int) -> None:
    """Record a delivery and what was done with its message."""
    with stage(Stage.DELIVERY, messageId=message_id):
        annotate(disposition=disposition, reason=reason, **about)
