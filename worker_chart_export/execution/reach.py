"""Whether a step can still get as many charts as it needs. When it can't, nothing more is paid for it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from worker_chart_export.errors import OutOfReach

if TYPE_CHECKING:
    from worker_chart_export.concurrency.cancel_scope import CancelScope
    from worker_chart_export.errors import RequestError
    from worker_chart_export.inputs.export_request import ExportRequest


class Reach:
    """Counts the failed requests of a step. Shared by the threads that make its charts.

    Args:
        export: The step's request.
        scope: The time and the stop of the charts.

    Attributes:
        wanted: A child of `scope`. It is stopped with `OutOfReach` after the failure that leaves too few
            requests for `minImages`. Each wait and each paid call checks it; calls in progress go on.
    """

    def __init__(self, export: ExportRequest, scope: CancelScope) -> None:
        self.wanted = scope.child(scope.remaining_seconds())
        self._export = export
        self._scope = scope
        self._lock = threading.Lock()
        self._failed: dict[str, RequestError] = {}

    @property
    def is_lost(self) -> bool:
        """True once too few requests are left for `minImages`."""
        with self._lock:
            return self._possible() < self._export.min_images

    def _possible(self) -> int:
        return len(self._export.template_ids) - len(self._failed)

    def record_failure(self, template_id: str, error: RequestError) -> None:
        """Count a failed request, unless it failed only because the time of all charts has ended."""
        if self._scope.remaining_seconds() == 0.0:
            return
        with self._lock:
            self._failed[template_id] = error
            if self._possible() >= self._export.min_images:
                return
            first = next(name for name in self._export.template_ids if name in self._failed)
            reason = OutOfReach.after(self._failed[first].code, first, min_images=self._export.min_images)
        self.wanted.stop(reason)
