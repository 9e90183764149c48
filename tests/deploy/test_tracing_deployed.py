"""Traces on GKE: the commented parts of the manifests work when uncommented."""

from __future__ import annotations

import re

import kubernetes_validate
import pytest
import yaml

from daemon.settings import load_settings
from daemon.settings.tracing import TracesExporter, TracingSettings
from tests.support.process.daemons import ROOT

FOLDER = ROOT / "deploy" / "gke"


def uncommented(name: str, since: str) -> dict:
    """Return the file with the comments from this line on uncommented; the line itself stays."""
    before, mark, after = (FOLDER / name).read_text(encoding="utf-8").partition(since)
    assert mark
    return yaml.safe_load(before + re.sub(r"^( +)# ", r"\1", after.partition("\n")[2], flags=re.MULTILINE))


@pytest.fixture
def settings():
    """Return the ConfigMap with the tracing settings."""
    return uncommented("settings.yaml", "  # hold a token")


@pytest.fixture
def policy():
    """Return the network policy that allows traces out."""
    return uncommented("network-policy.yaml", "    # Traces, if")


def test_the_worker_reads_the_variables(settings, monkeypatch):
    """The worker reads all tracing variables, and none holds a secret."""
    kubernetes_validate.validate(settings, "1.30", strict=True)
    ours = {name: value for name, value in settings["data"].items() if name.startswith("OTEL_")}
    assert ours.keys() <= {name.upper() for name in TracingSettings.model_fields}
    assert not [name for name in ours if name.endswith("HEADERS")]
    for name, value in ours.items():
        monkeypatch.setenv(name, value)
    assert load_settings(TracingSettings).traces_go_to is TracesExporter.OTLP


def test_they_may_leave_to_where_they_go(settings, policy):
    """The last rule of the policy allows the collector's namespace and port."""
    kubernetes_validate.validate(policy, "1.30", strict=True)
    endpoint = settings["data"]["OTEL_EXPORTER_OTLP_ENDPOINT"]
    namespace, port = re.fullmatch(r"http://[^.]+\.([^.]+)\.svc\.cluster\.local:(\d+)", endpoint).groups()
    rule = policy["spec"]["egress"][-1]
    (selector,) = [to["namespaceSelector"]["matchLabels"] for to in rule["to"]]
    assert selector == {"kubernetes.io/metadata.name": namespace}
    assert rule["ports"] == [{"protocol": "TCP", "port": int(port)}]


def test_headers_come_from_a_secret_into_the_worker_s_container():
    """A patch adds headers from a secret to the worker's container, which has no `env` of its own."""
    read_me = (FOLDER / "README.md").read_text(encoding="utf-8")
    (block,) = [part for part in re.findall(r"```yaml\n(.+?)```", read_me, re.DOTALL) if "OTLP" in part]
    (patch,) = yaml.safe_load(block)["patches"]
    deployment = yaml.safe_load((FOLDER / "deployment.yaml").read_text(encoding="utf-8"))
    assert (patch["target"]["kind"], patch["target"]["name"]) == (
        deployment["kind"],
        deployment["metadata"]["name"],
    )
    (operation,) = yaml.safe_load(patch["patch"])
    assert (operation["op"], operation["path"]) == ("add", "/spec/template/spec/containers/0/env")
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    assert "env" not in container
    container["env"] = operation["value"]
    kubernetes_validate.validate(deployment, "1.30", strict=True)
    assert {entry["name"].lower() for entry in container["env"]} <= TracingSettings.model_fields.keys()
