"""Distribution of the tests to the workers of `--dist loadscope`: small units, the longest first.

The tests on the official emulators are one unit, so that one worker starts them. The other tests are
distributed by file, because tests of a file can share fixtures. Tests of processes are distributed one by
one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from xdist.scheduler import LoadScopeScheduling

if TYPE_CHECKING:
    from xdist.remote import Producer

OFFICIAL = "official"
ONE_BY_ONE = "tests/process/"
#: Of these, the tests of a file share what a process has done.
TOGETHER = ("tests/process/test_demo.py", "tests/process/test_tracing.py")
#: The longest first, so that no worker begins one of them when the others are done.
FIRST = (OFFICIAL, "tests/chaos/test_scenarios.py", "tests/chaos/", "tests/systemd/test_boot.py", ONE_BY_ONE)


def unit_of(nodeid: str) -> str:
    """Return the name of the unit that a test belongs to."""
    if OFFICIAL in nodeid:
        return OFFICIAL
    if nodeid.startswith(ONE_BY_ONE) and not nodeid.startswith(TOGETHER):
        return nodeid
    return nodeid.partition("::")[0]


class Units(LoadScopeScheduling):  # type: ignore[misc]
    """A scheduler that gives whole units to workers, in the order of collection."""

    def _split_scope(self, nodeid: str) -> str:
        return unit_of(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling | None:
    """Use our units for `--dist loadscope`."""
    if config.getvalue("dist") != "loadscope":
        return None
    config.option.loadscopereorder = False
    return Units(config, log)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the longest units first, in the workers of xdist."""
    for item in items:
        if item.get_closest_marker("official") and OFFICIAL not in item.nodeid:
            raise pytest.UsageError(f"{item.nodeid} is marked `official`: its id must say so")
    if hasattr(config, "workerinput"):
        items.sort(key=_rank)


def _rank(item: pytest.Item) -> int:
    unit = unit_of(item.nodeid)
    return next((rank for rank, start in enumerate(FIRST) if unit.startswith(start)), len(FIRST))
