"""Objects in the charts bucket: their names (pure), create-only uploads, and reads of candles.

The only owner of the Cloud Storage client. A chart upload that finds its object there already is a success:
every attempt of a step uses the same names.
"""

from __future__ import annotations

import base64
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import google_crc32c
import requests
from google.api_core import exceptions as google_errors
from google.auth import exceptions as auth_errors
from google.cloud.storage.exceptions import DataCorruption, InvalidResponse
from google.cloud.storage.retry import DEFAULT_RETRY

from worker_chart_export.errors import (
    BackendUnavailable,
    ManifestRefused,
    ObjectRefused,
    OhlcvUnavailable,
    RequestError,
    shown,
)
from worker_chart_export.retry import TRANSIENT, full_jitter_seconds, plain_words

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from google.api_core.retry import Retry

    from worker_chart_export.budget import StepBudget

#: One request's own time limits, in seconds: to connect, and between bytes.
REQUEST_TIMEOUT_SECONDS = (5.0, 30.0)
#: A manifest that somebody else keeps replacing is written this often at most.
MAX_MANIFEST_TURNS = 5
#: What the statuses of a refusal mean to a person.
REFUSALS = {
    400: "it takes no such name or content",
    401: "the credentials are not accepted",
    403: "this account may not",
    404: "there is no such object or bucket",
    416: "the object is empty",
}
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

    def png_name(self, *, started_at: datetime, symbol: str, timeframe: str, template_id: str) -> str:
        """A chart's object name; the same for every attempt, because `started_at` is the first claim's."""
        return f"{self.prefix}{started_at:%Y%m%d-%H%M%S}_{symbol}_{timeframe}_{template_id}.png"


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

    def upload_png(self, name: str, png: bytes, *, metadata: Mapping[str, str], budget: StepBudget) -> str:
        """Create the object, or find that it exists; returns its URI.

        Raises:
            ObjectRefused: Cloud Storage refuses it.
            BackendUnavailable: Cloud Storage stays away.
            StepTimedOut: The step's time is over; nothing was uploaded.
        """
        budget.check()
        blob = self._bucket.blob(name)
        blob.metadata = dict(metadata)
        with _storage_errors(ObjectRefused, name):
            self._upload(blob, png, "image/png", budget)
        return self.uri(name)

    def write_manifest(self, name: str, content: bytes, *, budget: StepBudget) -> str:
        """Write the manifest by compare-and-swap and return its URI.

        Equal content found there is our own retry after a lost answer; other content is the manifest of an
        earlier attempt and is replaced, if it is still the one that was looked at.

        Raises:
            ManifestRefused: Cloud Storage refuses it.
            BackendUnavailable: Cloud Storage stays away.
            WorkerError: What the budget was stopped with; nothing was written.
        """
        budget.check_stopped()
        blob, generation, turns = self._bucket.blob(name), 0, 0
        with _storage_errors(ManifestRefused, name):
            while not self._upload(blob, content, "application/json", budget, generation=generation):
                present = self._bucket.get_blob(
                    name, timeout=REQUEST_TIMEOUT_SECONDS, retry=_retry_within(budget)
                )
                if present is not None and present.crc32c == _crc32c(content):
                    break
                generation = present.generation if present else 0
                turns += 1
                if turns == MAX_MANIFEST_TURNS:
                    raise ManifestRefused(f"{name} was replaced by somebody else {turns} times over.")
                budget.sleep(full_jitter_seconds(least=0.05, most=0.5))
        return self.uri(name)

    def _upload(
        self, blob: Any, content: bytes, content_type: str, budget: StepBudget, *, generation: int = 0
    ) -> bool:
        """Upload if the object's generation is still `generation` (0 = absent); whether it was."""
        try:
            blob.upload_from_string(
                content,
                content_type=content_type,
                if_generation_match=generation,
                checksum="crc32c",
                timeout=REQUEST_TIMEOUT_SECONDS,
                retry=_retry_within(budget),
            )
        except google_errors.PreconditionFailed:
            return False
        return True

    def read_candles(self, uri: str | None, *, budget: StepBudget) -> bytes:
        """The bytes of an OHLCV JSON file.

        Raises:
            OhlcvUnavailable: There is no URI, it names nothing that can be read, or the file is too large.
            BackendUnavailable: Cloud Storage stays away.
        """
        match = GS_URI.fullmatch(uri or "")
        if match is None:
            raise OhlcvUnavailable(
                "Candles: expected gs://bucket/object in inputs.ohlcv_gcs_uri or in outputs.gcs_uri of the "
                f"OHLCV_EXPORT step of the same timeframe in dependsOn, got {shown(uri)}."
            )
        budget.check()
        blob = self._client.bucket(match["bucket"]).blob(match["name"])
        with _storage_errors(OhlcvUnavailable, str(uri)):
            content: bytes = blob.download_as_bytes(
                end=MAX_CANDLE_BYTES,
                timeout=REQUEST_TIMEOUT_SECONDS,
                retry=_retry_within(budget),
            )
        if len(content) > MAX_CANDLE_BYTES:
            raise OhlcvUnavailable(f"Candles {uri}: expected at most {MAX_CANDLE_BYTES} bytes.", uri=uri)
        return content


def _retry_within(budget: StepBudget) -> Retry:
    policy: Retry = DEFAULT_RETRY.with_timeout(budget.remaining_seconds())
    return policy


def _crc32c(content: bytes) -> str:
    """As Cloud Storage writes it: base64 of the big-endian checksum."""
    return base64.b64encode(google_crc32c.value(content).to_bytes(4, "big")).decode()


@contextmanager
def _storage_errors(refusal: type[RequestError], name: str) -> Iterator[None]:
    """Tell an absent Cloud Storage (give the step back) from one that refuses (this request fails)."""
    try:
        yield
    except (*TRANSIENT, DataCorruption, requests.exceptions.RequestException) as error:
        raise BackendUnavailable("storage", plain_words(error)) from error
    except (google_errors.GoogleAPICallError, InvalidResponse, auth_errors.GoogleAuthError) as error:
        status = getattr(error, "code", None)
        why = REFUSALS.get(int(status or 0), type(error).__name__)
        raise refusal(
            f"Cloud Storage refused {name}: {why} ({status}).",
            object=name,
            httpStatus=status,
            storage=plain_words(error),
        ) from error
