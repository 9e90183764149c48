from __future__ import annotations

import pytest

from worker_chart_export.descriptions import DESCRIPTIONS, describe
from worker_chart_export.errors import ErrorCode
from worker_chart_export.ledger.decisions import Reason


def test_every_code_and_reason_has_a_description():
    """Every code and reason has a description, and there are no others."""
    assert DESCRIPTIONS.keys() == {*ErrorCode, *Reason}


@pytest.mark.parametrize("text", DESCRIPTIONS.values())
def test_a_description_can_follow_a_colon(text):
    """A description begins in lower case, unless with a name, and has no full stop."""
    assert text[0].islower() or text.startswith(("Cloud Storage", "Firestore"))
    assert not text.endswith(".")


def test_an_unknown_code_has_no_description():
    """An unknown code has no description; callers show only the code."""
    assert describe("FROM_A_LATER_VERSION") == ""
