"""The places that a command asks: topics by name, and for errors the project, database and emulator."""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from worker_chart_export.errors import BackendRefused, BackendUnavailable, shown

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
    from daemon.settings.emulators import Emulators  # noqa: PLC0415 - help does without

    parts = []
    if backend != "pubsub" and (project := os.environ.get("GOOGLE_CLOUD_PROJECT")):
        parts.append(f"project {project}")
    if backend == "firestore":
        parts.append(f"database {os.environ.get('FIRESTORE_DB') or '(default)'}")
    if (emulator := Emulators.of(os.environ).named.get(backend)) is not None:
        parts.append(f"emulator {emulator}")
    return ", ".join(parts)


def topic_path(topic: str) -> str:
    """Return the full path of the topic in `--topic`. An id alone means one of `GOOGLE_CLOUD_PROJECT`.

    Raises:
        BadParameter: It is neither an id nor a path.
        SettingsError: `GOOGLE_CLOUD_PROJECT` is needed, and missing or wrong.
    """
    from daemon.settings import PROJECT, PUBSUB_ID, SettingsError  # noqa: PLC0415 - help does without

    if re.fullmatch(f"projects/{PROJECT.pattern}/topics/{PUBSUB_ID.pattern}", topic):
        return topic
    if not PUBSUB_ID.fullmatch(topic):
        raise typer.BadParameter(
            f"--topic: expected a topic id or projects/<project>/topics/<id>, got {shown(topic)}"
        )
    project = os.environ.get("GOOGLE_CLOUD_PROJECT", "")
    if not PROJECT.fullmatch(project):
        raise SettingsError(
            [f"GOOGLE_CLOUD_PROJECT: expected a Google Cloud project id; required, got {shown(project)}"]
        )
    return f"projects/{project}/topics/{topic}"
