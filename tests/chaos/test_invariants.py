"""Each invariant finds the hand-made end state that breaks it, and no other does."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from daemon.cli.demo.resources import chart_step_id, flow_run
from tests.chaos.end_state import (
    Claim,
    Completion,
    Disturbance,
    EndState,
    Expected,
    PaidChart,
    StoredFile,
    Transition,
)
from tests.chaos.invariants import violations

RUN = "20251215-102530_IBM_abc123"
STEP = chart_step_id("1d")
FOLDER = f"charts/{RUN}/{STEP}/"
PNGS = {name: f"{FOLDER}20251215-102530_IBM_1d_{name}.png" for name in ("one", "two")}
EXPECTED = Expected(run_id=RUN, step_id=STEP, template_ids=("one", "two"))
PIDS = {"a": 42, "b": 43}
CLAIM = Transition(at=100.0, run_id=RUN, step_id=STEP, before="READY", after="RUNNING")
FINAL = Transition(
    at=110.0,
    run_id=RUN,
    step_id=STEP,
    before="RUNNING",
    after="SUCCEEDED",
    token="secret",  # noqa: S106 - a lease's
    owner="host:42:boot",
    acquired_at=100.0,
    lease_deleted=True,
)


def run(status="SUCCEEDED", **fields):
    """Return a run with one chart step."""
    document = flow_run(RUN, "IBM", {"1d": "gs://b/candles.json"}, ["one", "two"])
    uri = f"gs://b/{FOLDER}manifest.json"
    outputs = {"gcs_uri": uri, "outputsManifestGcsUri": uri} if status == "SUCCEEDED" else {}
    document["steps"][STEP] |= {"status": status, "outputs": outputs, **fields}
    return document


def manifest(*, items=("one", "two"), created_at="1970-01-01T00:01:45Z"):
    """Return the manifest's file, written 5 s before the finalize."""
    shown = [
        {
            "chartTemplateId": name,
            "kind": "k",
            "generatedAt": created_at,
            "png_gcs_uri": f"gs://b/{PNGS[name]}",
        }
        for name in items
    ]
    document = {
        "schemaVersion": 1,
        "runId": RUN,
        "stepId": STEP,
        "createdAt": created_at,
        "symbol": "IBM",
        "timeframe": "1d",
        "minImages": 2,
        "requested": [{"chartTemplateId": name} for name in items],
        "items": shown,
    }
    return StoredFile(created=105.0, updated=105.0, content=json.dumps(document).encode())


def files(**changed):
    """Return the files in the bucket: both pictures and the manifest."""
    pictures = {name: StoredFile(created=103.0, updated=103.0) for name in PNGS.values()}
    return {**pictures, f"{FOLDER}manifest.json": manifest(), **changed}


def paid(*calls):
    """Return paid charts: (template, daemon, time)."""
    return tuple(
        PaidChart(template_id=name, daemon=daemon, at=at, pid=PIDS[daemon]) for name, daemon, at in calls
    )


def claims(**times):
    """Return claims of the step by daemons, with their times."""
    return tuple(
        Claim(at=at, run_id=RUN, step_id=STEP, owner=f"host:{PIDS[daemon]}:boot")
        for daemon, at in times.items()
    )


GOOD = EndState(
    bucket="b",
    expected=(EXPECTED,),
    runs={RUN: run()},
    transitions=(CLAIM, FINAL),
    claims=claims(a=100.0, b=102.4),
    files=files(),
    paid=paid(("one", "a", 101.0), ("two", "a", 102.0)),
    completions=(Completion(pid=42, run_id=RUN, step_id=STEP),),
)
KILLED = Disturbance(kind="kill", at=102.0, until=102.0, daemon="a")
PAID_TWICE = paid(("one", "a", 101.0), ("one", "b", 102.5), ("two", "b", 102.5))
FAILED = run("FAILED", error={"code": "CRASH_LOOP", "message": "It crashes."})

ALLOWED = {
    "all well": GOOD,
    "no log of commits": replace(GOOD, transitions=None, unacked=None),
    "paid twice, and a kill explains it": replace(GOOD, paid=PAID_TWICE, disturbances=(KILLED,)),
    "paid twice, and an outage explains it": replace(
        GOOD, paid=PAID_TWICE, disturbances=(Disturbance(kind="outage", at=99.0, until=102.0),)
    ),
    "paid after a former holder stored it, but claimed before": replace(
        GOOD, paid=paid(("one", "a", 101.0), ("one", "b", 103.5)), disturbances=(KILLED,)
    ),
    "failed as a whole": replace(
        GOOD,
        expected=(replace(EXPECTED, statuses=frozenset({"FAILED"})),),
        runs={RUN: FAILED},
        transitions=(CLAIM, replace(FINAL, after="FAILED")),
        files={},
    ),
    "deleted by the orchestrator": replace(
        GOOD,
        expected=(replace(EXPECTED, statuses=frozenset({"GONE"}), meddled=True),),
        runs={RUN: None},
        transitions=(CLAIM, replace(CLAIM, at=105.0, before="RUNNING", after=None, foreign=True)),
        completions=(),
    ),
    "reset by the orchestrator, and worked anew": replace(
        GOOD,
        expected=(replace(EXPECTED, meddled=True),),
        transitions=(
            CLAIM,
            replace(CLAIM, at=101.0, before="RUNNING", after="READY", foreign=True),
            replace(CLAIM, at=102.0),
            FINAL,
        ),
        files=files(**{f"{FOLDER}20251215-102529_IBM_1d_one.png": StoredFile(created=100.5, updated=100.5)}),
        paid=PAID_TWICE,
    ),
}

BROKEN = {
    "is RUNNING, expected SUCCEEDED": replace(GOOD, runs={RUN: run("RUNNING")}, transitions=None),
    "is still RUNNING": replace(GOOD, runs={RUN: run("RUNNING")}, transitions=None),
    "is GONE, expected SUCCEEDED": replace(GOOD, runs={RUN: None}, transitions=None),
    "its last logged change was to FAILED": replace(
        GOOD, transitions=(CLAIM, replace(FINAL, after="FAILED"))
    ),
    "changed by a worker from SUCCEEDED to SUCCEEDED": replace(
        GOOD,
        transitions=(CLAIM, FINAL, replace(FINAL, before="SUCCEEDED", token="other")),  # noqa: S106
    ),
    "changed by a worker from RUNNING to READY": replace(
        GOOD, transitions=(CLAIM, replace(CLAIM, before="RUNNING", after="READY"), CLAIM, FINAL)
    ),
    "was finalized 2 times": replace(
        GOOD,
        transitions=(CLAIM, FINAL, CLAIM, replace(FINAL, token="other")),  # noqa: S106
    ),
    "no worker finalized it": replace(
        GOOD, transitions=(CLAIM, replace(FINAL, foreign=True)), completions=()
    ),
    "without deleting a lease": replace(GOOD, transitions=(CLAIM, replace(FINAL, lease_deleted=False))),
    "without a lease": replace(GOOD, transitions=(CLAIM, replace(FINAL, token=""))),
    "one token finalized twice": replace(GOOD, transitions=(CLAIM, FINAL, CLAIM, FINAL)),
    "manifest.json is missing": replace(
        GOOD, files={name: file for name, file in files().items() if name.endswith(".png")}
    ),
    "as its manifest, expected": replace(GOOD, runs={RUN: run(outputs={"gcs_uri": "gs://b/other.json"})}),
    "'runId' is a required property": replace(
        GOOD,
        files=files(**{f"{FOLDER}manifest.json": replace(manifest(), content=b'{"schemaVersion": 1}')}),
    ),
    "requested were": replace(GOOD, files=files(**{f"{FOLDER}manifest.json": manifest(items=("one",))})),
    "which does not exist": replace(
        GOOD, files={name: file for name, file in files().items() if name != PNGS["two"]}
    ),
    "is in no manifest": replace(
        GOOD,
        files=files(**{f"{FOLDER}20251215-102529_IBM_1d_one.png": StoredFile(created=101.0, updated=101.0)}),
    ),
    "made before the winner's claim": replace(
        GOOD, files=files(**{f"{FOLDER}manifest.json": manifest(created_at="1970-01-01T00:01:39Z")})
    ),
    "written after the step was finalized": replace(
        GOOD, files=files(**{f"{FOLDER}manifest.json": replace(manifest(), updated=111.0)})
    ),
    "one was paid for by a and again by b": replace(GOOD, paid=PAID_TWICE),
    "when it was stored already": replace(GOOD, claims=claims(a=103.5), paid=paid(("one", "a", 104.0))),
    "by a, which had not claimed the step": replace(GOOD, claims=claims(b=100.0, a=102.0)),
    "the lease flow_runs/": replace(GOOD, leases=(f"flow_runs/{RUN}/chart_export_leases/{STEP}",)),
    "belongs to no step": replace(
        GOOD, files=files(**{"charts/other/s/x.png": StoredFile(created=1.0, updated=1.0)})
    ),
    "Additional properties are not allowed": replace(GOOD, runs={RUN: run(leaseToken="x")}),
    "3 messages are not settled": replace(GOOD, unacked=3),
    "process 7 logged a finish": replace(
        GOOD, completions=(*GOOD.completions, Completion(pid=7, run_id=RUN, step_id=STEP))
    ),
    "printed a line": replace(GOOD, oddities=("a printed a line",)),
}


@pytest.mark.parametrize("name", ALLOWED)
def test_an_allowed_end_state_has_no_violation(name):
    """An allowed end state has no violation."""
    assert violations(ALLOWED[name]) == []


@pytest.mark.parametrize("text", BROKEN)
def test_each_rule_finds_what_breaks_it(text):
    """Each wrong end state has exactly the violation of its rule."""
    assert any(text in sentence for sentence in violations(BROKEN[text])), violations(BROKEN[text])


@pytest.mark.parametrize(
    ("payers", "changed"),
    [("aa", {}), ("ab", {"transitions": None}), ("ab", {"claims": claims(a=1, b=103.1)})],
)
def test_a_chart_that_was_stored_is_paid_for_only_by_an_older_claim(payers, changed):
    """That excuses neither a second payment within one claim, nor one of a claim unknown or too late."""
    first, second = payers
    twice = paid(("one", first, 101.0), ("one", second, 103.5))
    found = violations(replace(GOOD, paid=twice, disturbances=(KILLED,), **changed))
    assert found == [f"one was paid for by {second} when it was stored already"]


def test_a_disturbance_of_another_daemon_is_no_excuse():
    """Only a disturbance of the first payer, before the second payment, excuses a second payment."""
    for changed in ({"daemon": "c"}, {"at": 102.6, "until": 102.6}, {"at": 99.0, "until": 100.0}):
        assert violations(replace(GOOD, paid=PAID_TWICE, disturbances=(replace(KILLED, **changed),)))
