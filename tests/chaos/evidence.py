"""Keep what shows the cause of a violation: the logs of all daemons, and the facts of the end state."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.chaos.end_state import EndState
    from tests.chaos.fleet import Worker

#: The facts that get a file each, one fact a line.
FACTS = ("transitions", "claims", "paid", "disturbances")


def keep(workers: Iterable[Worker], state: EndState) -> Path:
    """Write a file for each daemon and each kind of fact into a new folder; return the folder."""
    folder = Path(mkdtemp(prefix="chaos-"))
    for worker in workers:
        lines = [*map(json.dumps, list(worker.events)), *map(str.rstrip, list(worker.other_output))]
        ended = f"process {worker.process.pid}, exit code {worker.process.returncode}"
        _write(folder / f"{worker.key}.log", [ended, *lines])
    for name in FACTS:
        _write(folder / name, map(str, getattr(state, name) or ()))
    _write(folder / "files", (f"{name} {file}" for name, file in state.files.items()))
    return folder


def _write(path: Path, lines: Iterable[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines))
