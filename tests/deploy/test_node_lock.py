"""The lock of Google's Node clients, which `make node` installs."""

from __future__ import annotations

import json
from pathlib import Path

NODE = Path(__file__).parents[1] / "node"


def test_the_lock_has_checksums_and_no_registry():
    """Each package has a checksum and no address, so every registry can serve it and none can change it."""
    lock = json.loads((NODE / "package-lock.json").read_text(encoding="utf-8"))
    wanted = json.loads((NODE / "package.json").read_text(encoding="utf-8"))
    own, packages = lock["packages"].pop(""), lock["packages"]
    assert own["dependencies"] == wanted["dependencies"]
    assert [name for name, package in packages.items() if not package.get("integrity")] == []
    assert [name for name, package in packages.items() if "resolved" in package] == []
