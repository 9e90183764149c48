"""Values as JavaScript orchestrators and other writers of runs and templates store them."""

from __future__ import annotations

from daemon.cli.demo.resources import sample_templates


def test_whole_numbers_that_are_stored_as_doubles(deployment):
    """A run and its templates with doubles give charts of the right size; Chart-IMG gets whole numbers."""
    for template in sample_templates():
        template["request"] |= {"width": 640.0, "height": 480.0}
        deployment.documents.document(f"chart_templates/{template['id']}").set(template)
    run_id, (step_id,) = deployment.put_run(charts=2)
    deployment.documents.document(f"flow_runs/{run_id}").update(
        {deployment.documents.field_path("steps", step_id, "inputs", "minImages"): 2.0}
    )
    with deployment.daemon().started() as daemon:
        deployment.publish_step(run_id, step_id)
        (line,) = daemon.wait_for_event("step_completed")
        assert daemon.terminate() == 0
    assert (line["status"], line["items"]) == ("SUCCEEDED", 2)
    sizes = [repr((call.body["width"], call.body["height"])) for call in deployment.cloud.chart_img.requests]
    assert sizes == ["(640, 480)"] * 2
    assert repr(deployment.manifest(run_id, step_id)["minImages"]) == "2"
