"""Objects in the charts bucket: their names (pure), uploads that happen once, and reads.

A chart upload that finds its object there already is a success: every attempt of a step uses the same names.
The manifest is written by compare-and-swap.
"""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import google_crc32c
from google.api_core import exceptions as google_errors

from worker_chart_export.backends.errors import backend_errors
from worker_chart_export.backends.storage import call_storage
from worker_chart_export.errors import (
    BackendUnavailable,
    ManifestRefused,
    ObjectRefused,
    OhlcvUnavailable,
    RequestError,
    StepTimedOut,
    shown,
)
from worker_chart_export.timing import full_jitter_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from worker_chart_export.concurrency.cancel_scope import CancelScope

#: Reading it shows whether Cloud Storage answers.
NOBODYS_OBJECT = "charts/probe"
PROBE_TIMEOUT_SECONDS = 10.0
#: A manifest is tried for so long, even when the step's time is nearly over.
MIN_MANIFEST_SECONDS = 10.0
#: A manifest that somebody else keeps replacing is written this often at most.
MAX_MANIFEST_TURNS = 5
#: OHLCV files are at most 64 KiB by contract; this bound only keeps a wrong URI from filling the memory.
MAX_CANDLE_BYTES = 16 * 1024 * 1024
GS_URI = re.compile(r"gs://(?P<bucket>[a-z0-9][a-z0-9._-]{1,220}[a-z0-9])/(?P<name>.+)", re.DOTALL)


class StepFolder(NamedTuple):
    """Where one step's objects are, in the charts bucket."""

    run_id: str
    step_id: str

    @property
    def prefix(self) -> str:
        """The common beginning of the step's object names."""
        return f"charts/{self.run_id}/{self.step_id}/"

    @property
    def manifest_name(self) -> str:
        """The manifest's object name."""
        return f"{self.prefix}manifest.json"

    def png_prefix(self, started_at: datetime) -> str:
        """The common beginning of the chart names of all attempts since the claim at `started_at`."""
        return f"{self.prefix}{started_at:%Y%m%d-%H%M%S}_"

    def png_name(self, *, started_at: datetime, symbol: str, timeframe: str, template_id: str) -> str:
        """A chart's object name; the same for every attempt, because `started_at` is the first claim's."""
        return f"{self.png_prefix(started_at)}{symbol}_{timeframe}_{template_id}.png"


class StoredPng(NamedTuple):
    """A chart that is in the bucket already.

    Attributes:
        uri: Its `gs://` URI.
        metadata: What it was uploaded with: `runId`, `stepId`, `chartTemplateId`, `provider`.
        size: Its bytes.
    """

    uri: str
    metadata: Mapping[str, str]
    size: int


class ArtifactStore:
    """Uploads to the charts bucket and reads of candle files. Shared by all threads.

    Args:
        client: A Cloud Storage client.
        bucket: The charts bucket's name, without `gs://`.
    """

    def __init__(self, *, client: Any, bucket: str) -> None:
        self._client = client
        self._bucket = client.bucket(bucket)

    def uri(self, name: str) -> str:
        """`gs://bucket/name`."""
        return f"gs://{self._bucket.name}/{name}"

    def probe(self) -> None:
        """Ask Cloud Storage for an object nobody has.

        Raises:
            BackendUnavailable: It is away.
            BackendRefused: It refuses, so it is there.
        """
        with backend_errors("storage"):
            self._bucket.get_blob(NOBODYS_OBJECT, timeout=PROBE_TIMEOUT_SECONDS, retry=None)

    def upload_png(self, name: str, png: bytes, *, metadata: Mapping[str, str], scope: CancelScope) -> str:
        """Create the object, or find that it exists; returns its URI.

        Raises:
            ObjectRefused: Cloud Storage refuses it.
            BackendUnavailable: Cloud Storage stays away.
            StepTimedOut: The step's time is over; nothing was uploaded.
            WorkerError: What the step was stopped with.
        """
        blob = self._bucket.blob(name)
        blob.metadata = dict(metadata)
        self._upload(blob, png, "image/png", refusal=ObjectRefused, scope=scope)
        return self.uri(name)

    def stored_pngs(
        self, folder: StepFolder, *, started_at: datetime, scope: CancelScope
    ) -> dict[str, StoredPng]:
        """The charts that attempts since the claim at `started_at` have uploaded, by object name.

        Raises:
            ObjectRefused: Cloud Storage refuses to list them.
            BackendUnavailable: Cloud Storage stays away.
            StepTimedOut: The step's time is over.
            WorkerError: What the step was stopped with.
        """
        prefix = folder.png_prefix(started_at)
        listed = call_storage(
            lambda timeout: list(
                self._client.list_blobs(self._bucket, prefix=prefix, timeout=timeout, retry=None)
            ),
            name=prefix,
            refusal=ObjectRefused,
            scope=scope,
        )
        return {
            blob.name: StoredPng(self.uri(blob.name), dict(blob.metadata or {}), int(blob.size))
            for blob in listed
            if blob.name.endswith(".png")
        }

    def write_manifest(
        self, name: str, content: bytes, *, scope: CancelScope, still_ours: Callable[[], None]
    ) -> str:
        """Write the manifest by compare-and-swap and return its URI.

        Equal content found there is our own retry after a lost answer. Other content is the manifest of an
        earlier attempt and is replaced, if the step is still ours after it was looked at, and if it is still
        the one that was looked at: so a worker whose step was taken over never replaces the winner's.

        Args:
            name: The object's name.
            content: The manifest.
            scope: Bounds it, but for `MIN_MANIFEST_SECONDS`, and stops it.
            still_ours: Reads the step's lease; raises when it is lost.

        Raises:
            ManifestRefused: Cloud Storage refuses it.
            BackendUnavailable: Cloud Storage stays away.
            WorkerError: What the step was stopped with, or what `still_ours` raised.
        """
        try:
            self._swap(name, content, scope.at_least(MIN_MANIFEST_SECONDS), still_ours)
        except StepTimedOut as error:
            scope.check_stopped()
            raise BackendUnavailable("storage", "it was too slow for the manifest") from error
        return self.uri(name)

    def _swap(self, name: str, content: bytes, scope: CancelScope, still_ours: Callable[[], None]) -> None:
        blob, generation = self._bucket.blob(name), 0
        for turn in range(MAX_MANIFEST_TURNS):
            if turn > 1:  # somebody else writes at the same time
                scope.sleep(full_jitter_seconds(low=0.05, high=0.5))
            if self._upload(
                blob,
                content,
                "application/json",
                refusal=ManifestRefused,
                scope=scope,
                generation=generation,
            ):
                return
            present = call_storage(
                lambda timeout: self._bucket.get_blob(name, timeout=timeout, retry=None),
                name=name,
                refusal=ManifestRefused,
                scope=scope,
            )
            if present is not None and present.crc32c == _crc32c(content):
                return
            generation = present.generation if present else 0
            still_ours()
        raise ManifestRefused(f"{name} was replaced by somebody else {MAX_MANIFEST_TURNS} times over.")

    def _upload(
        self,
        blob: Any,
        content: bytes,
        content_type: str,
        *,
        refusal: type[RequestError],
        scope: CancelScope,
        generation: int = 0,
    ) -> bool:
        """Upload if the object's generation is still `generation` (0 = absent); whether it was."""
        try:
            call_storage(
                lambda timeout: blob.upload_from_string(
                    content,
                    content_type=content_type,
                    if_generation_match=generation,
                    checksum="crc32c",
                    timeout=timeout,
                    retry=None,
                ),
                name=blob.name,
                refusal=refusal,
                scope=scope,
            )
        except google_errors.PreconditionFailed:
            return False
        return True

    def read_candles(self, uri: str | None, *, scope: CancelScope) -> bytes:
        """The bytes of an OHLCV JSON file.

        Raises:
            OhlcvUnavailable: There is no URI, it names nothing that can be read, or the file is too large.
            BackendUnavailable: Cloud Storage stays away.
            StepTimedOut: The step's time is over.
            WorkerError: What the step was stopped with.
        """
        match = GS_URI.fullmatch(uri or "")
        if match is None:
            raise OhlcvUnavailable(
                "Candles: expected gs://bucket/object in inputs.ohlcv_gcs_uri or in outputs.gcs_uri of the "
                f"OHLCV_EXPORT step of the same timeframe in dependsOn, got {shown(uri)}."
            )
        blob = self._client.bucket(match["bucket"]).blob(match["name"])
        content: bytes = call_storage(
            lambda timeout: blob.download_as_bytes(end=MAX_CANDLE_BYTES, timeout=timeout, retry=None),
            name=str(uri),
            refusal=OhlcvUnavailable,
            scope=scope,
        )
        if len(content) > MAX_CANDLE_BYTES:
            raise OhlcvUnavailable(f"Candles {uri}: expected at most {MAX_CANDLE_BYTES} bytes.", uri=uri)
        return content


def _crc32c(content: bytes) -> str:
    """As Cloud Storage writes it: base64 of the big-endian checksum."""
    return base64.b64encode(google_crc32c.value(content).to_bytes(4, "big")).decode()
