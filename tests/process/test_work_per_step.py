"""How many calls a daemon makes for its steps: work is counted here, and time only in the benchmarks."""

from __future__ import annotations

from collections import Counter

import pytest

from localcloud.faults import Fault

STEPS, CHARTS = 5, 3
RUNS, TEMPLATES, USAGE = "flow_runs", "chart_templates", "chart_img_accounts_usage"


class Counted:
    """What is asked of the embedded cloud from `begin` on."""

    def __init__(self, scene):
        self._scene = scene
        self.read: Counter[str] = Counter()
        self._commits_before = 0

    def begin(self):
        """Count from here."""
        cloud = self._scene.cloud
        self._commits_before = len(cloud.firestore.commits)
        cloud.storage.calls.reset()
        cloud.chart_img.calls.reset()

        def note(request):
            self.read.update(_collection(name) for name in request.documents)

        cloud.firestore.faults.add(Fault(method="BatchGetDocuments", before=note))

    @property
    def commits(self):
        """How many commits changed a document of each collection; a run's leases belong to it."""
        made = list(self._scene.cloud.firestore.commits)[self._commits_before :]
        return Counter(_collection(committed.changed[0]) for committed in made)

    @property
    def calls(self):
        """Calls of Cloud Storage and of Chart-IMG."""
        return self._scene.cloud.storage.calls.as_dict() | self._scene.cloud.chart_img.calls.as_dict()


def _collection(name):
    return name.partition("/documents/")[2].partition("/")[0]


@pytest.fixture
def counted(scene):
    """Counts calls on the scene's cloud."""
    return Counted(scene)


def _work(scene, daemon, named, *, before=0):
    for run_id, step_id in named:
        scene.publish_step(run_id, step_id)
    daemon.wait_for_event("message_settled", count=before + len(named))
    statuses = Counter(line["status"] for line in daemon.named("step_completed"))
    assert statuses == {"SUCCEEDED": before + len(named)}


def test_an_uncontended_step_costs_no_more_than_it_must(scene, counted):
    """A read, two commits, a call and an upload a chart, the manifest, and at most one count a chart."""
    first, *others = [(run_id, step_ids[0]) for run_id, step_ids in _runs(scene, STEPS + 1)]
    with scene.daemon(WORKER_CONCURRENCY="1").started() as daemon:
        _work(scene, daemon, [first])
        counted.begin()
        _work(scene, daemon, others, before=1)
    assert counted.read[RUNS] == STEPS
    assert counted.commits[RUNS] == 2 * STEPS
    assert 1 <= counted.read[USAGE] <= CHARTS * STEPS
    assert 1 <= counted.commits[USAGE] <= CHARTS * STEPS
    assert set(counted.read) | set(counted.commits) == {RUNS, USAGE}
    assert counted.calls == {"objects.insert": (CHARTS + 1) * STEPS, "advanced-chart": CHARTS * STEPS}


def _runs(scene, count):
    return [scene.put_run(charts=CHARTS) for _ in range(count)]


def test_templates_are_read_once_in_their_cache_s_time(scene, counted):
    """However many threads want them at once."""
    named = [(run_id, step_ids[0]) for run_id, step_ids in _runs(scene, 16)]
    counted.begin()
    with scene.daemon(WORKER_CONCURRENCY="16").started() as daemon:
        _work(scene, daemon, named)
    assert counted.read[TEMPLATES] == CHARTS


def test_a_large_run_is_committed_in_groups(scene, counted):
    """Of 2 x 200 commits one by one at most 15 % remain, and one read serves several steps."""
    run_id, step_ids = scene.put_run(steps=200, charts=1)
    counted.begin()
    with scene.daemon(WORKER_CONCURRENCY="32").started() as daemon:
        _work(scene, daemon, [(run_id, step_id) for step_id in step_ids])
    assert counted.commits[RUNS] <= 0.15 * 2 * 200
    assert counted.read[RUNS] <= 0.6 * 200
