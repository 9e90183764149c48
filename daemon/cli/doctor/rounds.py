"""Checks side by side, each within its time: one that fails or hangs hides no other, nor does a stop."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from daemon.cli.doctor.results import CheckResult, Status, not_checkable
from daemon.settings import SettingsError
from worker_chart_export.backends.errors import describe_error
from worker_chart_export.errors import WorkerError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from worker_chart_export.concurrency.cancel_scope import CancelScope

#: Longer than any two calls that wait for their own time-outs.
CHECK_SECONDS = 22.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """Some checks that are made together.

    Attributes:
        checks: The ids that are reported when it does not come to an end by itself.
        make: Makes them.
        mend: What helps when it does not come to an end.
        leaves: What it writes, and deletes again if it comes to an end.
    """

    checks: tuple[str, ...]
    make: Callable[[], Sequence[CheckResult]]
    mend: str = ""
    leaves: str = ""


def make_all(
    examinations: Sequence[Examination], run: CancelScope, *, seconds: float = CHECK_SECONDS
) -> list[CheckResult]:
    """Make all at once; their findings in the order given, after `seconds` at most.

    When `run` is stopped, only those are waited for that have something to delete; none is begun any more.
    """
    deadline = time.monotonic() + seconds
    threads = [_InThread(examination, run) for examination in examinations]
    return [result for thread in threads for result in thread.findings_by(deadline)]


class _InThread:
    def __init__(self, examination: Examination, run: CancelScope) -> None:
        self._examination = examination
        self._run = run
        self._findings: Sequence[CheckResult] | None = None
        self._is_over = threading.Event()
        if not examination.leaves:
            run.on_stop(lambda _: self._is_over.set())
        # A daemon thread: one that hangs must not keep the process.
        threading.Thread(target=self._make, name=examination.checks[0], daemon=True).start()

    def _make(self) -> None:
        try:
            self._run.check_stopped()
            self._findings = self._examination.make()
        except (WorkerError, SettingsError) as error:
            self._findings = self._all_failed(str(error))
        except Exception as error:  # noqa: BLE001 - one check's bug must not hide what the others found
            self._findings = self._all_failed(f"internal: {describe_error(error)}")
        finally:
            self._is_over.set()

    def findings_by(self, deadline: float) -> Sequence[CheckResult]:
        self._is_over.wait(max(0.0, deadline - time.monotonic()))
        found = self._findings
        if found is not None:
            return found
        examination = self._examination
        why = "it came to no end in its time"
        return self._all_failed(why, mend=examination.mend, left_over=examination.leaves)

    def _all_failed(self, why: str, mend: str = "", left_over: str = "") -> list[CheckResult]:
        first, *others = self._examination.checks
        failed = CheckResult(check=first, status=Status.FAILURE, summary=why, mend=mend, left_over=left_over)
        return [failed, *(not_checkable(check, f"{first} failed") for check in others)]
