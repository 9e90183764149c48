"""The heartbeat document of each daemon: which daemons are there, and what they do.

A daemon deletes its document when it stops. That of a daemon that was killed counts no more after
`EXPIRES_SECONDS`, and the next daemon that starts deletes it. All times are the server's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from google.cloud.firestore_v1.base_query import FieldFilter

from worker_chart_export.backends.errors import READ_RETRY, READ_TIMEOUT_SECONDS, backend_errors
from worker_chart_export.backends.firestore import replace_document

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

WORKERS = "chart_export_workers"
EXPIRES_SECONDS = 180.0
#: How many old documents one daemon deletes at its start.
MAX_OLD = 100
#: How many daemons a list shows at most.
MAX_LISTED = 1000


class WorkerState(StrEnum):
    """What a daemon does."""

    READY = "ready"
    PAUSED = "paused"
    DRAINING = "draining"
    NOT_READY = "not_ready"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStatus:
    """A daemon at its last heartbeat.

    Attributes:
        owner: Its name in leases: host:pid:boot id.
        version: Its version.
        subscription: The full path of the subscription.
        mode: `CHARTS_API_MODE`.
        state: What it does.
        reason: Why it is not ready, or an empty string.
        slots: How many steps messages can start at the same time.
        steps_running: How many steps run, also those of the rescue.
        started_at: When it looked at the pause for the first time.
        last_seen_at: When it sent the heartbeat.
        refused_accounts: The Chart-IMG accounts whose key was refused when it used them last, and why.
    """

    owner: str
    version: str
    subscription: str
    mode: str
    state: str
    reason: str
    slots: int
    steps_running: int
    started_at: datetime
    last_seen_at: datetime
    refused_accounts: Mapping[str, str] = field(default_factory=dict)

    def to_document(self) -> dict[str, Any]:
        """Return the document, with the names of `workers --output json`."""
        return {
            "owner": self.owner,
            "version": self.version,
            "subscription": self.subscription,
            "mode": self.mode,
            "state": str(self.state),
            "reason": self.reason,
            "slots": self.slots,
            "stepsRunning": self.steps_running,
            "startedAt": self.started_at,
            "lastSeenAt": self.last_seen_at,
            "refusedAccounts": dict(self.refused_accounts),
        }


def send_heartbeat(client: Any, status: WorkerStatus) -> None:
    """Write the document of a daemon.

    Raises:
        BackendUnavailable: Firestore is unavailable.
        BackendRefused: Firestore refuses.
    """
    expires_at = status.last_seen_at + timedelta(seconds=EXPIRES_SECONDS)
    replace_document(client, WORKERS, status.owner, status.to_document() | {"expiresAt": expires_at})


def live_workers(client: Any) -> Iterator[tuple[WorkerStatus, datetime]]:
    """Yield the daemons whose heartbeat has not expired, by owner, each with the server's time of the read.

    Raises:
        BackendUnavailable: Firestore is unavailable.
        BackendRefused: Firestore refuses.
    """
    query = client.collection(WORKERS).order_by("owner").limit(MAX_LISTED)
    with backend_errors("firestore"):
        for found in query.stream(retry=READ_RETRY, timeout=READ_TIMEOUT_SECONDS):
            document = found.to_dict()
            if _time(document.get("expiresAt")) > found.read_time:
                yield _status_of(document), found.read_time


def old_workers(client: Any, *, now: datetime) -> list[str]:
    """Return the owners of at most `MAX_OLD` documents that have expired.

    Raises:
        BackendUnavailable: Firestore is unavailable.
        BackendRefused: Firestore refuses.
    """
    query = client.collection(WORKERS).where(filter=FieldFilter("expiresAt", "<", now)).limit(MAX_OLD)
    with backend_errors("firestore"):
        return [found.id for found in query.stream(retry=READ_RETRY, timeout=READ_TIMEOUT_SECONDS)]


def _status_of(document: dict[str, Any]) -> WorkerStatus:
    """Read a document. Another version may have written it, so fields may be missing."""
    text = {name: str(document.get(name) or "") for name in ("owner", "version", "subscription", "mode")}
    return WorkerStatus(
        **text,
        state=str(document.get("state") or WorkerState.NOT_READY),
        reason=str(document.get("reason") or ""),
        slots=_whole(document.get("slots")),
        steps_running=_whole(document.get("stepsRunning")),
        started_at=_time(document.get("startedAt")),
        last_seen_at=_time(document.get("lastSeenAt")),
        refused_accounts=_texts(document.get("refusedAccounts")),
    )


def _texts(value: object) -> dict[str, str]:
    return {str(name): str(text) for name, text in value.items()} if isinstance(value, dict) else {}


def _whole(value: object) -> int:
    return int(value) if isinstance(value, int | float) else 0


def _time(value: object) -> datetime:
    return value if isinstance(value, datetime) else datetime.fromtimestamp(0, UTC)
