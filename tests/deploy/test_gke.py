"""The manifests in `deploy/gke`: valid for Kubernetes, true to the worker, as tight as they say."""

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
#: Custom resources and kustomize's own file: no schema of Kubernetes describes them.
WITHOUT_SCHEMA = {"kustomization.yaml", "pod-monitoring.yaml"}
FILES = {
    path.name: yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("*.yaml"))
}
KUSTOMIZATION = FILES["kustomization.yaml"]
SETTINGS = FILES["settings.yaml"]["data"]
POD = FILES["deployment.yaml"]["spec"]["template"]["spec"]
(WORKER,) = POD["containers"]
LABELS = FILES["deployment.yaml"]["spec"]["template"]["metadata"]["labels"]
#: The kubelet's clock starts before the process knows of its stop; on a busy node long before.
MARGIN_SECONDS = 10


@pytest.fixture
def settings(monkeypatch, tmp_path):
    """What the daemon makes of the ConfigMap; the accounts are a file of the test's."""
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
def test_every_object_is_as_kubernetes_wants_it(version):
    """No unknown key, no wrong type; the two kinds that have no schema are the two we know of."""
    done = _validate(*sorted(FOLDER.glob("*.yaml")), version=version)
    assert done.returncode == 0, done.stdout
    unknown = re.findall(r"^WARN (\S+)", done.stdout, re.MULTILINE)
    assert {Path(name).name for name in unknown} == WITHOUT_SCHEMA
    assert len(re.findall(r"^INFO .+ passed", done.stdout, re.MULTILINE)) == len(FILES) - len(WITHOUT_SCHEMA)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    "misspelt", [("replicas", "replica"), ("readinessProbe", "readynessProbe"), ("drop", "drops")]
)
def test_a_misspelt_key_would_be_seen(version, misspelt, tmp_path):
    """On the outside and deep within."""
    text = (FOLDER / "deployment.yaml").read_text(encoding="utf-8")
    bad = tmp_path / "bad.yaml"
    bad.write_text(text.replace(f"{misspelt[0]}:", f"{misspelt[1]}:"), encoding="utf-8")
    assert bad.read_text(encoding="utf-8") != text
    done = _validate(bad, version=version)
    assert done.returncode == 1
    assert misspelt[1] in done.stdout


def test_a_wrong_type_would_be_seen():
    """A setting that is no text: YAML makes a number of 8080."""
    bad = copy.deepcopy(FILES["settings.yaml"])
    bad["data"]["HEALTH_PORT"] = 8080
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(bad, VERSIONS[0], strict=True)


def test_the_kustomization_names_every_object():
    """But for the optional one, which is there as a comment."""
    optional = {"pod-monitoring.yaml"}
    assert set(KUSTOMIZATION["resources"]) == FILES.keys() - {"kustomization.yaml"} - optional
    assert "# - pod-monitoring.yaml" in (FOLDER / "kustomization.yaml").read_text(encoding="utf-8")
    (image,) = KUSTOMIZATION["images"]
    assert image["name"] == WORKER["image"]


def test_all_objects_live_in_one_restricted_namespace():
    """Pod security is enforced there."""
    namespace = FILES["namespace.yaml"]["metadata"]
    assert namespace["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    others = {name: file["metadata"] for name, file in FILES.items() if "metadata" in file}
    del others["namespace.yaml"]
    assert {metadata["namespace"] for metadata in others.values()} == {namespace["name"]}


def test_selectors_find_the_pods():
    """Of the Deployment itself, the budget, the policy, the spread and the scrape."""
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
    """None is misspelt, and none is a secret."""
    names = {name.upper() for name in Settings.model_fields}
    assert SETTINGS.keys() <= names
    assert "CHART_IMG_ACCOUNTS_JSON" not in SETTINGS
    assert WORKER["envFrom"] == [{"configMapRef": {"name": FILES["settings.yaml"]["metadata"]["name"]}}]


def test_the_daemon_takes_the_config_map(settings):
    """With the accounts mounted where they are said to be, in production's mode."""
    assert settings.charts_api_mode is ChartsApiMode.REAL
    assert [account.id for account in settings.accounts] == ["first"]
    (mount,) = [mount for mount in WORKER["volumeMounts"] if mount["name"] == "chart-img-accounts"]
    assert mount["mountPath"] == str(Path(SETTINGS["CHART_IMG_ACCOUNTS_FILE"]).parent)
    assert mount["readOnly"] is True


def test_the_drain_fits_into_the_grace_period(settings):
    """With the daemon's own hard end and a margin; the kubelet kills what is left."""
    longest = settings.drain_seconds + GRACE_SECONDS
    assert POD["terminationGracePeriodSeconds"] >= longest + MARGIN_SECONDS
    assert "lifecycle" not in WORKER


def test_probes_ask_the_process_alone_and_where_it_listens(settings):
    """/readyz is 503 while a backend is away: only what asks /livez may kill a pod."""
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
    """Noticed by the daemon, then by the kubelet; both together take no longer than a lease."""
    probe = WORKER["livenessProbe"]
    noticed = (
        MAIN_WITHIN_SECONDS + probe["failureThreshold"] * probe["periodSeconds"] + probe["timeoutSeconds"]
    )
    assert noticed <= settings.lease_seconds


def test_the_container_is_held_tightly():
    """As the restricted profile wants it, and a read-only root besides."""
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
    """And may read the secret by its group alone."""
    (user,) = re.findall(
        r"^USER (\d+):(\d+)$", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE
    )
    context = POD["securityContext"]
    assert (str(context["runAsUser"]), str(context["runAsGroup"])) == user
    (secret,) = [volume["secret"] for volume in POD["volumes"] if "secret" in volume]
    assert context["fsGroup"] == context["runAsGroup"]
    assert secret["defaultMode"] == 0o440


def test_memory_is_promised_and_processors_are_not_cut():
    """Request = limit for memory; scratch space fits into the limit of ephemeral storage."""
    resources = WORKER["resources"]
    assert resources["requests"]["memory"] == resources["limits"]["memory"]
    assert "cpu" in resources["requests"]
    assert "cpu" not in resources["limits"]
    (scratch,) = [volume["emptyDir"] for volume in POD["volumes"] if "emptyDir" in volume]
    sizes = [scratch["sizeLimit"], resources["limits"]["ephemeral-storage"]]
    free, most = (int(size.removesuffix("Mi")) for size in sizes)
    assert free < most


def test_a_rollout_never_has_fewer_pods_and_a_drain_takes_one():
    """And pods that are not ready hold no node up."""
    rolling = FILES["deployment.yaml"]["spec"]["strategy"]["rollingUpdate"]
    assert rolling == {"maxSurge": 1, "maxUnavailable": 0}
    scope = FILES["pod-disruption-budget.yaml"]["spec"]
    assert (scope["maxUnavailable"], scope["unhealthyPodEvictionPolicy"]) == (1, "AlwaysAllow")


def test_only_scrapes_come_in_and_only_known_ports_are_called():
    """Names, HTTPS, and the metadata server."""
    policy = FILES["network-policy.yaml"]["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert [port["port"] for rule in policy["ingress"] for port in rule["ports"]] == ["health"]
    anywhere = {port["port"] for rule in policy["egress"] if "to" not in rule for port in rule["ports"]}
    assert anywhere == {53, 443}
    named = {to["ipBlock"]["cidr"] for rule in policy["egress"] for to in rule.get("to", [])}
    assert named == {"169.254.169.252/32", "169.254.169.254/32"}


def test_the_read_me_names_what_to_edit():
    """Every made-up name of the manifests stands in it."""
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    made_up = {value for value in SETTINGS.values() if "my-" in value}
    made_up.add(KUSTOMIZATION["images"][0]["newName"])
    assert len(made_up) == 3
    assert {value for value in made_up if value not in text} == set()
