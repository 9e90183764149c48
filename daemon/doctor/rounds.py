"""Checks side by side, each within its time: one that fails or hangs hides no other."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from daemon.doctor.findings import failure, not_checkable
from worker_chart_export.errors import WorkerError
from worker_chart_export.retry import plain_words

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from daemon.doctor.findings import Finding

#: Longer than any two calls that wait for their own time-outs.
CHECK_SECONDS = 22.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """Some checks that are made together.

    Attributes:
        checks: The ids that are reported when it does not come to an end by itself.
        make: Makes them.
    """

    checks: tuple[str, ...]
    make: Callable[[], Sequence[Finding]]


def make_all(examinations: Sequence[Examination], *, seconds: float = CHECK_SECONDS) -> list[Finding]:
    """Make all at once; their findings in the order given, after `seconds` at most."""
    deadline = time.monotonic() + seconds
    threads = [_InThread(examination) for examination in examinations]
    return [finding for thread in threads for finding in thread.findings_by(deadline)]


class _InThread:
    def __init__(self, examination: Examination) -> None:
        self._examination = examination
        self._findings: Sequence[Finding] | None = None
        # A daemon thread: one that hangs must not keep the process.
        name = examination.checks[0]
        self._thread = threading.Thread(target=self._make, name=name, daemon=True)
        self._thread.start()

    def _make(self) -> None:
        try:
            self._findings = self._examination.make()
        except WorkerError as error:
            self._findings = self._all_failed(str(error))
        except Exception as error:  # noqa: BLE001 - one check's bug must not hide what the others found
            self._findings = self._all_failed(f"internal: {plain_words(error)}")

    def findings_by(self, deadline: float) -> Sequence[Finding]:
        self._thread.join(max(0.0, deadline - time.monotonic()))
        found = self._findings
        return self._all_failed("it came to no end in its time") if found is None else found

    def _all_failed(self, why: str) -> list[Finding]:
        first, *others = self._examination.checks
        return [failure(first, why), *(not_checkable(check, f"{first} failed") for check in others)]
