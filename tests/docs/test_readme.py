"""The README is short and correct."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MAX_WORDS = 700


def test_it_has_two_screens():
    """The README has at most two screens."""
    assert len(README.split()) <= MAX_WORDS


def test_its_two_commands_are_targets():
    """The README's two commands are targets of the Makefile."""
    commands = re.findall(r"^make (\w+)", README, re.MULTILINE)
    assert commands == ["demo", "test"]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert all(re.search(rf"^{command}:", makefile, re.MULTILINE) for command in commands)


def test_the_run_that_it_names_has_a_legal_id():
    """The run id in the README is valid for the manifest."""
    (run_id,) = set(re.findall(r'"runId": "([^"]+)"', README))
    schema = ROOT / "worker_chart_export/data/contracts/charts_outputs_manifest.schema.json"
    pattern = json.loads(schema.read_text(encoding="utf-8"))["properties"]["runId"]["pattern"]
    assert re.search(pattern, run_id)


def test_the_other_package_named_daemon_is_never_a_dependency():
    """PyPI's python-daemon, which has a module of the same name, is not a dependency."""
    assert "python-daemon" in README
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = [
        *project["dependencies"],
        *(name for group in project["optional-dependencies"].values() for name in group),
    ]
    assert not [name for name in names if name.startswith("python-daemon")]
    for lock in ROOT.glob("requirements*.lock"):
        assert "\npython-daemon==" not in lock.read_text(encoding="utf-8")


def test_the_version_has_an_entry_in_the_changelog():
    """The version has an entry in the changelog."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert f"\n## [{version}] - 20" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
