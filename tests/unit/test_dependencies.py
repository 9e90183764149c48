"""The dependencies that pyproject.toml declares are those that the code imports."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PACKAGES = ("worker_chart_export", "daemon", "localcloud")
#: Packages that share a namespace, and the distribution of each.
NAMESPACES = {
    "google.api_core": "google-api-core",
    "google.auth": "google-auth",
    "google.oauth2": "google-auth",
    "google.cloud.firestore": "google-cloud-firestore",
    "google.cloud.firestore_v1": "google-cloud-firestore",
    "google.cloud.pubsub_v1": "google-cloud-pubsub",
    "google.pubsub_v1": "google-cloud-pubsub",
    "google.cloud.storage": "google-cloud-storage",
    "google.protobuf": "protobuf",
    "google.rpc": "googleapis-common-protos",
    "google.type": "googleapis-common-protos",
    "opentelemetry.sdk": "opentelemetry-sdk",
    "opentelemetry.exporter.otlp.proto.http": "opentelemetry-exporter-otlp-proto-http",
    "opentelemetry": "opentelemetry-api",
}
#: Declared for what they bring, without an import.
NOT_IMPORTED = {"tzdata"}
#: Imported for types alone; type checkers know it.
NOT_INSTALLED = {"typing-extensions"}


def _names(requirements):
    return {re.match(r"[A-Za-z0-9-]+", text)[0].lower() for text in requirements}


def _imported_modules():
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_bytes())):
                if isinstance(node, ast.Import):
                    yield from (alias.name for alias in node.names)
                elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _distributions():
    """Return the distributions that the packages import."""
    known, found = packages_distributions(), set()
    for module in set(_imported_modules()):
        top = module.partition(".")[0]
        if top in sys.stdlib_module_names or top in PACKAGES:
            continue
        parts = module.split(".")
        names = [".".join(parts[:end]) for end in range(len(parts), 0, -1)]
        shared = next((NAMESPACES[name] for name in names if name in NAMESPACES), None)
        found |= {shared} if shared else {name.lower().replace("_", "-") for name in known[top]}
    return found


def test_what_is_imported_is_declared_and_the_other_way_round():
    """Nothing is imported only because another package needs it, and nothing is declared in vain."""
    declared = _names(PROJECT["dependencies"] + PROJECT["optional-dependencies"]["tracing"])
    assert _distributions() - NOT_INSTALLED == declared - NOT_IMPORTED


@pytest.mark.parametrize("requirement", PROJECT["dependencies"] + PROJECT["optional-dependencies"]["tracing"])
def test_each_dependency_has_a_floor_that_is_tested(requirement):
    """`make test-floors` installs exactly the oldest version that is declared."""
    name, _, floor = requirement.partition(">=")
    assert floor
    lock = (ROOT / "requirements-floors.lock").read_text(encoding="utf-8")
    (locked,) = re.findall(rf"(?m)^{name.lower()}==([0-9.]+)", lock)
    assert _padded(locked) == _padded(floor)


def _padded(version):
    parts = [int(part) for part in version.split(".")]
    return parts + [0] * (3 - len(parts))


def test_the_classifiers_name_the_versions_of_python_that_are_tested():
    """The oldest is `requires-python`, the newest that of `.ci/run`."""
    prefix = "Programming Language :: Python :: 3."
    minors = [int(text.removeprefix(prefix)) for text in PROJECT["classifiers"] if text.startswith(prefix)]
    assert minors == list(range(minors[0], minors[-1] + 1))
    assert PROJECT["requires-python"] == f">=3.{minors[0]}"
    assert f"python3.{minors[-1]}" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
