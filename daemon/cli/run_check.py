"""Look whether a message would have an effect, for the warnings of `publish`."""

from __future__ import annotations

import os
from contextlib import closing

from daemon.cli.places import place_of
from daemon.clients import firestore_client
from daemon.lifecycle.stoppable_wait import StoppableWait
from daemon.settings import FirestoreSettings, SettingsError, load_settings
from daemon.settings.emulators import Emulators
from worker_chart_export.descriptions import describe
from worker_chart_export.errors import RunInvalid, WorkerError, shown
from worker_chart_export.inputs.flow_run import FlowRun, StepStatus
from worker_chart_export.ledger.decisions import Reason
from worker_chart_export.ledger.run_snapshot import read_run
from worker_chart_export.timing import SystemClock

#: The message is sent already. The person waits no longer than this for a warning.
CHECK_SECONDS = 2.0
#: How many steps a sentence names.
MAX_STEPS = 3


def find_reason_for_no_effect(run_id: str, step_id: str | None) -> str | None:
    """Return why a message that names this run or step has no effect now, in one sentence.

    None: it has one, or the run can't be read within `CHECK_SECONDS`. The sender may lack the permission.
    """
    emulators = Emulators.of(os.environ)
    if (emulators.pubsub is None) is not (emulators.firestore is None):
        return None  # the message goes to a worker with another Firestore
    try:
        settings = load_settings(FirestoreSettings)
        reading = StoppableWait().start(lambda: _read(settings, run_id), name="run-check")
        why = why_no_effect(reading.result(CHECK_SECONDS), step_id)
    except RunInvalid as error:
        why = f"the run can't be read: {error}"
    except (SettingsError, WorkerError, TimeoutError):
        return None
    if why is None:
        return None
    step = "" if step_id is None else f", step {shown(step_id)[1:-1]}"
    return f"{why} (run {run_id}{step}, {place_of('firestore')})"


def why_no_effect(run: FlowRun | None, step_id: str | None) -> str | None:
    """Return why no step would be exported, or None. Pure.

    Raises:
        RunInvalid: The step can't be read.
    """
    if run is None:
        return describe(Reason.RUN_MISSING)
    if run.is_final:
        return describe(Reason.RUN_FINAL)
    if step_id is None:
        steps = [run.readable_step(name) for name in run.chart_step_ids()]
        # The lease of a RUNNING step may have expired, and then it is taken over.
        may_be_worked = any(step and step.status is StepStatus.RUNNING for step in steps)
        return None if run.eligible_step() or may_be_worked else why_no_step_is_eligible(run)
    step = run.step(step_id)
    if step is None:
        return describe(Reason.STEP_MISSING)
    if not step.is_chart_export:
        return describe(Reason.OTHER_TYPE)
    return describe(Reason.STEP_FINAL) if step.status.is_final else None


def why_no_step_is_eligible(run: FlowRun | None) -> str:
    """Return why no step of the run can be exported, with the first steps and what each waits for. Pure."""
    reason = "no step of the run is eligible"
    if run is None:
        return reason
    names = run.chart_step_ids()
    states = [f"{name} {_state(run, name)}" for name in names[:MAX_STEPS]]
    states += [f"{len(names) - MAX_STEPS} more"] if len(names) > MAX_STEPS else []
    return f"{reason}: {'; '.join(states) or 'it has no CHART_EXPORT step'}"


def _state(run: FlowRun, step_id: str) -> str:
    step = run.readable_step(step_id)
    if step is None:
        return "can't be read"
    if step.status is not StepStatus.READY:
        return f"is {step.status}"
    return f"waits for {', '.join(run.unmet_dependencies(step))}"


def _read(settings: FirestoreSettings, run_id: str) -> FlowRun | None:
    with closing(firestore_client(settings.google_cloud_project, settings.firestore_db)) as client:
        return read_run(client, run_id, SystemClock()).run
