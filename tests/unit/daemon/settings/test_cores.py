"""The number of cores: the default of `RENDER_PROCESSES`."""

from __future__ import annotations

import os

import pytest

from daemon.settings.cores import available_cores

CORES = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("limit", "cores"),
    [
        ("max 100000", CORES),
        ("100000 100000", 1),
        ("50000 100000", 1),
        ("6400000 100000", min(CORES, 64)),
        ("0 100000", 1),
        ("nonsense", CORES),
        ("1 0 0", CORES),
    ],
)
def test_a_container_s_limit_counts(tmp_path, limit, cores):
    """Parts of a core are rounded up; what can't be read is no limit."""
    file = tmp_path / "cpu.max"
    file.write_text(limit)
    assert available_cores(file) == cores


def test_without_a_limit_all_cores_count(tmp_path):
    """There is no such file outside of control groups, version 2."""
    assert available_cores(tmp_path / "missing") == CORES


def test_a_process_that_is_bound_to_one_core_has_one():
    """As by `taskset`."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert available_cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)
