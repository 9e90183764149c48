"""Traces on GKE: what stands there as comments works once the signs are taken away."""

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
    """The file with the comments from this line on taken in; the line itself stays one."""
    before, mark, after = (FOLDER / name).read_text(encoding="utf-8").partition(since)
    assert mark
    return yaml.safe_load(before + re.sub(r"^( +)# ", r"\1", after.partition("\n")[2], flags=re.MULTILINE))


@pytest.fixture
def settings():
    """The ConfigMap with traces."""
    return uncommented("settings.yaml", "  # hold a token")


@pytest.fixture
def policy():
    """The policy that lets them out."""
    return uncommented("network-policy.yaml", "    # Traces, if")


def test_the_worker_takes_the_variables(settings, monkeypatch):
    """All of them are read, and none holds a secret."""
    kubernetes_validate.validate(settings, "1.30", strict=True)
    ours = {name: value for name, value in settings["data"].items() if name.startswith("OTEL_")}
    assert ours.keys() <= {name.upper() for name in TracingSettings.model_fields}
    assert not [name for name in ours if name.endswith("HEADERS")]
    for name, value in ours.items():
        monkeypatch.setenv(name, value)
    assert load_settings(TracingSettings).traces_go_to is TracesExporter.OTLP


def test_they_may_leave_to_where_they_go(settings, policy):
    """The last rule allows the collector's namespace and port."""
    kubernetes_validate.validate(policy, "1.30", strict=True)
    endpoint = settings["data"]["OTEL_EXPORTER_OTLP_ENDPOINT"]
    namespace, port = re.fullmatch(r"http://[^.]+\.([^.]+)\.svc\.cluster\.local:(\d+)", endpoint).groups()
    rule = policy["spec"]["egress"][-1]
    (selector,) = [to["namespaceSelector"]["matchLabels"] for to in rule["to"]]
    assert selector == {"kubernetes.io/metadata.name": namespace}
    assert rule["ports"] == [{"protocol": "TCP", "port": int(port)}]


def test_headers_come_from_a_secret_into_the_worker_s_container():
    """By a patch of the Deployment, which has no `env` of its own to be lost."""
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
