"""Where a command asked: the project, the database and the emulator, for its errors."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from daemon.settings.emulators import Emulators
from worker_chart_export.errors import BackendRefused, BackendUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def asking_for(*things: str) -> Iterator[None]:
    """Add what was asked for, for example `run r1`, to the errors of backends."""
    try:
        yield
    except (BackendRefused, BackendUnavailable) as error:
        for thing in things:
            error.add_note(thing)
        raise


def with_place(error: BackendRefused | BackendUnavailable) -> str:
    """Return the error's message with what was asked for, and where."""
    things = [thing for thing in (*getattr(error, "__notes__", ()), place_of(error.backend)) if thing]
    return f"{error} ({', '.join(things)})" if things else str(error)


def place_of(backend: str) -> str:
    """Describe where `backend` is: `project p, database d`, and the emulator that takes its place.

    Names of Pub/Sub hold their project.
    """
    parts = []
    if backend != "pubsub" and (project := os.environ.get("GOOGLE_CLOUD_PROJECT")):
        parts.append(f"project {project}")
    if backend == "firestore":
        parts.append(f"database {os.environ.get('FIRESTORE_DB') or '(default)'}")
    if (emulator := Emulators.of(os.environ).named.get(backend)) is not None:
        parts.append(f"emulator {emulator}")
    return ", ".join(parts)
