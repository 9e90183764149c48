"""The manifests in `deploy/gke`: valid, consistent with the worker, as restrictive as documented."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from daemon.main import GRACE_SECONDS, MAIN_WITHIN_SECONDS
from daemon.settings import ChartsApiMode, Settings, load_settings
from tests.support.process.daemons import ROOT

FOLDER = ROOT / "deploy" / "gke"
VERSIONS = ("1.30", "1.37")
#: Custom resources and kustomize's own file. Kubernetes has no schema for them.
WITHOUT_SCHEMA = {"kustomization.yaml", "pod-monitoring.yaml"}
FILES = {
    path.name: yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("*.yaml"))
}
KUSTOMIZATION = FILES["kustomization.yaml"]
SETTINGS = FILES["settings.yaml"]["data"]
POD = FILES["deployment.yaml"]["spec"]["template"]["spec"]
(WORKER,) = POD["containers"]
LABELS = FILES["deployment.yaml"]["spec"]["template"]["metadata"]["labels"]
#: The kubelet's grace period starts before the process receives SIGTERM, on a busy node long before.
MARGIN_SECONDS = 10


@pytest.fixture
def settings(monkeypatch, tmp_path):
    """Return the daemon's settings from the ConfigMap, with an accounts file of the test."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    accounts = tmp_path / Path(SETTINGS["CHART_IMG_ACCOUNTS_FILE"]).name
    accounts.write_text(json.dumps([{"id": "first", "apiKey": "a-key"}]), encoding="utf-8")
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, str(accounts) if name == "CHART_IMG_ACCOUNTS_FILE" else value)
    return load_settings(Settings)


def _validate(*files, version):
    return subprocess.run(
        [Path(sys.executable).with_name("kubernetes-validate"), "-k", version, "--strict", *files],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_valid_for_kubernetes(version):
    """Every object has only known keys and types; exactly two kinds have no schema."""
    done = _validate(*sorted(FOLDER.glob("*.yaml")), version=version)
    assert done.returncode == 0, done.stdout
    unknown = re.findall(r"^WARN (\S+)", done.stdout, re.MULTILINE)
    assert {Path(name).name for name in unknown} == WITHOUT_SCHEMA
    assert len(re.findall(r"^INFO .+ passed", done.stdout, re.MULTILINE)) == len(FILES) - len(WITHOUT_SCHEMA)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    "misspelt", [("replicas", "replica"), ("readinessProbe", "readynessProbe"), ("drop", "drops")]
)
def test_a_misspelt_key_is_found(version, misspelt, tmp_path):
    """A misspelt key fails, at the top level and nested."""
    text = (FOLDER / "deployment.yaml").read_text(encoding="utf-8")
    bad = tmp_path / "bad.yaml"
    bad.write_text(text.replace(f"{misspelt[0]}:", f"{misspelt[1]}:"), encoding="utf-8")
    assert bad.read_text(encoding="utf-8") != text
    done = _validate(bad, version=version)
    assert done.returncode == 1
    assert misspelt[1] in done.stdout


def test_a_wrong_type_is_found():
    """A wrong type fails, such as 8080 without quotes in a ConfigMap."""
    bad = copy.deepcopy(FILES["settings.yaml"])
    bad["data"]["HEALTH_PORT"] = 8080
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(bad, VERSIONS[0], strict=True)


def test_the_kustomization_names_every_object():
    """The kustomization names every object; the optional one is a comment."""
    optional = {"pod-monitoring.yaml"}
    assert set(KUSTOMIZATION["resources"]) == FILES.keys() - {"kustomization.yaml"} - optional
    assert "# - pod-monitoring.yaml" in (FOLDER / "kustomization.yaml").read_text(encoding="utf-8")
    (image,) = KUSTOMIZATION["images"]
    assert image["name"] == WORKER["image"]


def test_all_objects_live_in_one_restricted_namespace():
    """All objects are in one namespace, which enforces the restricted pod security level."""
    namespace = FILES["namespace.yaml"]["metadata"]
    assert namespace["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    others = {name: file["metadata"] for name, file in FILES.items() if "metadata" in file}
    del others["namespace.yaml"]
    assert {metadata["namespace"] for metadata in others.values()} == {namespace["name"]}


def test_selectors_find_the_pods():
    """The selectors of Deployment, budget, policy, spread and scrape match the pods."""
    selectors = [
        FILES["deployment.yaml"]["spec"]["selector"],
        FILES["pod-disruption-budget.yaml"]["spec"]["selector"],
        FILES["network-policy.yaml"]["spec"]["podSelector"],
        FILES["pod-monitoring.yaml"]["spec"]["selector"],
        *[spread["labelSelector"] for spread in POD["topologySpreadConstraints"]],
    ]
    assert len(selectors) == 6
    assert all(selector["matchLabels"].items() <= LABELS.items() for selector in selectors)


def test_each_key_of_the_config_map_is_a_setting():
    """Each key of the ConfigMap is a setting, and none is a secret."""
    names = {name.upper() for name in Settings.model_fields}
    assert SETTINGS.keys() <= names
    assert "CHART_IMG_ACCOUNTS_JSON" not in SETTINGS
    assert WORKER["envFrom"] == [{"configMapRef": {"name": FILES["settings.yaml"]["metadata"]["name"]}}]


def test_the_daemon_accepts_the_config_map(settings):
    """The daemon accepts the ConfigMap in production mode, with the accounts at their mounted path."""
    assert settings.charts_api_mode is ChartsApiMode.REAL
    assert [account.id for account in settings.accounts] == ["first"]
    (mount,) = [mount for mount in WORKER["volumeMounts"] if mount["name"] == "chart-img-accounts"]
    assert mount["mountPath"] == str(Path(SETTINGS["CHART_IMG_ACCOUNTS_FILE"]).parent)
    assert mount["readOnly"] is True


def test_the_drain_fits_into_the_grace_period(settings):
    """The drain, the daemon's hard exit and a margin fit into the kubelet's grace period."""
    longest = settings.drain_seconds + GRACE_SECONDS
    assert POD["terminationGracePeriodSeconds"] >= longest + MARGIN_SECONDS
    assert "lifecycle" not in WORKER


def test_probes_ask_the_process_alone_and_where_it_listens(settings):
    """Probes use the daemon's port, and only /livez can kill a pod: /readyz depends on backends."""
    (port,) = WORKER["ports"]
    assert (settings.health_host, settings.health_port) == ("0.0.0.0", port["containerPort"])  # noqa: S104
    probes = {name: WORKER[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")}
    assert {get["port"] for get in probes.values()} == {port["name"]}
    assert {name: get["path"] for name, get in probes.items()} == {
        "startup": "/livez",
        "liveness": "/livez",
        "readiness": "/readyz",
    }


def test_a_hung_pod_is_replaced_before_its_leases_are_long_over(settings):
    """A hung pod is restarted within the length of one lease."""
    probe = WORKER["livenessProbe"]
    noticed = (
        MAIN_WITHIN_SECONDS + probe["failureThreshold"] * probe["periodSeconds"] + probe["timeoutSeconds"]
    )
    assert noticed <= settings.lease_seconds


def test_the_container_is_held_tightly():
    """The container has the restricted profile's limits and a read-only root."""
    assert POD["automountServiceAccountToken"] is False
    assert FILES["service-account.yaml"]["automountServiceAccountToken"] is False
    assert POD["serviceAccountName"] == FILES["service-account.yaml"]["metadata"]["name"]
    assert POD["securityContext"]["runAsNonRoot"] is True
    assert POD["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert WORKER["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_the_pod_s_user_is_the_image_s():
    """The pod's user is the image's user and reads the secret only through its group."""
    (user,) = re.findall(
        r"^USER (\d+):(\d+)$", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE
    )
    context = POD["securityContext"]
    assert (str(context["runAsUser"]), str(context["runAsGroup"])) == user
    (secret,) = [volume["secret"] for volume in POD["volumes"] if "secret" in volume]
    assert context["fsGroup"] == context["runAsGroup"]
    assert secret["defaultMode"] == 0o440


def test_memory_is_promised_and_processors_are_not_cut():
    """Memory request and limit are equal, CPU has no limit, and scratch space fits the storage limit."""
    resources = WORKER["resources"]
    assert resources["requests"]["memory"] == resources["limits"]["memory"]
    assert "cpu" in resources["requests"]
    assert "cpu" not in resources["limits"]
    (scratch,) = [volume["emptyDir"] for volume in POD["volumes"] if "emptyDir" in volume]
    sizes = [scratch["sizeLimit"], resources["limits"]["ephemeral-storage"]]
    free, most = (int(size.removesuffix("Mi")) for size in sizes)
    assert free < most


def test_a_rollout_never_has_fewer_pods_and_a_drain_takes_one():
    """A rollout never has fewer pods, a drain takes one, and unready pods do not block a drain."""
    rolling = FILES["deployment.yaml"]["spec"]["strategy"]["rollingUpdate"]
    assert rolling == {"maxSurge": 1, "maxUnavailable": 0}
    scope = FILES["pod-disruption-budget.yaml"]["spec"]
    assert (scope["maxUnavailable"], scope["unhealthyPodEvictionPolicy"]) == (1, "AlwaysAllow")


def test_only_scrapes_come_in_and_only_known_ports_are_called():
    """The network policy allows scrapes in, and names, HTTPS and the metadata server out."""
    policy = FILES["network-policy.yaml"]["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert [port["port"] for rule in policy["ingress"] for port in rule["ports"]] == ["health"]
    anywhere = {port["port"] for rule in policy["egress"] if "to" not in rule for port in rule["ports"]}
    assert anywhere == {53, 443}
    named = {to["ipBlock"]["cidr"] for rule in policy["egress"] for to in rule.get("to", [])}
    assert named == {"169.254.169.252/32", "169.254.169.254/32"}


def test_the_read_me_names_what_to_edit():
    """The README names every placeholder of the manifests."""
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    made_up = {value for value in SETTINGS.values() if "my-" in value}
    made_up.add(KUSTOMIZATION["images"][0]["newName"])
    assert len(made_up) == 3
    assert {value for value in made_up if value not in text} == set()
