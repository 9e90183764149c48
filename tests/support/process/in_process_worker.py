"""A worker's parts in this process: tests call handler and rescue themselves, on real backends."""

from __future__ import annotations

import json
import secrets
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from daemon.composition import build_daemon, build_worker
from daemon.handling.messages import IncomingMessage
from daemon.lifecycle.drain import Drain
from daemon.lifecycle.liveness import Liveness
from daemon.lifecycle.stoppable_wait import StoppableWait
from daemon.settings import Settings, load_settings
from tests.support.cloud.clouds import clients_find
from worker_chart_export.ledger.lease import LEASES, Lease

if TYPE_CHECKING:
    from daemon.handling.disposition import Disposition
    from tests.support.cloud.resources import Deployment


class WorkerUnderTest:
    """The parts of a daemon process, without the stream and without threads.

    Args:
        deployment: The deployment of its resources.
        settings: Changed settings.
    """

    def __init__(self, deployment: Deployment, **settings: str) -> None:
        with clients_find(deployment.settings(**settings)):
            self.settings = load_settings(Settings)
            self.worker = build_worker(self.settings)
            self.drain = Drain()
            parts = build_daemon(
                self.settings,
                self.worker,
                drain=self.drain,
                liveness=Liveness(),
                waiter=StoppableWait(),
            )
        self.breaker = parts.breaker
        self.handler = parts.handler
        self.callback = parts.callback
        self.rescue = parts.rescue

    def handle(self, run_id: str, step_id: str | None = None, *, message_id: str = "") -> Disposition:
        """Handle one delivery, by default of a new message."""
        body = {"runId": run_id} | ({} if step_id is None else {"stepId": step_id})
        return self.handler.handle(
            IncomingMessage(
                message_id=message_id or secrets.token_hex(4),
                data=json.dumps(body).encode(),
                attributes={},
                publish_time=datetime.now(UTC),
                delivery_attempt=None,
            )
        )

    def close(self) -> None:
        """Close all parts."""
        self.breaker.stop()
        self.worker.resources.close()


class Workers(ExitStack):
    """Create workers on a deployment, close them, and read the leases there."""

    def __init__(self, deployment: Deployment) -> None:
        super().__init__()
        self.deployment = deployment

    def new(self, **settings: str) -> WorkerUnderTest:
        """Create a worker."""
        worker = WorkerUnderTest(self.deployment, **settings)
        self.callback(worker.close)
        return worker

    def put_lease(
        self,
        run_id: str,
        step_id: str,
        *,
        left_seconds: float = -60.0,
        age_seconds: float = 0.0,
        **changes: Any,
    ) -> Lease:
        """Store a lease that expired over a minute ago unless changed, started `age_seconds` before."""
        now = datetime.now(UTC)
        fields: dict[str, Any] = {
            "owner": "elsewhere:1:boot",
            "token": "its-token",
            "attempt": 1,
            "released": 0,
            "started_at": now - timedelta(seconds=age_seconds),
            "acquired_at": now - timedelta(seconds=age_seconds),
            "expires_at": now + timedelta(seconds=left_seconds),
            "message_id": "another",
        }
        lease = Lease(**fields | changes)
        self.lease_reference(run_id, step_id).set(lease.to_document())
        return lease

    def lease(self, run_id: str, step_id: str) -> Lease | None:
        """Return a step's current lease."""
        document = self.lease_reference(run_id, step_id).get().to_dict()
        return None if document is None else Lease.parse(document)

    def lease_reference(self, run_id: str, step_id: str) -> Any:
        """Return the reference of a step's lease."""
        return self.deployment.documents.document(f"flow_runs/{run_id}/{LEASES}/{step_id}")

    def set_step(self, run_id: str, step_id: str, **fields: Any) -> None:
        """Change fields of a step as the orchestrator does."""
        paths = {
            self.deployment.documents.field_path("steps", step_id, name): value
            for name, value in fields.items()
        }
        self.deployment.documents.document(f"flow_runs/{run_id}").update(paths)
