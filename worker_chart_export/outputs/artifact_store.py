"""The objects of a step in the charts bucket: their names, uploads and reads.

All attempts of a step use the same names. So a chart upload that finds its object in place is a success.
The manifest is written by compare-and-swap.
"""

from __future__ import annotations

import re
import threading
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache, partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from worker_chart_export.backends.storage import (
    ObjectTooLarge,
    ObjectUnusable,
    call_storage,
    read_object,
)
from worker_chart_export.backends.storage_uploads import checksum_of, insert_object
from worker_chart_export.errors import (
    STORAGE,
    BackendUnavailable,
    ManifestRefused,
    ObjectRefused,
    OhlcvUnavailable,
    RequestError,
    StepTimedOut,
    ValidationFailed,
    shown,
)
from worker_chart_export.memory import return_freed_memory
from worker_chart_export.outputs.bucket_probe import BucketProbe
from worker_chart_export.outputs.manifest import MAX_MANIFEST_BYTES
from worker_chart_export.timing import full_jitter_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from worker_chart_export.backends.storage_session import Timeout
    from worker_chart_export.concurrency.cancel_scope import CancelScope
    from worker_chart_export.inputs.export_request import ExportRequest

#: The longest object name that Cloud Storage takes, in UTF-8.
MAX_NAME_BYTES = 1024
#: Refusals that may depend on which of Cloud Storage's servers answers.
PERMISSION_STATUSES = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND)
#: The time for a manifest, even when less of the step's time is left.
MIN_MANIFEST_SECONDS = 10.0
#: The most attempts to write a manifest while another writer replaces it.
MAX_MANIFEST_ATTEMPTS = 5
#: OHLCV files have at most 64 KiB by contract. This limit keeps a wrong URI from filling the memory.
MAX_CANDLE_BYTES = 16 * 1024 * 1024
#: Of larger files only one at a time is in memory. To draw from 16 MiB takes 200 MiB.
LARGE_CANDLE_BYTES = 1024 * 1024
GS_URI = re.compile(r"gs://(?P<bucket>[a-z0-9][a-z0-9._-]{1,220}[a-z0-9])/(?P<name>.+)", re.DOTALL)


T = TypeVar("T")
START_IN_NAME = re.compile(r"([0-9]{8}-[0-9]{6})_[^/]*\.png$")


@lru_cache(maxsize=64)
def _stamp(started_at: datetime) -> str:
    """Return the time as object names hold it. A step needs it a dozen times, and `strftime` is slow."""
    return f"{started_at.astimezone(UTC):%Y%m%d-%H%M%S}"


class StepFolder(NamedTuple):
    """The object names of one step in the charts bucket."""

    run_id: str
    step_id: str

    @property
    def manifest_name(self) -> str:
        """The manifest's object name."""
        return f"charts/{self.run_id}/{self.step_id}/manifest.json"

    def started_at(self, name: str) -> datetime | None:
        """Return the time in the name of a chart of this step, to the second; None for any other object."""
        match = START_IN_NAME.match(name.removeprefix(f"charts/{self.run_id}/{self.step_id}/"))
        try:
            return datetime.strptime(match[1], "%Y%m%d-%H%M%S").replace(tzinfo=UTC) if match else None
        except ValueError:  # no such time
            return None

    def png_prefix(self, started_at: datetime) -> str:
        """Return the common prefix of the chart names of all attempts.

        Args:
            started_at: The time of the first claim. Take-overs keep it.
        """
        return f"charts/{self.run_id}/{self.step_id}/{_stamp(started_at)}_"

    def png_name(self, *, started_at: datetime, symbol: str, timeframe: str, template_id: str) -> str:
        """Return a chart's object name: the same in every attempt, see `png_prefix`."""
        return f"{self.png_prefix(started_at)}{symbol}_{timeframe}_{template_id}.png"

    def check_names(self, export: ExportRequest, *, started_at: datetime) -> None:
        """Check that Cloud Storage takes the names of all charts.

        Raises:
            ValidationFailed: One is too long. The error names the symbol, whose length varies most.
        """
        longest = max(
            len(
                self.png_name(
                    started_at=started_at,
                    symbol=export.symbol,
                    timeframe=export.timeframe,
                    template_id=template_id,
                ).encode()
            )
            for template_id in export.template_ids
        )
        if longest > MAX_NAME_BYTES:
            size = len(export.symbol.encode())
            raise ValidationFailed(
                f"scope.symbol: expected at most {size - longest + MAX_NAME_BYTES} bytes of UTF-8, so that "
                f"the charts' object names have at most {MAX_NAME_BYTES}, got {size}.",
                field="scope.symbol",
                objectNameBytes=longest,
            )


class StoredPng(NamedTuple):
    """A chart in the bucket.

    Attributes:
        uri: Its `gs://` URI.
        metadata: The object's metadata: `runId`, `stepId`, `chartTemplateId`, `provider`, and `fallbackFrom`
            if another provider was asked first.
        size: Its size in bytes.
    """

    uri: str
    metadata: Mapping[str, str]
    size: int


class ArtifactStore:
    """Uploads to the charts bucket and reads candle files. Shared by all threads.

    Args:
        client: A Cloud Storage client.
        bucket: The charts bucket's name, without `gs://`.
    """

    def __init__(self, *, client: Any, bucket: str) -> None:
        self._client = client
        self._bucket = client.bucket(bucket)
        self._probe = BucketProbe(self._bucket)
        self._root = f"gs://{bucket}/"
        self._large_file = threading.Lock()

    def probe(self) -> None:
        """Find out whether the bucket takes objects.

        Raises:
            BucketUnusable: It takes none.
            BackendUnavailable: Cloud Storage is unavailable.
        """
        self._probe.probe()

    def require_bucket(self, scope: CancelScope) -> None:
        """Return if a chart that is paid for now can be stored. Errors as `BucketProbe.require`."""
        self._probe.require(scope)

    def uri(self, name: str) -> str:
        """Return the URI of an object of the charts bucket."""
        return self._root + name

    def upload_png(self, name: str, png: bytes, *, metadata: Mapping[str, str], scope: CancelScope) -> str:
        """Create the object, unless it exists, and return its URI.

        Raises:
            ObjectRefused: Cloud Storage refuses it.
            BackendUnavailable: Cloud Storage stays unavailable.
            StepTimedOut: The step's time has ended; nothing was uploaded.
            WorkerError: The error that the step was stopped with.
        """
        self._upload(
            name, png, content_type="image/png", refusal=ObjectRefused, scope=scope, metadata=metadata
        )
        return self.uri(name)

    def stored_pngs(
        self, folder: StepFolder, *, started_at: datetime, scope: CancelScope
    ) -> dict[str, StoredPng]:
        """Return the charts that all attempts so far have uploaded, by object name.

        Args:
            folder: The step's folder.
            started_at: The time of the first claim.
            scope: The time and the stop of the call.

        Raises:
            ObjectRefused: Cloud Storage refuses to list them.
            BackendUnavailable: Cloud Storage stays unavailable.
            StepTimedOut: The time has ended.
            WorkerError: The error that the step was stopped with.
        """
        try:
            listed = self._list(folder.png_prefix(started_at), scope)
        except ObjectRefused:
            self._probe.doubt()
            raise
        return {
            blob.name: StoredPng(self.uri(blob.name), dict(blob.metadata or {}), int(blob.size))
            for blob in listed
            if blob.name.endswith(".png")
        }

    def newest_start(self, folder: StepFolder, *, scope: CancelScope) -> datetime | None:
        """Return the newest time in the names of a step's charts; None without charts.

        Errors as `stored_pngs`.
        """
        prefix = f"charts/{folder.run_id}/{folder.step_id}/"
        times = (folder.started_at(blob.name) for blob in self._list(prefix, scope))
        return max((time for time in times if time), default=None)

    def _list(self, prefix: str, scope: CancelScope) -> list[Any]:
        return call_storage(
            lambda timeout: list(
                self._client.list_blobs(self._bucket, prefix=prefix, timeout=timeout, retry=None)
            ),
            name=self.uri(prefix),
            refusal=ObjectRefused,
            scope=scope,
        )

    def write_manifest(
        self, name: str, content: bytes, *, scope: CancelScope, confirm_lease: Callable[[], None]
    ) -> str:
        """Write the manifest by compare-and-swap and return its URI.

        The first upload requires that no object is there. When one is there with the same content, it is our
        own: an earlier try whose answer was lost. Any other content is the manifest of an earlier attempt. It
        is replaced only if the lease is confirmed after it was read, and only if it has not changed since.
        So a worker whose step was taken over never replaces the manifest of the worker that has it now.

        Args:
            name: The object's name.
            content: The manifest.
            scope: Its stop ends the work. Its time does so too, but not before `MIN_MANIFEST_SECONDS`.
            confirm_lease: Reads the step's lease, and raises when it is lost.

        Raises:
            ManifestRefused: Cloud Storage refuses it, or others replace it again and again.
            BackendUnavailable: Cloud Storage stays unavailable.
            WorkerError: The error that the step was stopped with, or that `confirm_lease` raised.
        """
        child = scope.child(max(scope.remaining_seconds(), MIN_MANIFEST_SECONDS))
        generation = 0
        try:
            for attempt in range(MAX_MANIFEST_ATTEMPTS):
                if attempt > 1:  # another worker writes at the same time
                    child.sleep(full_jitter_seconds(low=0.05, high=0.5))
                if self._upload(
                    name,
                    content,
                    content_type="application/json",
                    refusal=ManifestRefused,
                    scope=child,
                    generation=generation,
                ):
                    return self.uri(name)
                present = call_storage(
                    partial(self._look_up, name), name=self.uri(name), refusal=ManifestRefused, scope=child
                )
                if present is not None and present.crc32c == checksum_of(content):
                    return self.uri(name)
                generation = present.generation if present else 0
                confirm_lease()
        except StepTimedOut as error:
            scope.check_stopped()
            raise BackendUnavailable(STORAGE, "it was too slow for the manifest") from error
        raise ManifestRefused(f"{name} was replaced by another writer {MAX_MANIFEST_ATTEMPTS} times.")

    def _upload(
        self, name: str, content: bytes, *, refusal: type[RequestError], scope: CancelScope, **about: Any
    ) -> bool:
        """Upload as `insert_object` does, and notice when the bucket takes no object at all.

        A chart is paid for. So an object that is refused while the bucket takes others is tried once more:
        changed permissions are not known to all servers of Cloud Storage at the same time.
        """
        insert = partial(insert_object, self._bucket, name, content, refusal=refusal, scope=scope, **about)
        try:
            with self._probe.watching(refusal, scope):
                return insert()
        except refusal as refused:
            if refused.details.get("httpStatus") not in PERMISSION_STATUSES:
                raise
        return insert()

    def read_manifest(self, name: str, *, scope: CancelScope) -> bytes | None:
        """Return the manifest with this name, or None when there is none.

        Raises:
            ManifestRefused: Cloud Storage refuses to read it, or it is too large.
            BackendUnavailable: Cloud Storage stays unavailable.
            StepTimedOut: The step's time has ended.
            WorkerError: The error that the step was stopped with.
        """

        def read(timeout: Timeout) -> bytes | None:
            blob = self._look_up(name, timeout)
            return None if blob is None else read_object(blob, max_bytes=MAX_MANIFEST_BYTES, timeout=timeout)

        return call_for_manifest(read, uri=self.uri(name), refusal=ManifestRefused, scope=scope)

    def _look_up(self, name: str, timeout: Timeout) -> Any:
        """Return the object's metadata, or None when there is none."""
        return self._bucket.get_blob(name, timeout=timeout, retry=None)

    def read_candles(self, uri: str | None, *, scope: CancelScope) -> bytes:
        """Return the bytes of an OHLCV JSON file, as they are stored: it may be gzip.

        Of the files over `LARGE_CANDLE_BYTES` one at a time is used in this process. The next one waits until
        the scope of the call that read the first is stopped, at the end of its step's charts.

        Raises:
            OhlcvUnavailable: There is no URI, its object can't be read, or the file is too large.
            BackendUnavailable: Cloud Storage stays unavailable.
            StepTimedOut: The step's time has ended.
            WorkerError: The error that the step was stopped with.
        """
        match = None if uri is None else GS_URI.fullmatch(uri)
        if match is None:
            raise OhlcvUnavailable(
                "Candles: expected gs://bucket/object in inputs.ohlcv_gcs_uri or in outputs.gcs_uri of the "
                f"OHLCV_EXPORT step of the same timeframe in dependsOn, got {shown(uri)}."
            )
        blob = self._client.bucket(match["bucket"]).blob(match["name"])

        def read(max_bytes: int) -> bytes:
            return call_storage(
                lambda timeout: read_object(blob, max_bytes=max_bytes, timeout=timeout, as_stored=True),
                name=str(uri),
                refusal=OhlcvUnavailable,
                scope=scope,
            )

        try:
            with suppress(ObjectTooLarge):
                return read(min(LARGE_CANDLE_BYTES, MAX_CANDLE_BYTES))
            self._wait_for_large_file(scope)
            return read(MAX_CANDLE_BYTES)
        except ObjectTooLarge:
            raise OhlcvUnavailable(
                f"Candles {uri}: expected at most {MAX_CANDLE_BYTES} bytes.", uri=uri
            ) from None
        except ObjectUnusable as error:
            raise OhlcvUnavailable(f"Candles {uri}: {error}.", uri=uri) from error

    def _wait_for_large_file(self, scope: CancelScope) -> None:
        scope.acquire(self._large_file)
        return_freed_memory()  # of the large file before
        scope.on_stop(lambda _error: self._large_file.release())


def call_for_manifest(
    read: Callable[[Timeout], T], *, uri: str, refusal: type[RequestError], scope: CancelScope
) -> T:
    """Call `read` as `call_storage` does, for an object that is a manifest.

    Raises:
        ManifestRefused: It is too large, or not the gzip that it starts as.
        WorkerError: As `call_storage`.
    """
    try:
        return call_storage(read, name=uri, refusal=refusal, scope=scope)
    except ObjectTooLarge:
        raise ManifestRefused(f"{uri} has more than {MAX_MANIFEST_BYTES} bytes.") from None
    except ObjectUnusable as error:
        raise ManifestRefused(f"{uri} can't be read: {error}.") from error
