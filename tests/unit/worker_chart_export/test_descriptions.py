from __future__ import annotations

import pytest

from worker_chart_export.descriptions import DESCRIPTIONS, describe
from worker_chart_export.errors import ErrorCode
from worker_chart_export.ledger.decisions import Reason


def test_every_code_and_reason_has_a_description():
    """And nothing else has one."""
    assert DESCRIPTIONS.keys() == {*ErrorCode, *Reason}


@pytest.mark.parametrize("text", DESCRIPTIONS.values())
def test_a_description_can_follow_a_colon(text):
    """It begins in lower case unless it begins with a name, and has no full stop."""
    assert text[0].islower() or text.startswith(("Cloud Storage", "Firestore"))
    assert not text.endswith(".")


def test_an_unknown_code_has_no_description():
    """Callers then show the code alone."""
    assert describe("FROM_A_LATER_VERSION") == ""
