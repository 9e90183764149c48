"""What may be an id."""

from __future__ import annotations

import pytest
from google.cloud.firestore_v1.field_path import FieldPath
from hypothesis import given
from hypothesis import strategies as st

from worker_chart_export.inputs.flow_run import MANIFEST_RUN_ID, why_run_id_refused, why_step_id_refused


@pytest.mark.parametrize(
    "run_id", ["a", "20251215-102530_IBM_k3f7a", "a.b:c-d_e", "x" * 128, "_x_", "...", "__"]
)
def test_run_ids_that_may_be_used(run_id):
    """1-128 characters of the alphabet."""
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
    """Anything else is refused in a sentence that begins with the field."""
    assert str(why_run_id_refused(run_id)).startswith("runId: expected ")


@pytest.mark.parametrize(
    "step_id",
    ["a", "charts:1M:ctpl_x", "with space", "ünï", "a\\b", '"', "'", "%2e", "#?&", "x" * 256, "é" * 128],
)
def test_step_ids_that_may_be_used(step_id):
    """Odd signs are fine as long as no path gives them a meaning."""
    assert why_step_id_refused(step_id) is None


@pytest.mark.parametrize("sign", [*"/.`[]*~", "\x00", "\n", "\x1f", "\x7f", "\x9f", "\ud800"])
def test_signs_with_a_meaning_are_refused_in_step_ids(sign):
    """Path signs, control characters and lone surrogates."""
    assert str(why_step_id_refused(f"a{sign}b")).startswith("stepId: expected ")


@pytest.mark.parametrize("step_id", ["", "__x__", "x" * 257, "é" * 129, None, 7, [], {}])
def test_step_ids_that_are_empty_reserved_too_long_or_no_text_are_refused(step_id):
    """The length counts in bytes of UTF-8."""
    assert why_step_id_refused(step_id)


@given(st.text())
def test_an_accepted_step_id_is_one_element_of_a_field_path(step_id):
    """Google's client reads back the very id from the field path that the patch is written under."""
    if why_step_id_refused(step_id) is None:
        assert FieldPath.from_string(f"steps.{step_id}.status").parts == ("steps", step_id, "status")


@pytest.mark.parametrize(
    "run_id", ["20251215-102530_IBM_k3f7a", "20251215-102530_BRK-B_abc", "00000000-000000_A_000000"]
)
def test_run_ids_that_the_manifest_takes(run_id):
    """The form its readers know."""
    assert MANIFEST_RUN_ID.fullmatch(run_id)


@pytest.mark.parametrize(
    "run_id", ["run-1", "20251215-102530_ibm_k3f7a", "20251215-102530_IBM_ab", "20251215-102530_IBM_k3f7a\n"]
)
def test_run_ids_that_the_manifest_refuses(run_id):
    """Everything else, however good as a document id."""
    assert MANIFEST_RUN_ID.fullmatch(run_id) is None
