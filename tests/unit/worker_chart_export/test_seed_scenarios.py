"""The seven acceptance scripts of the project."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

SCENARIOS = Path(__file__).parents[2] / "seed_scenarios"


@pytest.fixture(scope="module")
def runner():
    """Return `run.py`, which checks the scenarios."""
    spec = importlib.util.spec_from_file_location("seed_scenarios_run", SCENARIOS / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("number", range(1, 8))
def test_scenario_prints_its_expected_output(runner, number):
    """Each script runs unchanged in a separate interpreter and prints its expected output."""
    script = SCENARIOS / f"scenario_{number}.py"
    ended = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert runner.check(number, ended.stdout.strip())
