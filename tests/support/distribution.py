"""Distribution of the tests to the workers of `--dist loadscope`: small units, the longest first.

The tests on the official emulators are one unit, so that one worker starts them, and so are those in a
browser. The other tests are distributed by file, because tests of a file can share fixtures. Tests of
processes are distributed one by one.

A quarter of the workers begins with units that compute, the others begin with units that wait: so the
processors always have something to compute, and few tests compute at the same time as a test that measures
time. A worker takes units of the other kind when its own are used up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from xdist.scheduler import LoadScopeScheduling

if TYPE_CHECKING:
    from xdist.remote import Producer
    from xdist.workermanage import WorkerController

OFFICIAL = "official"
#: It waits for more than a minute, and starts emulators of its own, so that no other test waits for it.
LONG_PAUSE = "tests/process/test_long_pause.py"
ONE_BY_ONE = "tests/process/"
#: Of these, the tests of a file share what a process has done.
TOGETHER = ("tests/process/test_demo.py", "tests/process/test_tracing.py")
#: They share a browser: its start takes two seconds of processor time, in each worker that runs one of them.
PAGE = "tests/process/test_page"
IN_BROWSER = (PAGE, "tests/process/test_fleet.py::test_the_page_")
_UNIT, _LOCAL = "tests/unit/worker_chart_export", "tests/unit/worker_chart_export/charts/local"
#: What waits for processes, leases, deadlines and answers; all others compute. The longest first.
WAITING = (
    LONG_PAUSE,
    OFFICIAL,
    PAGE,
    "tests/chaos/test_scenarios.py",
    "tests/chaos/test_storm.py",
    "tests/systemd/",
    "tests/process/test_outages.py",
    "tests/process/test_commit_rate.py",
    "tests/process/test_release.py",
    "tests/process/test_exhausted_accounts.py",
    "tests/process/test_memory.py",
    f"{_UNIT}/backends/test_bytes_after_answers.py",
    ONE_BY_ONE,
    "tests/unit/daemon/handling/test_circuit_breaker.py",
    "tests/unit/localcloud/test_embedded_pubsub.py",
    "tests/contract/",
    "tests/unit/daemon/subscription/",
    f"{_UNIT}/charts/chart_img/test_client.py",
    f"{_UNIT}/execution/test_pipeline_stops.py",
)
#: The longest of those that compute.
COMPUTING = (
    "tests/explorer/",
    "tests/deploy/test_container.py",
    f"{_LOCAL}/test_sweeps.py",
    f"{_LOCAL}/test_study_values.py",
    f"{_UNIT}/ledger/test_claims_machine.py",
)
#: One worker in so many begins with tests that compute.
COMPUTING_SHARE = 4


def unit_of(nodeid: str) -> str:
    """Return the name of the unit that a test belongs to."""
    if nodeid.startswith(LONG_PAUSE):
        return nodeid
    if nodeid.startswith(IN_BROWSER):
        return PAGE
    if OFFICIAL in nodeid:
        return OFFICIAL
    if nodeid.startswith(ONE_BY_ONE) and not nodeid.startswith(TOGETHER):
        return nodeid
    return nodeid.partition("::")[0]


class Units(LoadScopeScheduling):  # type: ignore[misc]
    """A scheduler that gives whole units to workers, of each kind in the order of collection."""

    def _split_scope(self, nodeid: str) -> str:
        return unit_of(nodeid)

    def _assign_work_unit(self, node: WorkerController) -> None:
        computes = self.nodes.index(node) < max(1, len(self.nodes) // COMPUTING_SHARE)
        unit = next((unit for unit in self.workqueue if _waits(unit) != computes), None)
        if unit is not None:
            self.workqueue.move_to_end(unit, last=False)
        super()._assign_work_unit(node)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling | None:
    """Use our units for `--dist loadscope`."""
    if config.getvalue("dist") != "loadscope":
        return None
    config.option.loadscopereorder = False
    return Units(config, log)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the longest units of each kind first, in the workers of xdist."""
    for item in items:
        if item.get_closest_marker("official") and OFFICIAL not in item.nodeid:
            raise pytest.UsageError(f"{item.nodeid} is marked `official`: its id must say so")
    if hasattr(config, "workerinput"):
        items.sort(key=_rank)


def _waits(unit: str) -> bool:
    return unit.startswith(WAITING)


def _rank(item: pytest.Item) -> int:
    unit, firsts = unit_of(item.nodeid), WAITING + COMPUTING
    return next((rank for rank, start in enumerate(firsts) if unit.startswith(start)), len(firsts))
