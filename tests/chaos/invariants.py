"""The invariants that hold when all work has ended, whatever happened to the daemons."""

from __future__ import annotations

import json
from datetime import datetime
from importlib.resources import files
from itertools import chain, groupby, pairwise
from typing import TYPE_CHECKING, Any

from jsonschema import Draft202012Validator, FormatChecker

from tests.chaos.end_state import GONE, folder_of, is_finalize, pid_in
from worker_chart_export.outputs.bucket_probe import PROBE_FOLDER

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.chaos.end_state import EndState, Expected, PaidChart, Transition

FINAL = frozenset({"SUCCEEDED", "FAILED", "SKIPPED", "CANCELLED"})
#: The status changes of a worker. All others are the orchestrator's.
WORKERS_CHANGES = frozenset({("READY", "RUNNING"), ("RUNNING", "SUCCEEDED"), ("RUNNING", "FAILED")})
#: Object times are truncated to milliseconds.
CLOCK_GRAIN_SECONDS = 0.001


def violations(state: EndState) -> list[str]:
    """Return the violated invariants of an end state, one sentence each. Pure."""
    of_steps = (
        rule(state, expected)
        for expected in state.expected
        for rule in (_status, _changes, _finalizes, _charts, _payments)
    )
    of_all = (rule(state) for rule in (_strays, _running, _valid_runs, _settled, _completions))
    return [*chain.from_iterable(of_steps), *chain.from_iterable(of_all), *state.oddities]


def _status(state: EndState, expected: Expected) -> Iterator[str]:
    step = state.step(expected)
    status = GONE if step is None else step["status"]
    if status not in expected.statuses:
        wanted = " or ".join(sorted(expected.statuses))
        why = (step or {}).get("error")
        yield f"{expected.prefix} is {status}, expected {wanted}{f': {why}' if why else ''}"
    path = state.path(expected)
    if path and (path[-1].after or GONE) != status:
        yield f"{expected.prefix} is {status}, but its last logged change was to {path[-1].after}"


def _changes(state: EndState, expected: Expected) -> Iterator[str]:
    """Workers change READY to RUNNING and RUNNING to a final status, and nothing else."""
    for change in state.path(expected):
        if not change.foreign and (change.before, change.after) not in WORKERS_CHANGES:
            yield f"{expected.prefix} was changed by a worker from {change.before} to {change.after}"
    if state.transitions is None:
        return
    finals = sum(is_finalize(change) for change in state.path(expected))
    step = state.step(expected)
    if step is not None and step["status"] in {"SUCCEEDED", "FAILED"} and finals == 0:
        yield f"{expected.prefix} is {step['status']} and no worker finalized it"
    if finals > 1 and not expected.meddled:
        yield f"{expected.prefix} was finalized {finals} times"


def _finalizes(state: EndState, expected: Expected) -> Iterator[str]:
    """Each token finalizes once, and its lease is deleted in the same commit."""
    finals = [change for change in state.path(expected) if is_finalize(change)]
    for change in finals:
        if not change.lease_deleted:
            yield f"{expected.prefix} was finalized without deleting a lease in the same commit"
        if change.after == "SUCCEEDED" and not change.token:
            yield f"{expected.prefix} was finalized without a lease"
    tokens = [change.token for change in finals if change.token]
    if len(set(tokens)) < len(tokens):
        yield f"{expected.prefix}: one token finalized twice"


def _charts(state: EndState, expected: Expected) -> Iterator[str]:
    """The manifest is the winner's, and it lists exactly the objects in the bucket."""
    step = state.step(expected)
    if step is None or step["status"] not in {"SUCCEEDED", "FAILED"}:
        return
    name = f"{expected.prefix}manifest.json"
    uri = f"gs://{state.bucket}/{name}"
    named = _named_manifests(step)
    if step["status"] == "FAILED" and not named:
        return  # no chart succeeded: no manifest
    if named != {uri}:
        yield f"{expected.prefix} names {sorted(map(str, named))} as its manifest, expected {uri}"
    if name not in state.files:
        yield f"{name} is missing"
        return
    yield from _manifest(state, expected, name)


def _named_manifests(step: Any) -> set[Any]:
    if step["status"] == "FAILED":
        details = step.get("error", {}).get("details", {})
        return {details["manifestGcsUri"]} if "manifestGcsUri" in details else set()
    return {step["outputs"].get(key) for key in ("outputsManifestGcsUri", "gcs_uri")}


def _manifest(state: EndState, expected: Expected, name: str) -> Iterator[str]:
    manifest = json.loads(state.files[name].content)
    for error in MANIFEST_SCHEMA.iter_errors(manifest):
        yield f"{name}: {error.message:.200}"
        return
    made = [item["chartTemplateId"] for item in manifest["items"]]
    failed = [failure["request"]["chartTemplateId"] for failure in manifest.get("failures", [])]
    if sorted(made + failed) != sorted(expected.template_ids):
        yield f"{name} lists {made} and {failed}, requested were {list(expected.template_ids)}"
    listed = {item["png_gcs_uri"].removeprefix(f"gs://{state.bucket}/") for item in manifest["items"]}
    present = set(state.files_of(expected)) - {name}
    for png in sorted(listed - present):
        yield f"{name} lists {png}, which does not exist"
    for png in sorted(present - listed) if not expected.meddled else ():
        yield f"{png} is in no manifest"
    yield from _by_the_winner(state, expected, name, manifest["createdAt"])


def _by_the_winner(state: EndState, expected: Expected, name: str, created_at: str) -> Iterator[str]:
    final = state.last_final(expected)
    if final is None:
        return
    slack = CLOCK_GRAIN_SECONDS + state.clock_slack_seconds
    if datetime.fromisoformat(created_at).timestamp() < final.acquired_at - slack:
        yield f"{name} was made before the winner's claim"
    if state.files[name].updated > final.at:
        yield f"{name} was written after the step was finalized"


def _payments(state: EndState, expected: Expected) -> Iterator[str]:
    """No chart is paid for twice, unless its first payer was disturbed before it was stored.

    A claim reuses what it finds stored. It may pay for a chart that a former holder, which had begun to store
    it, stores only after the claim.
    """
    if expected.meddled:
        return
    for template_id in expected.template_ids:
        calls = sorted(state.paid_for(template_id), key=lambda paid: paid.at)
        stored = [
            file.created
            for name, file in state.files_of(expected).items()
            if name.endswith(f"_{template_id}.png")
        ]
        for earlier, later in pairwise(calls):
            if not _explained(state, earlier, later):
                yield f"{template_id} was paid for by {earlier.daemon} and again by {later.daemon}"
        claims = [_claimed_at(state, expected, call) for call in calls]
        for index, (call, claimed_at) in enumerate(zip(calls, claims, strict=True)):
            if claimed_at == 0.0:
                yield f"{template_id} was paid for by {call.daemon}, which had not claimed the step"
            before = call.at if claimed_at in claims[:index] else claimed_at
            if stored and before > min(stored) + CLOCK_GRAIN_SECONDS:
                yield f"{template_id} was paid for by {call.daemon} when it was stored already"


def _claimed_at(state: EndState, expected: Expected, call: PaidChart) -> float:
    """Return the time of the last claim by the payer before the call; 0 without one.

    Without a log of commits it is the time of the call.
    """
    if state.transitions is None:
        return call.at
    return max(
        (
            claim.at
            for claim in state.claims_of(expected)
            if pid_in(claim.owner) == call.pid and claim.at <= call.at
        ),
        default=0.0,
    )


def _explained(state: EndState, earlier: PaidChart, later: PaidChart) -> bool:
    return any(
        disturbance.daemon in ("", earlier.daemon)
        and disturbance.at <= later.at
        and disturbance.until >= earlier.at
        for disturbance in state.disturbances
    )


def _strays(state: EndState) -> Iterator[str]:
    yield from (f"the lease {path} is left" for path in state.leases)
    # A process that is killed between the two calls of its probe leaves the probe's object.
    folders = {expected.prefix for expected in state.expected}
    for name in state.files:
        if folder_of(name) not in folders and not name.startswith(PROBE_FOLDER):
            yield f"{name} belongs to no step"


def _running(state: EndState) -> Iterator[str]:
    for run_id, run in state.runs.items():
        for step_id, step in (run["steps"] if run else {}).items():
            if step["status"] == "RUNNING":
                yield f"{run_id} {step_id} is still RUNNING"


def _valid_runs(state: EndState) -> Iterator[str]:
    """Every run validates against the closed schema, so no lease field can be in it."""
    for run_id, run in state.runs.items():
        for error in RUN_SCHEMA.iter_errors(run) if run else ():
            yield f"{run_id}: {error.json_path}: {error.message:.200}"


def _settled(state: EndState) -> Iterator[str]:
    if state.unacked:
        yield f"{state.unacked} messages are not settled"


def _completions(state: EndState) -> Iterator[str]:
    """Only the holder of the lease that ended with a step reports the step as completed."""
    if state.transitions is None:
        return
    winners = {
        key: [pid_in(change.owner) for change in changes]
        for key, changes in groupby(sorted(filter(is_finalize, state.transitions), key=_key), _key)
    }
    for claimed in state.completions:
        if claimed.pid not in winners.get((claimed.run_id, claimed.step_id), []):
            yield f"process {claimed.pid} logged a finish of {claimed.run_id} {claimed.step_id}, not its own"


def _key(change: Transition) -> tuple[str, str]:
    return change.run_id, change.step_id


def _schema(name: str) -> Draft202012Validator:
    text = files("worker_chart_export").joinpath(f"data/contracts/{name}.schema.json").read_text("utf-8")
    return Draft202012Validator(json.loads(text), format_checker=FormatChecker())


RUN_SCHEMA = _schema("flow_run")
MANIFEST_SCHEMA = _schema("charts_outputs_manifest")
