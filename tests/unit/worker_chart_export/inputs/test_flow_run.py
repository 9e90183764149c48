"""The typed view of a run: ids, statuses, dependencies, eligibility."""

from __future__ import annotations

import json
from importlib.resources import files

import pytest
from google.cloud.firestore_v1.field_path import FieldPath
from hypothesis import given
from hypothesis import strategies as st

from tests.support.fakes import OHLCV_ID, RUN_ID, STEP_ID, chart_step, ohlcv_step, run_document, run_of
from worker_chart_export.errors import RunInvalid
from worker_chart_export.inputs.flow_run import (
    MANIFEST_RUN_ID,
    FlowRun,
    RunStatus,
    StepStatus,
    why_run_id_refused,
    why_step_id_refused,
)

FINAL = {"SUCCEEDED", "FAILED", "SKIPPED", "CANCELLED"}


def test_white_space_around_the_ids_in_depends_on_is_left_out():
    """Ids in `dependsOn` are trimmed; an id that has white space itself is found as it is written."""
    run = run_of(
        {"d": ohlcv_step(), " e ": ohlcv_step(), "s": chart_step(dependsOn=[" d", "d\n", " e ", " f "])}
    )
    step = run.step("s")
    assert step is not None
    assert step.depends_on == ("d", "d", " e ", "f")
    assert run.unmet_dependencies(step) == ("f",)


def _schema_statuses(*path: str) -> set[str]:
    text = files("worker_chart_export").joinpath("data/contracts/flow_run.schema.json").read_text("utf-8")
    node = json.loads(text)
    for part in path:
        node = node[part]
    return set(node["enum"])


def _step_schema_path() -> tuple[str, ...]:
    schema = json.loads(
        files("worker_chart_export").joinpath("data/contracts/flow_run.schema.json").read_text("utf-8")
    )
    steps = schema["properties"]["steps"]["additionalProperties"]
    if "$ref" in steps:
        return (*steps["$ref"].removeprefix("#/").split("/"), "properties", "status")
    return ("properties", "steps", "additionalProperties", "properties", "status")


def test_step_statuses_hold_all_of_the_schema():
    """The enum has every step status of the schema."""
    assert _schema_statuses(*_step_schema_path()) <= set(StepStatus)


def test_run_statuses_hold_all_of_the_schema():
    """The enum has every run status of the schema."""
    assert _schema_statuses("properties", "status") <= set(RunStatus)


@pytest.mark.parametrize("status", StepStatus)
def test_which_step_statuses_are_final(status):
    """The final step statuses are those that are never changed again."""
    assert status.is_final is (status.value in FINAL)


@pytest.mark.parametrize("status", RunStatus)
def test_which_run_statuses_are_final(status):
    """The final run statuses are those of a finished orchestration."""
    assert run_of(status=status.value).is_final is (status.value in FINAL)


def test_the_example_of_the_contract_is_read():
    """The contract's example run is read, and its chart step is eligible."""
    document = json.loads(
        files("worker_chart_export").joinpath("data/contracts/flow_run.example.json").read_text("utf-8")
    )
    step = FlowRun.parse(document["runId"], document).eligible_step()
    assert step is not None
    assert step.step_id == "charts:1M:ctpl_price_ma1226_vol_v1"


@pytest.mark.parametrize("steps", [None, [], "x", 7])
def test_steps_that_are_no_map_make_the_run_invalid(steps):
    """Steps that are no map make the run invalid; the message names the field."""
    with pytest.raises(RunInvalid, match=r"^steps: expected a map"):
        FlowRun.parse(RUN_ID, run_document() | {"steps": steps})


@pytest.mark.parametrize("status", ["DONE", "running", 7, [], {}])
def test_an_unknown_run_status_makes_the_run_invalid(status):
    """An unknown run status makes the run invalid."""
    with pytest.raises(RunInvalid, match=r"^status: expected one of PENDING"):
        run_of(status=status)


@pytest.mark.parametrize(
    ("value", "flow_key"),
    [("report_v1", "report_v1"), ("x" * 1000, "x" * 128), ("", None), (None, None), (7, None), (["a"], None)],
)
def test_a_flow_key_is_a_text_of_limited_length(value, flow_key):
    """Each log line of a run holds its flow key, so it is a text and not longer than 128 characters."""
    assert FlowRun.parse("r", {"steps": {}, "flowKey": value}).flow_key == flow_key


def test_a_run_without_a_status_is_read():
    """A run without a status is read."""
    assert FlowRun.parse(RUN_ID, {"steps": {}}).is_final is False


@pytest.mark.parametrize("status", [None, "DONE", "ready", "", 7, ["READY"], {"READY": 1}])
def test_an_unknown_step_status_makes_the_step_invalid(status):
    """An unknown step status, of any type, makes the step invalid."""
    run = run_of({"s": {"stepType": "CHART_EXPORT", "status": status}})
    with pytest.raises(RunInvalid, match=r"^steps\.s\.status: expected one of PENDING"):
        run.step("s")


@pytest.mark.parametrize("raw", ["READY", 7, ["READY"]])
def test_a_step_that_is_no_map_is_invalid(raw):
    """A step that is no map is invalid; the message names the step."""
    with pytest.raises(RunInvalid, match=r"^steps\.s: expected a map"):
        run_of({"s": raw}).step("s")


def test_a_missing_step_is_none():
    """A missing step is None and not invalid."""
    assert run_of().step("other") is None


@pytest.mark.parametrize("depends_on", ["ohlcv", 7, {"a": 1}, [7], [None]])
def test_depends_on_must_be_a_list_of_ids(depends_on):
    """`dependsOn` must be a list of ids; a text is refused."""
    run = run_of({"s": chart_step(dependsOn=depends_on)})
    with pytest.raises(RunInvalid, match=r"^steps\.s\.dependsOn: expected a list"):
        run.step("s")


@pytest.mark.parametrize("depends_on", [None, []])
def test_a_step_without_dependencies_is_eligible(depends_on):
    """A step with absent or empty `dependsOn` is eligible."""
    step = run_of({"s": chart_step(dependsOn=depends_on)}).eligible_step()
    assert step is not None


@pytest.mark.parametrize("status", sorted(set(StepStatus) - {"SUCCEEDED"}))
def test_only_succeeded_dependencies_count(status):
    """Only the dependency status SUCCEEDED counts; SKIPPED does not."""
    run = run_of({"d": ohlcv_step(status=status), "s": chart_step(dependsOn=["d"])})
    assert run.eligible_step() is None


def test_all_dependencies_must_have_succeeded():
    """The unmet dependencies are named, also a missing step."""
    run = run_of(
        {"a": ohlcv_step(), "b": ohlcv_step(status="RUNNING"), "s": chart_step(dependsOn=["a", "b", "gone"])}
    )
    step = run.step("s")
    assert step is not None
    assert run.unmet_dependencies(step) == ("b", "gone")


@pytest.mark.parametrize("status", sorted(set(StepStatus) - {"READY"}))
def test_only_ready_steps_are_eligible(status):
    """Only READY steps are eligible."""
    assert run_of({"s": chart_step(status=status, dependsOn=[])}).eligible_step() is None


def test_steps_of_other_types_are_never_eligible():
    """Steps of other types are never eligible."""
    assert run_of({"s": ohlcv_step(status="READY")}).eligible_step() is None


def test_the_lowest_id_comes_first():
    """The lowest step id comes first, whatever the order in the document."""
    run = run_of({name: chart_step(dependsOn=[]) for name in ("c:2", "c:10", "b")})
    step = run.eligible_step()
    assert step is not None
    assert (step.step_id, run.chart_step_ids()) == ("b", ["b", "c:10", "c:2"])


@pytest.mark.parametrize(
    "broken",
    [{"a": chart_step(status="??")}, {"a": chart_step(dependsOn="x")}, {"a.b": chart_step(dependsOn=[])}],
)
def test_a_broken_sibling_is_skipped_and_named(broken):
    """A broken step is skipped and named, and the other steps are read."""
    run = run_of({**broken, "z": chart_step(dependsOn=[])})
    step = run.eligible_step()
    assert step is not None
    assert step.step_id == "z"
    assert len(run.invalid_steps()) == 1


def test_a_broken_dependency_makes_only_its_dependant_invalid():
    """A broken dependency makes only its dependant invalid; the message names the broken step."""
    run = run_of(
        {"bad": ohlcv_step(status="??"), "a": chart_step(dependsOn=["bad"]), "z": chart_step(dependsOn=[])}
    )
    (why,) = run.invalid_steps()
    assert why.startswith("steps.bad.status: expected one of PENDING, READY, ")


def test_a_broken_step_of_another_type_is_no_matter():
    """A broken step of another type is ignored unless a step depends on it."""
    assert run_of(
        {"x": {"stepType": "LLM", "status": "??"}, STEP_ID: chart_step(), OHLCV_ID: ohlcv_step()}
    ).eligible_step()


def test_unknown_fields_are_tolerated():
    """Unknown fields of the run and its steps are ignored."""
    assert run_of({"s": chart_step(dependsOn=[], novelty=1)}, novelty=2).eligible_step()


@pytest.mark.parametrize("inputs", [None, [], "x", 7])
def test_inputs_that_are_no_map_read_as_empty(inputs):
    """Inputs that are no map are read as empty; the export request reports what is missing."""
    step = run_of({"s": chart_step(inputs=inputs)}).step("s")
    assert step is not None
    assert step.inputs == {}


@pytest.mark.parametrize(
    "run_id", ["a", "20251215-102530_IBM_k3f7a", "a.b:c-d_e", "x" * 128, "_x_", "...", "__"]
)
def test_run_ids_that_may_be_used(run_id):
    """Run ids of 1 to 128 allowed characters are accepted."""
    assert why_run_id_refused(run_id) is None


@pytest.mark.parametrize(
    "run_id",
    [
        "",
        ".",
        "..",
        "__x__",
        "____",
        "x" * 129,
        "a/b",
        "a b",
        "a\n",
        "ä",
        "%2e",
        "a\x00",
        None,
        7,
        ["a"],
        {},
        b"a",
    ],
)
def test_run_ids_that_are_refused_name_the_field(run_id):
    """Other run ids are refused; the message begins with the field."""
    assert str(why_run_id_refused(run_id)).startswith("runId: expected ")


@pytest.mark.parametrize(
    "step_id",
    ["a", "charts:1M:ctpl_x", "with space", "ünï", "a\\b", '"', "'", "%2e", "#?&", "x" * 256, "é" * 128],
)
def test_step_ids_that_may_be_used(step_id):
    """Step ids with unusual characters are accepted as long as they have no meaning in a path."""
    assert why_step_id_refused(step_id) is None


@pytest.mark.parametrize("sign", [*"/.`[]*~", "\x00", "\n", "\x1f", "\x7f", "\x9f", "\ud800"])
def test_signs_with_a_meaning_are_refused_in_step_ids(sign):
    """Step ids with path signs, control characters or lone surrogates are refused."""
    assert str(why_step_id_refused(f"a{sign}b")).startswith("stepId: expected ")


@pytest.mark.parametrize("step_id", ["", "__x__", "x" * 257, "é" * 129, None, 7, [], {}])
def test_step_ids_that_are_empty_reserved_too_long_or_no_text_are_refused(step_id):
    """Step ids that are empty, reserved, no text or too long in UTF-8 bytes are refused."""
    assert why_step_id_refused(step_id)


@given(st.text())
def test_an_accepted_step_id_is_one_element_of_a_field_path(step_id):
    """Google's client reads an accepted step id back from the patch's field path."""
    if why_step_id_refused(step_id) is None:
        assert FieldPath.from_string(f"steps.{step_id}.status").parts == ("steps", step_id, "status")


@pytest.mark.parametrize(
    "run_id", ["20251215-102530_IBM_k3f7a", "20251215-102530_BRK-B_abc", "00000000-000000_A_000000"]
)
def test_run_ids_that_the_manifest_takes(run_id):
    """Run ids of the manifest schema's pattern are accepted."""
    assert MANIFEST_RUN_ID.fullmatch(run_id)


@pytest.mark.parametrize(
    "run_id", ["run-1", "20251215-102530_ibm_k3f7a", "20251215-102530_IBM_ab", "20251215-102530_IBM_k3f7a\n"]
)
def test_run_ids_that_the_manifest_refuses(run_id):
    """Run ids outside the manifest schema's pattern are refused."""
    assert MANIFEST_RUN_ID.fullmatch(run_id) is None
