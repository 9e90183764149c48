"""One step from claim to finalize, on the embedded Firestore and Storage."""

from __future__ import annotations

import threading
from unittest.mock import ANY

from localcloud import Fault
from tests.support.fakes import BUCKET, RUN_ID, STEP_ID, chart_step, png_bytes
from tests.support.pipeline_bench import MANIFEST_NAME, MANIFEST_URI, NAMES, TERMS, template_ids
from worker_chart_export.execution.outcome import OutcomeKind


class TestSuccess:
    """A step that succeeds: charts, manifest, SUCCEEDED."""

    def test_a_step_is_exported_whole(self, bench):
        """The step names the manifest, the manifest names the charts, and the charts exist."""
        bench.put("ctpl_a", "ctpl_b")
        outcome = bench.run()
        assert (outcome.kind, outcome.items, outcome.failures) == (OutcomeKind.SUCCEEDED, 2, 0)
        step = bench.step()
        assert (step["status"], step["outputs"]) == (
            "SUCCEEDED",
            {"outputsManifestGcsUri": MANIFEST_URI, "gcs_uri": MANIFEST_URI},
        )
        uris = [item["png_gcs_uri"] for item in bench.manifest()["items"]]
        assert sorted(uri.removeprefix(f"gs://{BUCKET}/") for uri in uris) == bench.names()[:-1]
        assert bench.names()[-1] == MANIFEST_NAME

    def test_only_the_closed_step_object_is_written(self, bench):
        """Only the step object of the schema is written, and nothing else in the run."""
        bench.put("ctpl_a")
        before = bench.run_reference.get().to_dict()
        bench.run()
        after = bench.run_reference.get().to_dict()
        changed = {
            key
            for key in after["steps"][STEP_ID]
            if after["steps"][STEP_ID][key] != before["steps"][STEP_ID].get(key)
        }
        assert changed == {"status", "finishedAt", "outputs"}
        del before["steps"][STEP_ID], after["steps"][STEP_ID]
        assert after == before

    def test_items_have_their_provider(self, bench):
        """`meta` has `provider`, the time of the template's last change, and the provider's own entries."""
        bench.put("ctpl_a")
        bench.run()
        (item,) = bench.manifest()["items"]
        assert item["meta"] == {
            "fixture": "none",
            "provider": "mock",
            "templateVersion": bench.template_version("ctpl_a"),
            "attempt": 1,
            "owner": ANY,
        }
        assert item["kind"] == "price + volume"
        stamp = item["png_gcs_uri"].rpartition("/")[2][:15]
        assert item["generatedAt"].replace("-", "").replace(":", "").replace("T", "-")[:15] == stamp

    def test_objects_are_labelled(self, bench):
        """Objects have metadata for later attempts and for people."""
        bench.put("ctpl_a")
        bench.run()
        blob = bench.objects.bucket(BUCKET).get_blob(bench.names()[0])
        assert blob.metadata == {
            "runId": RUN_ID,
            "stepId": STEP_ID,
            "chartTemplateId": "ctpl_a",
            "provider": "mock",
            "templateVersion": bench.template_version("ctpl_a"),
        }

    def test_the_manifest_is_the_last_object_and_written_once(self, bench):
        """The manifest is the last object and is written once, so its readers find all charts."""
        bench.put(*NAMES)
        bench.run()
        blobs = {blob.name: blob.generation for blob in bench.objects.list_blobs(BUCKET)}
        assert max(blobs, key=lambda name: blobs[name]) == MANIFEST_NAME
        assert bench.cloud.storage.calls["objects.insert"] == len(NAMES) + 1

    def test_the_requested_order_is_kept(self, bench):
        """The items have the requested order, also when the first chart is the last one made."""
        last_is_done = threading.Event()

        def first(_request):
            assert last_is_done.wait(10)
            return png_bytes()

        def last(_request):
            last_is_done.set()
            return png_bytes()

        bench.provider.script = {"ctpl_b": first, "ctpl_a": last}
        bench.put("ctpl_b", "ctpl_c", "ctpl_a")
        bench.run()
        assert template_ids(bench.manifest()) == (["ctpl_b", "ctpl_c", "ctpl_a"], [])

    def test_requests_are_made_in_parallel_up_to_the_limit(self, bench):
        """As many charts are made in parallel as the limit allows, and no more."""
        inside, together, lock = 0, threading.Barrier(2), threading.Lock()
        most = 0

        def make(_request):
            nonlocal inside, most
            with lock:
                inside += 1
                most = max(most, inside)
            together.wait(10)
            with lock:
                inside -= 1
            return png_bytes()

        bench.provider.script = dict.fromkeys(NAMES[:4], make)
        bench.put(*NAMES[:4])
        bench.run(concurrency=2)
        assert most == 2
        assert bench.step()["status"] == "SUCCEEDED"

    def test_every_line_of_a_step_carries_its_ids(self, bench, log_lines):
        """Every log line of a step has its ids, also in chart threads; attempt and owner follow the claim."""
        bench.put("ctpl_a", "ctpl_missing", min_images=1)
        bench.run()
        lines = log_lines()
        assert {(line["runId"], line["stepId"]) for line in lines} == {(RUN_ID, STEP_ID)}
        assert {line["attempt"] for line in lines if line["event"] != "claim_attempt"} == {1}
        assert len({line["owner"] for line in lines if line["event"] != "claim_attempt"}) == 1
        assert [
            line["event"] for line in lines if line["event"] in {"manifest_written", "step_completed"}
        ] == [
            "manifest_written",
            "step_completed",
        ]


class TestLease:
    """The lease exists during the work and not after it."""

    def test_the_lease_of_a_step_is_deleted_when_it_ends(self, bench):
        """The claim writes the lease, heartbeats renew it, and the finalize deletes it."""
        seen = []

        def make(_request):
            seen.extend((bench.lease(), [held.step_id for held in bench.heartbeats.held()]))
            return png_bytes()

        bench.provider.script = {"ctpl_a": make}
        bench.put("ctpl_a")
        pipeline = bench.pipeline()
        pipeline.run(RUN_ID, STEP_ID, scope=pipeline.new_scope(), message_id="m1")
        lease, held = seen
        assert (lease.attempt, lease.released, lease.message_id, held) == (1, 0, "m1", [STEP_ID])
        assert (lease.expires_at - lease.acquired_at).total_seconds() == TERMS.lease_seconds
        assert (bench.lease(), bench.heartbeats.held()) == (None, [])

    def test_a_failed_step_leaves_no_lease_either(self, bench):
        """A failed step leaves no lease, also when it failed before anything was paid for."""
        bench.put("ctpl_a", min_images=2)
        bench.run()
        assert (bench.step()["status"], bench.lease()) == ("FAILED", None)

    def test_an_uncontended_step_costs_one_read_and_two_commits(self, bench):
        """A step without contention needs the handler's read, one template read and two commits."""
        bench.put("ctpl_a")
        pipeline = bench.pipeline()
        snapshot = pipeline._ledger.read(RUN_ID)
        before = bench.cloud.firestore.calls.as_dict()
        pipeline.run(RUN_ID, STEP_ID, scope=pipeline.new_scope(), snapshot=snapshot)
        after = bench.cloud.firestore.calls.as_dict()
        cost = {name: count - before.get(name, 0) for name, count in after.items()}
        assert {name: count for name, count in cost.items() if count} == {
            "BatchGetDocuments": 1,
            "Commit": 2,
        }
        assert bench.step()["status"] == "SUCCEEDED"

    def test_a_step_that_ended_too_many_workers_is_failed(self, bench, log_lines):
        """A step that ended too many workers is failed without work, lease or manifest."""
        bench.put("ctpl_a", status="RUNNING")
        bench.put_lease(attempt=7, released=2)
        outcome = bench.run()
        assert (outcome.kind, outcome.reason) == (OutcomeKind.CLAIM_LOST, "crash_loop")
        error = bench.step()["error"]
        assert (error["code"], error["details"]["attempt"]) == ("CRASH_LOOP", 7)
        assert (bench.provider.asked, bench.names(), bench.lease()) == ([], [], None)
        assert [line["event"] for line in log_lines()] == ["claim_attempt", "step_completed"]


class TestFailedSteps:
    """What fails a step as a whole."""

    def test_a_step_with_invalid_inputs_fails_before_anything_is_paid_for(self, bench):
        """A step with invalid inputs fails without a provider call, an object or a manifest."""
        bench.put("ctpl_a", min_images=2)
        outcome = bench.run()
        step = bench.step()
        assert (step["status"], step["error"]["code"]) == ("FAILED", "VALIDATION_FAILED")
        assert step["error"]["details"] == {"field": "inputs.minImages", "attempt": 1, "owner": ANY}
        assert (bench.provider.asked, bench.names(), outcome.manifest_uri) == ([], [], None)

    def test_a_manifest_that_is_refused_fails_the_step(self, bench):
        """A refused manifest fails the step; its charts stay."""
        bench.cloud.storage.faults.add(Fault(method="objects.insert", match=r"manifest.json", error=403))
        bench.put("ctpl_a")
        bench.run()
        error = bench.step()["error"]
        assert (error["code"], error["details"]["httpStatus"]) == ("MANIFEST_WRITE_FAILED", 403)
        assert len(bench.names()) == 1

    def test_a_lost_claim_makes_nothing(self, bench):
        """After a lost claim nothing is read or written; the holder's lease stays."""
        bench.put("ctpl_a", status="RUNNING")
        lease = bench.put_lease(left_seconds=60)
        outcome = bench.run()
        assert (outcome.kind, outcome.reason) == (OutcomeKind.CLAIM_LOST, "step_running")
        assert (bench.provider.asked, bench.lease()) == ([], lease)

    def test_a_step_finished_by_another_worker_stays(self, bench):
        """A step that another worker has finished in between stays unchanged."""

        def make(_request):
            bench.run_reference.update({f"steps.{STEP_ID}.status": "CANCELLED"})
            return png_bytes()

        bench.provider.script = {"ctpl_a": make}
        bench.put("ctpl_a")
        outcome = bench.run()
        assert (outcome.kind, outcome.reason) == (OutcomeKind.FINALIZE_REFUSED, "step_final")
        assert bench.step() == chart_step(
            dependsOn=[], inputs={"requests": [{"chartTemplateId": "ctpl_a"}]}, status="CANCELLED"
        )
        assert bench.lease() is None

    def test_a_deleted_run_is_not_created_again(self, bench):
        """A run that was deleted in between is not created again."""

        def make(_request):
            bench.run_reference.delete()
            return png_bytes()

        bench.provider.script = {"ctpl_a": make}
        bench.put("ctpl_a")
        assert bench.run().reason == "run_missing"
        assert bench.run_reference.get().exists is False
        assert bench.lease() is None
