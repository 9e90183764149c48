"""The autoscalers in `deploy/gke/autoscaling`: valid, optional, consistent with the worker."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from daemon.settings import Settings
from tests.support.deploy.selections import labels_left, selectors_of
from tests.support.process.daemons import ROOT
from worker_chart_export.observability import metrics

BASE = ROOT / "deploy" / "gke"
FOLDER = BASE / "autoscaling"
VERSIONS = ("1.30", "1.37")
WAYS = ("hpa", "keda")
FILES = {
    path.relative_to(FOLDER).as_posix(): yaml.safe_load(path.read_text(encoding="utf-8"))
    for path in sorted(FOLDER.rglob("*.yaml"))
}
HPA = FILES["hpa/horizontal-pod-autoscaler.yaml"]
SCALED = FILES["keda/scaled-object.yaml"]
AUTHENTICATION = FILES["keda/trigger-authentication.yaml"]
DEPLOYMENT = yaml.safe_load((BASE / "deployment.yaml").read_text(encoding="utf-8"))
SETTINGS = yaml.safe_load((BASE / "settings.yaml").read_text(encoding="utf-8"))["data"]
KEDA = Draft202012Validator(
    json.loads((ROOT / "tests" / "deploy" / "keda.schema.json").read_text(encoding="utf-8"))
)
(METRIC,) = HPA["spec"]["metrics"]
BACKLOG, BUSY = SCALED["spec"]["triggers"]
HPA_BEHAVIOR = HPA["spec"]["behavior"]
KEDA_BEHAVIOR = SCALED["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
CONCURRENCY = int(SETTINGS["WORKER_CONCURRENCY"])
STEP_TIMEOUT = Settings.model_fields["step_timeout_seconds"].default
#: The metric is sampled each minute and available two to three minutes later.
METRIC_LAG_SECONDS = 180


def _validate(file, version):
    return subprocess.run(
        [Path(sys.executable).with_name("kubernetes-validate"), "-k", version, "--strict", file],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("version", VERSIONS)
def test_the_autoscaler_is_valid_for_kubernetes(version, tmp_path):
    """The autoscaler validates against Kubernetes' schema; a misspelt key fails."""
    file = FOLDER / "hpa" / "horizontal-pod-autoscaler.yaml"
    done = _validate(file, version)
    assert (done.returncode, " passed for " in done.stdout) == (0, True)
    bad = tmp_path / "bad.yaml"
    bad.write_text(file.read_text(encoding="utf-8").replace("averageValue:", "averageValues:"))
    assert _validate(bad, version).returncode == 1


@pytest.mark.parametrize("given", [SCALED, AUTHENTICATION], ids=["scaled-object", "trigger-authentication"])
def test_keda_s_objects_have_its_fields(given):
    """KEDA's objects have the fields of its custom resource definitions and its Prometheus scaler."""
    assert [error.message for error in KEDA.iter_errors(given)] == []


@pytest.mark.parametrize(
    ("place", "wrong"),
    [
        (("spec",), {"minReplicas": 1}),
        (("spec", "triggers", 0), {"type": "gcp-pubsub"}),
        (("spec", "triggers", 0, "metadata"), {"treshold": "40"}),
        (("spec", "triggers", 1, "metadata"), {"threshold": 6}),
        (("spec", "advanced", "horizontalPodAutoscalerConfig", "behavior", "scaleDown"), {"periods": []}),
        (("spec",), {"minReplicaCount": "2"}),
    ],
)
def test_a_wrong_keda_field_is_found(place, wrong):
    """A wrong field in a KEDA object fails, at the top level and nested, by name and by type."""
    bad = copy.deepcopy(SCALED)
    inner = bad
    for key in place:
        inner = inner[key]
    inner.update(wrong)
    assert not KEDA.is_valid(bad)


def test_neither_is_part_of_the_default():
    """Both autoscalers are components, so they apply only where a kustomization names them."""
    default = yaml.safe_load((BASE / "kustomization.yaml").read_text(encoding="utf-8"))
    assert not [name for name in default["resources"] if "autoscaling" in name]
    assert "components" not in default
    assert {FILES[f"{way}/kustomization.yaml"]["kind"] for way in WAYS} == {"Component"}


@pytest.mark.parametrize("way", WAYS)
def test_a_component_has_all_its_files_and_removes_the_replicas(way):
    """A component has all its files and removes `replicas` from the existing Deployment."""
    component = FILES[f"{way}/kustomization.yaml"]
    others = {name.removeprefix(f"{way}/") for name in FILES if name.startswith(f"{way}/")}
    assert {*component["resources"], "kustomization.yaml"} == others
    (patch,) = component["patches"]
    assert patch["target"] == {"kind": DEPLOYMENT["kind"], "name": DEPLOYMENT["metadata"]["name"]}
    assert yaml.safe_load(patch["patch"]) == [{"op": "remove", "path": "/spec/replicas"}]
    assert "replicas" in DEPLOYMENT["spec"]


@pytest.mark.parametrize("given", [HPA, SCALED], ids=WAYS)
def test_it_scales_the_deployment_between_sensible_numbers(given):
    """The minimum is the default's replica count, and one pod is left when a node is drained."""
    spec, metadata = given["spec"], DEPLOYMENT["metadata"]
    assert given["metadata"]["namespace"] == metadata["namespace"]
    assert spec["scaleTargetRef"] == {
        "apiVersion": DEPLOYMENT["apiVersion"],
        "kind": DEPLOYMENT["kind"],
        "name": metadata["name"],
    }
    fewest = spec.get("minReplicas", spec.get("minReplicaCount"))
    most = spec.get("maxReplicas", spec.get("maxReplicaCount"))
    scope = yaml.safe_load((BASE / "pod-disruption-budget.yaml").read_text(encoding="utf-8"))["spec"]
    assert fewest == DEPLOYMENT["spec"]["replicas"] > scope["maxUnavailable"]
    assert fewest < most <= 10


def test_both_ways_want_the_same():
    """Both autoscalers have the same numbers, so that one can replace the other."""
    assert HPA_BEHAVIOR == KEDA_BEHAVIOR
    assert HPA["spec"]["minReplicas"] == SCALED["spec"]["minReplicaCount"]
    assert HPA["spec"]["maxReplicas"] == SCALED["spec"]["maxReplicaCount"]
    assert "fallback" not in SCALED["spec"]  # a missing value must not remove pods
    assert METRIC["external"]["target"]["averageValue"] == BACKLOG["metadata"]["threshold"]


def test_a_busy_pod_adds_no_other():
    """A busy pod adds no other pod: its work counts as backlog, and the target is five rounds of it."""
    assert METRIC["external"]["target"] == {"type": "AverageValue", "averageValue": str(5 * CONCURRENCY)}
    assert 0 < int(BUSY["metadata"]["threshold"]) < CONCURRENCY
    assert {trigger["metricType"] for trigger in (BACKLOG, BUSY)} == {"AverageValue"}


def test_it_queries_the_worker_s_subscription():
    """The autoscalers query the subscription of the settings."""
    subscription = SETTINGS["PUBSUB_SUBSCRIPTION"]
    named = METRIC["external"]["metric"]
    assert named["name"] == "pubsub.googleapis.com|subscription|num_undelivered_messages"
    assert named["selector"]["matchLabels"] == {"resource.labels.subscription_id": subscription}
    ((selector, _),) = selectors_of(BACKLOG["metadata"]["query"])
    assert selector.name == "pubsub_googleapis_com:subscription_num_undelivered_messages"
    matched = {matcher.name: matcher.value for matcher in selector.matchers.matchers}
    assert matched == {"monitored_resource": "pubsub_subscription", "subscription_id": subscription}


def test_it_queries_the_worker_s_metric():
    """Each query has the worker's metric and namespace and returns one value without labels."""
    known = {family.name for family in metrics.REGISTRY.collect()}
    ((selector, _),) = selectors_of(BUSY["metadata"]["query"])
    assert selector.name in known
    (matcher,) = selector.matchers.matchers
    assert (matcher.name, matcher.value) == ("namespace", DEPLOYMENT["metadata"]["namespace"])
    for trigger in (BACKLOG, BUSY):
        ((name, _),) = selectors_of(trigger["metadata"]["query"])
        assert labels_left(trigger["metadata"]["query"], {name.name: {"namespace"}}) == set()
        assert trigger["metadata"]["ignoreNullValues"] == "false"
        assert trigger["authenticationRef"]["name"] == AUTHENTICATION["metadata"]["name"]
        assert f"/projects/{SETTINGS['GOOGLE_CLOUD_PROJECT']}/" in trigger["metadata"]["serverAddress"]


def test_it_goes_down_slower_than_a_step_and_up_slower_than_the_figures():
    """It removes one pod at a time, slower than a drain, and adds pods slower than metrics arrive."""
    down, up = HPA_BEHAVIOR["scaleDown"], HPA_BEHAVIOR["scaleUp"]
    assert down["stabilizationWindowSeconds"] > STEP_TIMEOUT + METRIC_LAG_SECONDS
    (slow,) = down["policies"]
    assert (slow["type"], slow["value"]) == ("Pods", 1)
    grace = DEPLOYMENT["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert slow["periodSeconds"] >= STEP_TIMEOUT > grace
    (fast,) = up["policies"]
    assert fast["periodSeconds"] >= METRIC_LAG_SECONDS


def test_the_readme_has_the_same_numbers():
    """The README has the same targets, bounds, pace and settings with their defaults."""
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    spec = HPA["spec"]
    assert f"| target, backlog for each pod | {METRIC['external']['target']['averageValue']} |" in text
    assert f"| {BUSY['metadata']['threshold']} of {CONCURRENCY} |" in text
    assert f"| fewest | {spec['minReplicas']} |" in text
    assert f"| most | {spec['maxReplicas']} |" in text
    described = dict(re.findall(r"`([A-Z_]{5,})`,? \(?(\d+)\)", text))
    assert described == {"WORKER_CONCURRENCY": "8", "STEP_TIMEOUT_SECONDS": "300", "DRAIN_SECONDS": "25"}
    assert {name: float(value) for name, value in described.items()} == {
        name: Settings.model_fields[name.lower()].default for name in described
    }
