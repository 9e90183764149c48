"""Objects in the charts bucket: names, uploads that happen once, candles."""

from __future__ import annotations

import gc
import gzip
import threading
import time
import tracemalloc
from dataclasses import replace
from datetime import timedelta

import pytest
from google.cloud.storage import Blob

from localcloud import Fault
from localcloud.storage.preconditions import Preconditions
from tests.support.fakes import BUCKET, NOON, RUN_ID, STEP_ID, png_bytes, scope_of
from worker_chart_export.errors import (
    BackendUnavailable,
    BucketUnusable,
    Interrupted,
    ManifestRefused,
    ObjectRefused,
    OhlcvUnavailable,
    StepTimedOut,
    ValidationFailed,
    shown,
)
from worker_chart_export.inputs.export_request import ExportRequest
from worker_chart_export.outputs.artifact_store import ArtifactStore, StepFolder, StoredPng
from worker_chart_export.outputs.bucket_probe import PROBE_SECONDS

pytestmark = pytest.mark.usefixtures("short_backoff")

NAME = "charts/r/s/20251215-120000_IBM_1d_ctpl_a.png"
MANIFEST = "charts/r/s/manifest.json"
METADATA = {"runId": "r", "stepId": "s", "chartTemplateId": "ctpl_a", "provider": "mock"}
PNG = png_bytes(4, 4)
EXPORT = ExportRequest(
    symbol="IBM", timeframe="1d", interval="1D", template_ids=("ctpl_a",), min_images=1, ohlcv_uri=None
)


@pytest.fixture
def store(objects):
    """Return the artifact store of a worker on the test's own cloud."""
    return ArtifactStore(client=objects, bucket=BUCKET)


def _stored(objects, name: str) -> bytes:
    return objects.bucket(BUCKET).blob(name).download_as_bytes()


def _upload(store: ArtifactStore, *, content: bytes = PNG, seconds: float = 30) -> str:
    return store.upload_png(NAME, content, metadata=METADATA, scope=scope_of(seconds))


def _write(store: ArtifactStore, content: bytes, *, seconds: float = 30) -> str:
    return store.write_manifest(MANIFEST, content, scope=scope_of(seconds), confirm_lease=_ours)


def _ours() -> None:
    """Confirm the lease."""


def _lose_lease() -> None:
    """Raise a lost lease."""
    raise Interrupted("lease lost")


def test_a_probe_of_an_unreachable_service_reports_it(store, cloud):
    """The probe of an unreachable service reports it as unavailable, not as a failing probe."""
    cloud.storage.stop()
    with pytest.raises(BackendUnavailable):
        store.probe()


def test_the_client_gets_the_time_that_is_left_and_repeats_nothing(store, objects, monkeypatch):
    """The waits and retries of Google's client could not be stopped."""
    calls = []

    def spy(owner: object, name: str) -> None:
        real = getattr(owner, name)

        def call(*arguments: object, timeout: object, retry: object, **more: object) -> object:
            calls.append((name, timeout, retry))
            return real(*arguments, timeout=timeout, retry=retry, **more)

        monkeypatch.setattr(owner, name, call)

    spy(objects, "list_blobs")
    spy(store._bucket, "get_blob")
    spy(Blob, "delete")
    store.probe()
    assert store.read_manifest(MANIFEST, scope=scope_of(60)) is None
    _write(store, b"earlier", seconds=60)
    _write(store, b"ours", seconds=60)
    assert store.read_manifest(MANIFEST, scope=scope_of(60)) == b"ours"
    store.stored_pngs(StepFolder("r", "s"), started_at=NOON, scope=scope_of(60))
    names, timeouts, retries = zip(*calls, strict=True)
    assert names == ("delete", "get_blob", "get_blob", "get_blob", "list_blobs")
    assert (timeouts, retries) == ((PROBE_SECONDS, *[pytest.approx((5, 30), abs=3)] * 4), (None,) * 5)


class TestNames:
    """Object names: pure functions, equal for every attempt."""

    def test_a_chart_s_name(self):
        """A chart's name follows section 9 of the contract."""
        name = StepFolder(RUN_ID, STEP_ID).png_name(
            started_at=NOON, symbol="BTCUSDT", timeframe="1d", template_id="ctpl_a"
        )
        assert name == f"charts/{RUN_ID}/{STEP_ID}/20251215-120000_BTCUSDT_1d_ctpl_a.png"

    def test_a_manifest_s_name(self):
        """A manifest's name is beside its charts."""
        folder = StepFolder(RUN_ID, STEP_ID)
        assert folder.manifest_name == f"charts/{RUN_ID}/{STEP_ID}/manifest.json"

    @pytest.mark.parametrize(("last", "is_allowed"), [("e", True), ("é", False)])
    def test_a_name_may_have_1024_bytes(self, last, is_allowed):
        """A name of 1,024 bytes of UTF-8 is allowed; a longer one is refused with the room for the symbol."""
        folder = StepFolder("20251215-102615_" + "A" * 99 + "_abc123", "s" * 256)
        export = replace(EXPORT, symbol="\U0001f600" * 121 + last, template_ids=("a", "t" * 128, "b"))
        if is_allowed:
            folder.check_names(export, started_at=NOON)
            return
        with pytest.raises(ValidationFailed) as caught:
            folder.check_names(export, started_at=NOON)
        assert caught.value.message == (
            "scope.symbol: expected at most 485 bytes of UTF-8, so that the charts' object names "
            "have at most 1024, got 486."
        )
        assert caught.value.details == {"field": "scope.symbol", "objectNameBytes": 1025}


class TestPng:
    """Create-only uploads."""

    def test_an_upload_is_named_typed_and_labelled(self, store, objects):
        """An upload has its name, content type and metadata for readers and later attempts."""
        assert _upload(store) == f"gs://{BUCKET}/{NAME}"
        blob = objects.bucket(BUCKET).get_blob(NAME)
        assert (blob.content_type, blob.metadata) == ("image/png", METADATA)
        assert _stored(objects, NAME) == PNG

    def test_a_second_upload_succeeds_and_changes_nothing(self, store, objects):
        """A second upload succeeds and leaves the first attempt's object unchanged."""
        _upload(store)
        assert _upload(store, content=b"another") == f"gs://{BUCKET}/{NAME}"
        assert _stored(objects, NAME) == PNG

    def test_odd_step_ids_make_odd_names_that_work(self, store, objects):
        """Step ids with unusual characters make names that are quoted correctly in URLs."""
        name = StepFolder(RUN_ID, "a b#?%2e&ünï\\").manifest_name
        assert (
            store.write_manifest(name, b"{}", scope=scope_of(), confirm_lease=_ours)
            == f"gs://{BUCKET}/{name}"
        )
        assert [blob.name for blob in objects.list_blobs(BUCKET)] == [name]

    def test_an_upload_whose_answer_was_lost_is_repeated_and_succeeds(self, store, objects, cloud):
        """An upload after a lost response is repeated and finds its own object."""
        cloud.storage.faults.add(Fault(method="objects.insert", reset=True, after_effect=True, times=1))
        _upload(store)
        assert _stored(objects, NAME) == PNG
        assert cloud.storage.calls["objects.insert"] == 2

    @pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
    def test_a_listing_is_repeated_while_storage_is_unavailable(self, store, objects, cloud, status):
        """An upload is repeated within the step's time while Storage is unavailable."""
        cloud.storage.faults.add(Fault(method="objects.insert", error=status, times=1))
        _upload(store)
        assert _stored(objects, NAME) == PNG

    def test_a_manifest_on_an_unavailable_storage_fails_in_time(self, store, cloud):
        """A Storage that stays unavailable fails within the limit, not after the client's two minutes."""
        cloud.storage.faults.add(Fault(method="objects.insert", error=503))
        started = time.monotonic()
        with pytest.raises(BackendUnavailable, match=r"^storage is unavailable") as caught:
            _upload(store, seconds=1)
        assert time.monotonic() - started < 6
        assert caught.value.backend == "storage"

    @pytest.mark.parametrize("status", [403, 404])
    def test_a_refusal_that_not_every_server_gives_costs_no_chart(self, store, cloud, status):
        """While permissions change, one server of Cloud Storage refuses what the next one takes."""
        cloud.storage.faults.add(Fault(method="objects.insert", match=NAME, error=status, times=1))
        assert _upload(store) == f"gs://{BUCKET}/{NAME}"

    @pytest.mark.parametrize("status", [400, 401, 403, 404])
    def test_a_refusal_fails_the_request(self, store, cloud, status):
        """A refusal fails the request, with the status and the object. 403 and 404 are tried twice."""
        cloud.storage.faults.add(
            Fault(method="objects.insert", match=NAME, error=status, message="not for you")
        )
        with pytest.raises(ObjectRefused, match=r"^Cloud Storage refused") as caught:
            _upload(store)
        assert caught.value.details["object"] == f"gs://{BUCKET}/{NAME}"
        attempts = 2 if status in (403, 404) else 1
        assert cloud.storage.calls["objects.insert"] == attempts + 1  # the probe

    @pytest.mark.parametrize("status", [400, 401, 403, 404])
    def test_a_refusal_of_every_object_concerns_the_bucket(self, store, cloud, status):
        """When the bucket takes no other object either, the refusal is the worker's own misconfiguration."""
        cloud.storage.faults.add(Fault(method="objects.insert", error=status))
        with pytest.raises(BucketUnusable, match=rf"^gs://{BUCKET} takes no objects: ") as caught:
            _upload(store)
        assert caught.value.backend == "storage"

    def test_a_missing_bucket_takes_no_objects(self, objects):
        """A missing bucket is named as such."""
        with pytest.raises(
            BucketUnusable, match=r"^gs://no-such-bucket .*: there is no such bucket \(404\)$"
        ):
            _upload(ArtifactStore(client=objects, bucket="no-such-bucket"))

    def test_a_dead_server_is_unavailable(self, store, cloud):
        """A server that does not listen is unavailable."""
        cloud.storage.stop()
        with pytest.raises(BackendUnavailable):
            _upload(store, seconds=0.5)

    def test_the_lease_is_checked_before_each_attempt(self, store, cloud):
        """The lease is checked before each attempt, because it can end during an outage."""
        scope = scope_of()
        scope.guard(lambda: _lose_lease() if cloud.storage.calls["objects.insert"] else None)
        cloud.storage.faults.add(Fault(method="objects.insert", error=503))
        with pytest.raises(Interrupted, match=r"lease lost"):
            store.upload_png(NAME, PNG, metadata=METADATA, scope=scope)
        assert cloud.storage.calls["objects.insert"] == 1

    def test_a_lost_lease_uploads_nothing(self, store, cloud):
        """A process that wakes after its lease ended uploads nothing."""
        scope = scope_of()
        scope.guard(_lose_lease)
        with pytest.raises(Interrupted, match=r"lease lost"):
            store.upload_png(NAME, PNG, metadata=METADATA, scope=scope)
        assert cloud.storage.calls["objects.insert"] == 0

    def test_nothing_is_uploaded_after_the_time(self, store, cloud):
        """Nothing is uploaded after the step's time."""
        with pytest.raises(StepTimedOut):
            _upload(store, seconds=0)
        assert cloud.storage.calls["objects.insert"] == 0


class TestStoredPngs:
    """The charts that earlier attempts have paid for."""

    FOLDER = StepFolder("r", "s")

    def _stored(self, store: ArtifactStore, *, seconds: float = 30) -> dict[str, StoredPng]:
        return store.stored_pngs(self.FOLDER, started_at=NOON, scope=scope_of(seconds))

    def test_a_chart_is_found_with_its_metadata(self, store, cloud):
        """A stored chart is found with its metadata by one listing."""
        _upload(store)
        assert self._stored(store) == {NAME: StoredPng(f"gs://{BUCKET}/{NAME}", METADATA, len(PNG))}
        assert cloud.storage.calls["objects.list"] == 1

    def test_a_first_attempt_finds_no_charts(self, store):
        """A first attempt finds no charts."""
        assert self._stored(store) == {}

    def test_only_charts_of_this_start_are_found(self, store):
        """Only charts of this start of this step are found."""
        scope = scope_of()
        others = [
            self.FOLDER.png_name(
                started_at=NOON + timedelta(seconds=1), symbol="IBM", timeframe="1d", template_id="ctpl_a"
            ),
            NAME.replace("/s/", "/s2/"),
            NAME.replace("/r/", "/r2/"),
            NAME.replace(".png", ".json"),
        ]
        for name in [NAME, *others]:
            store.upload_png(name, PNG, metadata=METADATA, scope=scope)
        _write(store, b"{}")
        assert list(self._stored(store)) == [NAME]

    def test_a_chart_without_metadata_is_found_too(self, store, objects):
        """A chart without metadata is found too."""
        objects.bucket(BUCKET).blob(NAME).upload_from_string(PNG)
        assert self._stored(store)[NAME].metadata == {}

    @pytest.mark.parametrize("status", [403, 404])
    def test_a_refusal_is_one_of_objects(self, store, cloud, status):
        """A refused listing is the error for objects, because listing is a separate permission."""
        cloud.storage.faults.add(Fault(method="objects.list", error=status))
        with pytest.raises(ObjectRefused) as caught:
            self._stored(store)
        assert caught.value.details["httpStatus"] == status

    def test_a_listing_is_repeated_while_storage_is_unavailable(self, store, cloud):
        """The listing is repeated within the step's time while Storage is unavailable."""
        _upload(store)
        cloud.storage.faults.add(Fault(method="objects.list", error=503, times=1))
        assert list(self._stored(store)) == [NAME]

    def test_candles_of_an_unavailable_storage_are_an_outage(self, store, cloud):
        """When Storage stays unavailable the listing raises an outage, so that the step is released."""
        cloud.storage.faults.add(Fault(method="objects.list", error=503))
        with pytest.raises(BackendUnavailable):
            self._stored(store, seconds=1)


class TestManifest:
    """The manifest is written last, by compare-and-swap."""

    def test_a_manifest_is_written(self, store, objects):
        """A manifest is stored as JSON."""
        assert _write(store, b'{"a":1}') == f"gs://{BUCKET}/{MANIFEST}"
        assert objects.bucket(BUCKET).get_blob(MANIFEST).content_type == "application/json"
        assert _stored(objects, MANIFEST) == b'{"a":1}'

    def test_a_lost_answer_is_our_own_retry(self, store, objects, cloud):
        """A stored manifest with equal content is our own and is not written again."""
        cloud.storage.faults.add(Fault(method="objects.insert", reset=True, after_effect=True, times=1))
        _write(store, b"ours")
        assert objects.bucket(BUCKET).get_blob(MANIFEST).metageneration == 1
        assert cloud.storage.calls["objects.insert"] == 2

    def test_the_manifest_of_an_earlier_attempt_is_replaced(self, store, objects):
        """The manifest of an earlier attempt is replaced on condition of its generation."""
        _write(store, b"theirs")
        _write(store, b"ours")
        assert _stored(objects, MANIFEST) == b"ours"

    def test_a_manifest_changed_in_between_is_read_again(self, store, objects, cloud):
        """When another writer changes the manifest the swap fails and is repeated with a new read."""
        _write(store, b"first")

        def interfere(_request: object) -> None:
            cloud.storage.objects.insert(BUCKET, {"name": MANIFEST}, b"second", Preconditions())

        cloud.storage.faults.add(Fault(method="objects.insert", before=interfere, skip=1, times=1))
        _write(store, b"ours")
        assert _stored(objects, MANIFEST) == b"ours"
        assert cloud.storage.calls["objects.insert"] == 4

    def test_a_manifest_deleted_in_between_is_written(self, store, objects, cloud):
        """A manifest that was deleted in between is created."""
        _write(store, b"first")
        gone = Fault(
            method="objects.get",
            before=lambda _request: objects.bucket(BUCKET).blob(MANIFEST).delete(),
            times=1,
        )
        cloud.storage.faults.add(gone)
        _write(store, b"ours")
        assert _stored(objects, MANIFEST) == b"ours"

    def test_of_two_writers_at_once_one_manifest_stays(self, store, objects):
        """Two simultaneous writers both end, and one complete manifest is stored."""
        start = threading.Barrier(2)

        def write(content: bytes) -> None:
            start.wait()
            _write(store, content)

        threads = [threading.Thread(target=write, args=(content,)) for content in (b"one", b"two")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert _stored(objects, MANIFEST) in {b"one", b"two"}

    @pytest.mark.parametrize("method", ["objects.insert", "objects.get"])
    @pytest.mark.parametrize("status", [403, 400])
    def test_a_refusal_has_the_manifest_s_own_code(self, store, cloud, method, status):
        """A refusal has the manifest's own code, also when the read is refused."""
        _write(store, b"first")
        cloud.storage.faults.add(Fault(method=method, match=MANIFEST, error=status))
        with pytest.raises(ManifestRefused):
            _write(store, b"ours")

    @pytest.mark.parametrize("method", ["objects.insert", "objects.get"])
    def test_a_manifest_on_an_unavailable_storage_fails_in_time(self, store, cloud, method, monkeypatch):
        """Each call of a manifest write fails within the time limit when Storage stays unavailable."""
        monkeypatch.setattr("worker_chart_export.outputs.artifact_store.MIN_MANIFEST_SECONDS", 2.0)
        _write(store, b"first")
        cloud.storage.faults.add(Fault(method=method, error=503))
        started = time.monotonic()
        with pytest.raises(BackendUnavailable):
            _write(store, b"ours", seconds=1)
        assert time.monotonic() - started < 6

    def test_a_step_out_of_time_still_gets_its_manifest(self, store, objects):
        """A step whose time ended still writes its manifest with the missing charts."""
        _write(store, b"ours", seconds=0)
        assert _stored(objects, MANIFEST) == b"ours"

    def test_a_step_out_of_time_still_tries_a_few_times(self, store, objects, cloud):
        """A step whose time ended still repeats the write, so a short outage does not lose its charts."""
        cloud.storage.faults.add(Fault(method="objects.insert", error=503, times=2))
        _write(store, b"ours", seconds=0)
        assert _stored(objects, MANIFEST) == b"ours"

    def test_a_storage_too_slow_is_no_timeout_of_the_step(self, store, cloud, monkeypatch):
        """A too slow Storage is an outage, so the step is released and does not time out."""
        monkeypatch.setattr("worker_chart_export.outputs.artifact_store.MIN_MANIFEST_SECONDS", 0.3)
        _write(store, b"first")
        cloud.storage.faults.add(Fault(method="objects.insert", delay_seconds=0.5))
        with pytest.raises(BackendUnavailable, match=r"^storage is .*too slow"):
            _write(store, b"ours", seconds=0)

    def test_a_manifest_that_others_replace_again_and_again_is_given_up(self, store, cloud, monkeypatch):
        """The second attempt comes at once, because it is the usual one; a wait comes before the others."""
        drawn = []
        monkeypatch.setattr(
            "worker_chart_export.outputs.artifact_store.full_jitter_seconds",
            lambda *, low, high: drawn.append((low, high)) or 0.0,
        )

        def interfere(_request: object) -> None:
            content = f"others' {len(drawn)}".encode()
            cloud.storage.objects.insert(BUCKET, {"name": MANIFEST}, content, Preconditions())

        cloud.storage.faults.add(Fault(method="objects.insert", before=interfere))
        with pytest.raises(ManifestRefused, match=r"was replaced by another writer 5 times"):
            _write(store, b"ours")
        assert drawn == [(0.05, 0.5)] * 3
        assert cloud.storage.calls["objects.insert"] == 5

    def test_a_lost_lease_replaces_nothing(self, store, objects):
        """Without the lease the stored manifest is not replaced: it may be the winner's."""
        _write(store, b"winner's")
        generation = objects.bucket(BUCKET).get_blob(MANIFEST).generation
        with pytest.raises(Interrupted, match=r"lease lost"):
            store.write_manifest(MANIFEST, b"ours", scope=scope_of(), confirm_lease=_lose_lease)
        blob = objects.bucket(BUCKET).get_blob(MANIFEST)
        assert (blob.generation, _stored(objects, MANIFEST)) == (generation, b"winner's")

    def test_the_lease_is_read_after_the_stored_manifest(self, store, objects, cloud):
        """The lease is read after the stored manifest, so a winner changes the lease or the generation."""
        _write(store, b"earlier attempt's")
        order = []

        def note(_request: object) -> None:
            order.append("look")

        def winner_takes_over() -> None:
            order.append("lease")
            cloud.storage.objects.insert(BUCKET, {"name": MANIFEST}, b"winner's", Preconditions())
            if len(order) > 2:
                _lose_lease()

        cloud.storage.faults.add(Fault(method="objects.get", before=note, times=2))
        with pytest.raises(Interrupted, match=r"lease lost"):
            store.write_manifest(MANIFEST, b"ours", scope=scope_of(), confirm_lease=winner_takes_over)
        assert order == ["look", "lease", "look", "lease"]
        assert _stored(objects, MANIFEST) == b"winner's"

    def test_the_lease_is_not_read_for_a_first_manifest(self, store, objects):
        """A first manifest is written without a read of the lease, because a create never overwrites."""
        store.write_manifest(MANIFEST, b"ours", scope=scope_of(), confirm_lease=_lose_lease)
        assert _stored(objects, MANIFEST) == b"ours"

    def test_a_step_stopped_during_the_read_writes_nothing(self, store, objects):
        """A step that is stopped during the read writes nothing."""
        _write(store, b"earlier attempt's")
        scope = scope_of()
        with pytest.raises(Interrupted):
            store.write_manifest(
                MANIFEST, b"ours", scope=scope, confirm_lease=lambda: scope.stop(Interrupted("stop"))
            )
        assert _stored(objects, MANIFEST) == b"earlier attempt's"

    def test_a_stopped_step_writes_none(self, store, cloud):
        """A stopped step writes no manifest, because it may have lost its lease."""
        scope = scope_of()
        scope.stop(Interrupted("stop"))
        with pytest.raises(Interrupted):
            store.write_manifest(MANIFEST, b"ours", scope=scope, confirm_lease=_ours)
        assert cloud.storage.calls["objects.insert"] == 0


# Google's client leaves the connection of a download that failed to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
class TestCandles:
    """Reads of candle files."""

    @pytest.fixture(autouse=True)
    def _collected(self):
        """Collect the garbage here, so that the next test does not report a leaked connection."""
        yield
        gc.collect()

    def test_candles_are_read_from_any_bucket(self, store, objects):
        """Candles are read from any bucket, because the exporter may use another one."""
        objects.create_bucket("candles-unit").blob("a/b c#1.json").upload_from_string(b"[1]")
        assert store.read_candles("gs://candles-unit/a/b c#1.json", scope=scope_of()) == b"[1]"

    @pytest.mark.parametrize(
        "uri",
        [None, "", "gs://", "gs://b", "gs://b/", "http://b/x", "s3://bucket/x", "gs://B_U/x", "gs:///x", "x"],
    )
    def test_an_invalid_uri_is_reported(self, store, uri):
        """A value that is no URI is reported with the place where the URI was searched."""
        with pytest.raises(
            OhlcvUnavailable, match=r"expected gs://bucket/object in inputs\.ohlcv_gcs_uri"
        ) as caught:
            store.read_candles(uri, scope=scope_of())
        assert caught.value.message.endswith(f", got {shown(uri)}.")

    @pytest.mark.parametrize("uri", [f"gs://{BUCKET}/none.json", "gs://no-such-bucket/x.json"])
    def test_a_missing_file_is_unavailable_candles(self, store, uri):
        """A missing file fails its request as unavailable candles and is no outage."""
        with pytest.raises(
            OhlcvUnavailable, match=r"refused gs://.*: there is no such object or bucket \(404\)"
        ):
            store.read_candles(uri, scope=scope_of())

    def test_a_forbidden_file_is_unavailable_candles(self, store, cloud):
        """A forbidden file fails its request as unavailable candles with the status."""
        cloud.storage.faults.add(Fault(method="objects.download", error=403))
        with pytest.raises(OhlcvUnavailable) as caught:
            store.read_candles(f"gs://{BUCKET}/x.json", scope=scope_of())
        assert caught.value.details["httpStatus"] == 403
        assert caught.value.details["object"] == f"gs://{BUCKET}/x.json"

    def test_candles_of_an_unavailable_storage_are_an_outage(self, store, cloud):
        """When Storage stays unavailable a read of candles raises an outage."""
        cloud.storage.faults.add(Fault(method="objects.download", error=503))
        with pytest.raises(BackendUnavailable):
            store.read_candles(f"gs://{BUCKET}/x.json", scope=scope_of(1))

    def test_a_file_too_large_is_refused(self, store, objects, monkeypatch):
        """A too large file is refused without reading all of it."""
        monkeypatch.setattr("worker_chart_export.outputs.artifact_store.MAX_CANDLE_BYTES", 10)
        objects.bucket(BUCKET).blob("big.json").upload_from_string(b"x" * 50)
        with pytest.raises(OhlcvUnavailable, match=r"expected at most 10 bytes") as caught:
            store.read_candles(f"gs://{BUCKET}/big.json", scope=scope_of())
        assert caught.value.details == {"uri": f"gs://{BUCKET}/big.json"}

    @pytest.mark.parametrize("encoding", ["gzip", ""])
    def test_gzip_is_returned_as_it_is_stored(self, store, objects, encoding):
        """A file that is stored as gzip is not expanded, whether its metadata says so or not."""
        blob = objects.bucket(BUCKET).blob("packed.json")
        blob.content_encoding = encoding or None
        content = gzip.compress(b"[1") + gzip.compress(b"]")
        blob.upload_from_string(content)
        assert store.read_candles(f"gs://{BUCKET}/packed.json", scope=scope_of()) == content

    def test_gzip_is_expanded_up_to_the_limit(self, store, objects):
        """Of a small file that expands to much no more than the limit is expanded."""
        blob = objects.bucket(BUCKET).blob("packed.json")
        blob.content_encoding = "gzip"
        blob.upload_from_string(gzip.compress(b" " * 100_000_000))
        tracemalloc.start()
        try:
            with pytest.raises(OhlcvUnavailable, match=r"expected at most 16777216 bytes"):
                store.read_candles(f"gs://{BUCKET}/packed.json", scope=scope_of())
            assert tracemalloc.get_traced_memory()[1] < 40_000_000
        finally:
            tracemalloc.stop()

    @pytest.mark.parametrize(
        "content",
        [gzip.compress(b"[1]" * 99)[:-9], b"\x1f\x8b", gzip.compress(b"[1]")[:-8] + b"12345678"],
        ids=["cut off", "two bytes", "wrong checksum"],
    )
    def test_broken_gzip_is_no_outage(self, store, objects, content):
        """A file that only starts like gzip fails its requests at once."""
        objects.bucket(BUCKET).blob("packed.json").upload_from_string(content)
        with pytest.raises(OhlcvUnavailable, match="not the gzip that it starts as") as caught:
            store.read_candles(f"gs://{BUCKET}/packed.json", scope=scope_of())
        assert caught.value.details == {"uri": f"gs://{BUCKET}/packed.json"}

    def test_one_large_file_at_a_time(self, store, objects, monkeypatch):
        """A second large file is read when the first one's scope is stopped; small ones don't wait."""
        monkeypatch.setattr("worker_chart_export.outputs.artifact_store.LARGE_CANDLE_BYTES", 10)
        objects.bucket(BUCKET).blob("large.json").upload_from_string(b"x" * 11)
        objects.bucket(BUCKET).blob("small.json").upload_from_string(b"x" * 10)
        first, second, third = scope_of(), scope_of(), scope_of(0.5)
        assert len(store.read_candles(f"gs://{BUCKET}/large.json", scope=first)) == 11
        assert len(store.read_candles(f"gs://{BUCKET}/small.json", scope=third)) == 10
        with pytest.raises(StepTimedOut):
            store.read_candles(f"gs://{BUCKET}/large.json", scope=third)
        first.stop(Interrupted("done"))
        assert len(store.read_candles(f"gs://{BUCKET}/large.json", scope=second)) == 11

    def test_an_empty_file_reads_as_candles_that_are_not_there(self, store, objects):
        """An empty file, for which Storage returns 416, reads as missing candles."""
        objects.bucket(BUCKET).blob("empty.json").upload_from_string(b"")
        try:
            content = store.read_candles(f"gs://{BUCKET}/empty.json", scope=scope_of())
        except OhlcvUnavailable:
            return
        assert content == b""

    def test_nothing_is_read_after_the_time(self, store, cloud):
        """Nothing is read after the step's time."""
        with pytest.raises(StepTimedOut):
            store.read_candles(f"gs://{BUCKET}/x.json", scope=scope_of(0))
        assert cloud.storage.calls["objects.download"] == 0
