"""Which fault fires for which call, and how often."""

from __future__ import annotations

import pytest

from localcloud import Fault, LocalCloud
from localcloud.faults import Faults
from localcloud.service import Calls


def test_without_faults_all_is_well():
    """Without armed faults no fault fires."""
    faults = Faults()
    assert not faults.armed
    assert faults.take("Commit") is None


def test_a_fault_strikes_its_method_only():
    """A fault fires for its method only; `*` is every method."""
    faults = Faults()
    commit = Fault(method="Commit")
    faults.add(commit)
    assert faults.take("RunQuery") is None
    assert faults.take("Commit") is commit
    faults.clear()
    faults.add(Fault())
    assert faults.take("RunQuery") is not None


def test_a_fault_strikes_its_subject_only():
    """A fault fires for calls whose subject contains its text."""
    faults = Faults()
    faults.add(Fault(match="runs/r1"))
    assert faults.take("Commit", "projects/p/runs/r2") is None
    assert faults.take("Commit", "projects/p/runs/r1") is not None


def test_a_fault_skips_then_strikes_so_many_times():
    """A fault skips the first `skip` calls and then fires `times` times."""
    faults = Faults()
    fault_id = faults.add(Fault(skip=2, times=3))
    struck = [faults.take("Commit") is not None for _ in range(7)]
    assert struck == [False, False, True, True, True, False, False]
    assert faults.fired(fault_id) == 3


def test_the_first_armed_fault_wins_then_the_next():
    """One fault fires per call, in the order in which they were armed."""
    faults = Faults()
    first, second = Fault(times=1), Fault(method="Commit")
    faults.add(first)
    faults.add(second)
    assert [faults.take("Commit"), faults.take("Commit")] == [first, second]


def test_a_removed_fault_strikes_no_more():
    """A removed fault no longer fires; others stay armed."""
    faults = Faults()
    fault_id = faults.add(Fault(method="a"))
    faults.add(Fault(method="b"))
    faults.remove(fault_id)
    assert faults.take("a") is None
    assert faults.take("b") is not None
    assert faults.fired(fault_id) == 0


def test_chance_is_seeded():
    """With the same seed a fault fires at the same calls, at about its probability."""

    def pattern(seed):
        faults = Faults(seed)
        faults.add(Fault(probability=0.3))
        return [faults.take("Commit") is not None for _ in range(1000)]

    assert pattern(7) == pattern(7)
    assert pattern(7) != pattern(8)
    assert 250 < sum(pattern(7)) < 350


def test_calls_are_counted_by_method():
    """Calls are counted per method; unknown ones are 0, and `wait_for` ends at the count."""
    calls = Calls()
    calls.add("Commit")
    calls.add("Commit", 2)
    assert (calls["Commit"], calls["RunQuery"]) == (3, 0)
    assert calls.as_dict() == {"Commit": 3}
    assert calls.wait_for("Commit", 3, timeout_seconds=0)
    assert not calls.wait_for("Commit", 4, timeout_seconds=0.01)
    calls.reset()
    assert calls.as_dict() == {}


@pytest.mark.parametrize(
    ("service", "fault"),
    [
        ("firestore", Fault(method="Comit")),
        ("firestore", Fault(method="Deliver")),
        ("firestore", Fault(error=503)),
        ("firestore", Fault(error="DOWN")),
        ("firestore", Fault(reset=True)),
        ("pubsub", Fault(contend=True)),
        ("pubsub", Fault(commits_per_second=1.0)),
        ("pubsub", Fault(answer="html")),
        ("storage", Fault(method="upload")),
        ("storage", Fault(error="UNAVAILABLE")),
        ("storage", Fault(error=200)),
        ("storage", Fault(drop=True)),
        ("chart_img", Fault(duplicate=True)),
        ("chart_img", Fault(answer="nope")),
    ],
)
def test_a_fault_that_could_never_strike_is_refused(service, fault):
    """A fault that could never fire is refused, so that no test passes because of a misspelt fault."""
    services = LocalCloud().services
    with pytest.raises(ValueError, match="no "):
        services[service].faults.add(fault)
    assert not services[service].faults.armed
