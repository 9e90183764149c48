"""How many calls a daemon makes for its steps: work is counted here, and time only in the benchmarks."""

from __future__ import annotations

from collections import Counter

import pytest

from localcloud.faults import Fault
from localcloud.firestore.writes import target

STEPS, CHARTS = 5, 3
RUNS, TEMPLATES, USAGE = "flow_runs", "chart_templates", "chart_img_accounts_usage"
#: What comes by the clock: a heart-beat each 1,200 s, and at random times up to a day and 540 s after the
#: start the first look of the rescue and the client's first renewal of what it holds of Pub/Sub.
SELDOM = {"LEASE_SECONDS": "3600", "RESCUE_INTERVAL_SECONDS": "86400", "ACK_EXTENSION_SECONDS": "600"}


class Counted:
    """What is asked of the embedded cloud from `begin` on."""

    def __init__(self, deployment):
        self._cloud = deployment.cloud
        self._read: list[str] = []
        self._sent: list[str] = []
        self._commits_before = 0

    def begin(self):
        """Count from here."""
        firestore = self._cloud.firestore
        self._commits_before = len(firestore.commits)
        firestore.faults.add(Fault(method="BatchGetDocuments", before=self._note_read))
        firestore.faults.add(Fault(method="Commit", before=self._note_commit))
        for service in self._cloud.services.values():
            service.calls.reset()

    def _note_read(self, request):
        self._read.extend(_collection(name) for name in request.documents)

    def _note_commit(self, request):
        self._sent.append(_collection(target(request.writes[0])))

    @property
    def read(self):
        """How many documents of each collection were read; a run's leases belong to it."""
        return Counter(self._read)

    @property
    def sent(self):
        """How many commits were sent to change a document of each collection, those too that lost a race."""
        return Counter(self._sent)

    @property
    def commits(self):
        """How many commits changed a document of each collection."""
        made = list(self._cloud.firestore.commits)[self._commits_before :]
        return Counter(_collection(committed.changed[0]) for committed in made)

    def calls(self, *services):
        """Calls of these services by method; one never called is left out."""
        counts = (self._cloud.services[name].calls.as_dict() for name in services)
        return sum(map(Counter, counts), Counter())


def _collection(name):
    return name.partition("/documents/")[2].partition("/")[0]


@pytest.fixture
def counted(deployment):
    """Counts calls on the deployment's cloud."""
    return Counted(deployment)


def _runs(deployment, count):
    return [deployment.put_run(charts=CHARTS) for _ in range(count)]


def _publish(deployment, named):
    for run_id, step_id in named:
        deployment.publish_step(run_id, step_id)


def _work(deployment, daemon, named, *, before=0):
    _publish(deployment, named)
    _wait_for_work(deployment, daemon, named, before=before)


def _wait_for_work(deployment, daemon, named, *, before=0):
    daemon.wait_for_event("message_settled", count=before + len(named))
    statuses = Counter(line["status"] for line in daemon.named("step_completed"))
    assert statuses == {"SUCCEEDED": before + len(named)}
    assert deployment.cloud.pubsub.calls.wait_for("Acked", len(named), timeout_seconds=30)  # sent by a thread


def _work_uncontended(deployment, counted):
    """One step after the other, each of a run of its own; counted from the second on."""
    first, *others = [(run_id, step_ids[0]) for run_id, step_ids in _runs(deployment, STEPS + 1)]
    with deployment.daemon(WORKER_CONCURRENCY="1", **SELDOM).started() as daemon:
        _work(deployment, daemon, [first])
        counted.begin()
        _work(deployment, daemon, others, before=1)


def test_an_uncontended_step_costs_no_more_than_it_must(deployment, counted):
    """A read, two commits, a call and an upload a chart, the manifest, and at most one count a chart."""
    _work_uncontended(deployment, counted)
    assert counted.read[RUNS] == STEPS
    assert counted.commits[RUNS] == 2 * STEPS
    assert 1 <= counted.read[USAGE] <= CHARTS * STEPS
    assert 1 <= counted.commits[USAGE] <= CHARTS * STEPS
    assert set(counted.read) | set(counted.commits) == {RUNS, USAGE}
    expected = {"objects.insert": (CHARTS + 1) * STEPS, "advanced-chart": CHARTS * STEPS}
    assert counted.calls("storage", "chart_img") == expected


def test_an_uncontended_step_asks_nothing_else_of_firestore_and_pubsub(deployment, counted):
    """No query, no list, no lost race, no call of Pub/Sub but to receive a message and to ack it."""
    _work_uncontended(deployment, counted)
    firestore, pubsub = counted.calls("firestore"), counted.calls("pubsub")
    assert firestore.pop("RunQuery", 0) <= 1  # a look of the rescue, if its time came just now
    assert firestore == {"BatchGetDocuments": counted.read.total(), "Commit": counted.commits.total()}
    assert 1 <= pubsub.pop("Acknowledge") <= STEPS
    # The client confirms what it received before it hands it over; once it may renew what it holds.
    assert 1 <= pubsub.pop("ModifyAckDeadline") <= STEPS + 1
    # The test's own publishing, and what the embedded cloud notes beside calls; the stream was open before.
    assert pubsub == {"Publish": STEPS, "Deliver": STEPS, "Acked": STEPS}


def test_templates_are_read_once_in_their_cache_s_time(deployment, counted):
    """However many threads want them at once."""
    named = [(run_id, step_ids[0]) for run_id, step_ids in _runs(deployment, 16)]
    counted.begin()
    _publish(deployment, named)
    with deployment.daemon(WORKER_CONCURRENCY="16").started() as daemon:
        _wait_for_work(deployment, daemon, named)
    assert counted.read[TEMPLATES] == CHARTS


def test_a_large_run_is_committed_in_groups(deployment, counted):
    """Of 2 x 200 commits one by one at most 15 % are sent, lost races too; a read serves several steps."""
    run_id, step_ids = deployment.put_run(steps=200, charts=1)
    named = [(run_id, step_id) for step_id in step_ids]
    counted.begin()
    _publish(deployment, named)  # before the start: groups must not depend on how fast the test publishes
    with deployment.daemon(WORKER_CONCURRENCY="32").started() as daemon:
        _wait_for_work(deployment, daemon, named)
    assert counted.sent[RUNS] <= 0.15 * 2 * 200
    assert counted.read[RUNS] <= 0.6 * 200
