"""Whether the charts bucket takes objects: known before a chart is paid for, because it has to be stored."""

from __future__ import annotations

import secrets
from contextlib import contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from worker_chart_export.backends.errors import describe_error
from worker_chart_export.backends.http import cancellable_by
from worker_chart_export.backends.storage import REFUSALS
from worker_chart_export.backends.storage_uploads import insert_object
from worker_chart_export.concurrency.cancel_scope import CancelScope
from worker_chart_export.errors import (
    STORAGE,
    BackendUnavailable,
    BucketUnusable,
    ObjectRefused,
    RequestError,
    StepTimedOut,
)
from worker_chart_export.observability.logs import Event, log
from worker_chart_export.timing import SystemClock, span

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Below the folder of the charts, because an account's permissions may be limited to it.
PROBE_FOLDER = "charts/.probe/"
PROBE_CONTENT = b"worker-chart-export created this object to see whether the bucket takes objects.\n"
PROBE_SECONDS = 5.0


class BucketProbe:
    """Knows whether the bucket takes objects, from the uploads or from a probe. Shared by all threads.

    A probe creates an object and deletes it. The bucket's list of permissions would not show a condition on
    names, a disabled key or a closed billing account. An object that can't be deleted stays and serves again.

    Args:
        bucket: The bucket of Google's client.
    """

    def __init__(self, bucket: Any) -> None:
        self._bucket = bucket
        self._takes_objects = False
        self._kept_name = ""

    def require(self, scope: CancelScope) -> None:
        """Return if the bucket takes objects. Make a probe before the first upload and after one that failed.

        Raises:
            BucketUnusable: It takes none.
            BackendUnavailable: Cloud Storage stays unavailable.
            StepTimedOut: The step's time has ended.
            WorkerError: The error that the step was stopped with.
        """
        if not self._takes_objects:
            self._create(scope)

    def probe(self, scope: CancelScope | None = None) -> None:
        """Create an object and delete it, within `PROBE_SECONDS`. Errors as `require`."""
        no_step = CancelScope(seconds=PROBE_SECONDS, clock=SystemClock())
        try:
            self._create(no_step if scope is None else scope.child(PROBE_SECONDS))
        except StepTimedOut:  # the process stood still before the call
            if scope is not None:
                scope.check()
            raise BackendUnavailable(STORAGE, f"no time for a probe within {span(PROBE_SECONDS)}") from None

    def _create(self, scope: CancelScope) -> None:
        name = self._kept_name or f"{PROBE_FOLDER}{secrets.token_hex(8)}"
        try:
            is_created = insert_object(
                self._bucket,
                name,
                PROBE_CONTENT,
                content_type="text/plain",
                refusal=ObjectRefused,
                scope=scope,
            )
        except ObjectRefused as refused:
            self._takes_objects = False
            raise BucketUnusable(f"gs://{self._bucket.name}", _why_refused(refused)) from refused
        self._takes_objects = True
        if is_created:
            self._delete(name, scope)

    def doubt(self) -> None:
        """Make a probe before the next chart: another call than an upload was refused."""
        self._takes_objects = False

    def _delete(self, name: str, scope: CancelScope) -> None:
        try:
            with cancellable_by(scope):
                self._bucket.blob(name).delete(timeout=PROBE_SECONDS, retry=None)
        except Exception as error:  # noqa: BLE001 - that it was created is all that counts
            self._kept_name = name
            log.debug(Event.BACKEND_REFUSED, f"{name} stays: {describe_error(error)}", backend="storage")

    @contextmanager
    def watching(self, refusal: type[RequestError], scope: CancelScope) -> Iterator[None]:
        """Note the success of an upload. After a refusal find out if the bucket takes any object at all.

        Raises:
            BucketUnusable: It was refused as `refusal`, and so is every object.
            WorkerError: As the block.
        """
        try:
            yield
        except refusal:
            self._takes_objects = False
            self.probe(scope)
            raise
        except BackendUnavailable:
            self._takes_objects = False
            raise
        self._takes_objects = True


def _why_refused(refused: ObjectRefused) -> str:
    status = refused.details.get("httpStatus")
    if status == HTTPStatus.NOT_FOUND:
        return f"there is no such bucket ({status})"
    if status in REFUSALS:
        return f"{REFUSALS[status]} ({status})"
    return str(refused.details.get("storage", refused.message))
