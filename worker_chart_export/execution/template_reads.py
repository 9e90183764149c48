"""Read the templates of a step while Firestore may be unavailable or refuse."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

from worker_chart_export.concurrency.parallel import run_in_parallel
from worker_chart_export.errors import (
    BackendRefused,
    BackendUnavailable,
    RequestError,
    StepTimedOut,
    ValidationFailed,
    WorkerError,
)
from worker_chart_export.observability.logs import Event, log
from worker_chart_export.timing import full_jitter_seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worker_chart_export.concurrency.cancel_scope import CancelScope
    from worker_chart_export.inputs.template import ChartTemplate, TemplateStore

OUT_OF_TIME = "The step's time ended before this chart was made."
#: How long a template that may not be read is asked for again.
MAX_REFUSED_SECONDS = 60.0


def read_templates(
    store: TemplateStore, template_ids: Sequence[str], scope: CancelScope, *, threads: int
) -> dict[str, ChartTemplate | RequestError]:
    """Read templates, some at a time.

    Raises:
        WorkerError: The step was stopped, or Firestore stays unavailable.
    """
    reads, out_of_time = scope.child(scope.remaining_seconds()), StepTimedOut(OUT_OF_TIME)
    futures = run_in_parallel(
        partial(_read, store, scope=reads),
        template_ids,
        threads=threads,
        scope=reads,
        timeout_error=out_of_time,
    )
    found: dict[str, ChartTemplate | RequestError] = {}
    for template_id, future in zip(template_ids, futures, strict=True):
        error = future.exception() if future.done() else out_of_time
        if error is not None and not isinstance(error, RequestError):
            raise error
        found[template_id] = error or future.result()
    return found


def _read(store: TemplateStore, template_id: str, scope: CancelScope) -> ChartTemplate:
    """Read the template. While Firestore is unavailable, try again until the charts' time ends.

    While it refuses, try again for a minute: permissions that are changed may be missing for so long.
    """
    started = time.monotonic()
    while True:
        try:
            return store.get(template_id)
        except BackendUnavailable as error:
            log.warning(Event.BACKEND_UNAVAILABLE, str(error), backend=error.backend)
            failure: WorkerError = error
        except BackendRefused as error:
            log.warning(Event.BACKEND_REFUSED, str(error), backend=error.backend)
            message = f"Template {template_id} can't be read: {error}"
            failure = ValidationFailed(message, chartTemplateId=template_id)
            if time.monotonic() - started >= MAX_REFUSED_SECONDS:
                raise failure from error
        pause = full_jitter_seconds(low=0.5, high=5.0)
        if pause >= scope.remaining_seconds():
            scope.check_stopped()
            raise failure
        try:
            scope.sleep(pause)
        except StepTimedOut:  # the process stood still in the pause
            raise failure from None
