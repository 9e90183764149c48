"""The check of a chart template before a step requests it."""

from __future__ import annotations

import json

import pytest
from pydantic import SecretStr

from daemon.cli.demo.resources import sample_templates
from daemon.cli.template_check import FITS, NOT_KNOWN, SIZE_NOT_KNOWN, review, review_file
from worker_chart_export.charts.chart_img.accounts import Account

SAMPLE = sample_templates()[0]
THREE_STUDIES = {**SAMPLE, "request": {"studies": [{"name": "MACD"}, {"name": "VWAP"}, {"name": "Volume"}]}}


def account(name, **settings):
    """Return an account with these settings."""
    return Account(id=name, api_key=SecretStr("key"), **settings)


@pytest.mark.parametrize("sample", sample_templates(), ids=lambda sample: sample["id"])
def test_the_reference_templates_are_good_and_fit_the_smallest_plan(sample):
    """The reference templates are valid and fit the smallest plan."""
    found = review(sample["id"], sample, [account("free", plan="BASIC")])
    assert (found.is_good, found.problems, found.accounts) == (True, (), {"free": FITS})


def test_each_account_has_its_own_result():
    """Each account has its own result: by its plan, its own limit, or unknown."""
    accounts = [
        account("small", max_parameters=2),
        account("basic", plan="BASIC"),
        account("unsaid"),
        account("both", plan="PRO", max_parameters=1),
    ]
    found = review(SAMPLE["id"], THREE_STUDIES, accounts)
    assert found.accounts == {
        "small": "3 studies and drawings, its plan allows 2",
        "basic": FITS,
        "unsaid": NOT_KNOWN,
        "both": "3 studies and drawings, its plan allows 1",
    }
    assert found.is_good


def test_a_picture_too_large_for_the_plan_is_reported():
    """A picture too large for the plan is reported before Chart-IMG refuses it."""
    large = {**SAMPLE, "request": {"width": 1920, "height": 1080}}
    found = review(SAMPLE["id"], large, [account("basic", plan="BASIC"), account("pro", plan="PRO")])
    assert found.accounts == {"basic": "1920x1080 pixels, its plan allows 800x600", "pro": FITS}


def test_without_a_plan_a_large_picture_is_not_known_to_fit():
    """Without a plan only sizes that every plan allows are known to fit."""
    accounts = [account("unsaid", max_parameters=5)]
    for size, word in (((800, 600), FITS), ((801, 600), SIZE_NOT_KNOWN), ((800, 601), SIZE_NOT_KNOWN)):
        request = {"width": size[0], "height": size[1]}
        found = review(SAMPLE["id"], {**SAMPLE, "request": request}, accounts)
        assert (found.accounts, found.is_good) == ({"unsaid": word}, True)
    assert "picture size" in SIZE_NOT_KNOWN


def test_a_template_that_fits_no_account_is_not_good():
    """A template that fits no account is not good, because every step with it would fail."""
    found = review(SAMPLE["id"], THREE_STUDIES, [account("small", max_parameters=2)])
    assert not found.problems
    assert not found.is_good


def test_without_accounts_they_are_not_mentioned():
    """Without accounts, as in `local` and `mock` mode, accounts are not mentioned."""
    assert review(SAMPLE["id"], THREE_STUDIES).is_good


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"request": {"studys": []}}, "request.studys: unknown key"),
        (
            {"request": {"studies": [{"name": "MACD", "inputs": {}}]}},
            "request.studies[0].inputs: unknown key",
        ),
        ({"request": {"width": 10}}, "request.width: expected a whole number"),
        ({"request": None}, "request: expected a map, got nothing"),
        ({"chartImgSymbolTemplate": "NYSE:IBM"}, "chartImgSymbolTemplate: expected a text holding {symbol}"),
        ({"id": "another"}, "id: expected ctpl_price_ma1226_bb_macd1226_v1, got 'another'"),
    ],
)
def test_errors_are_reported_with_their_path(change, message):
    """Errors are reported with their path; unknown keys are errors here and only warnings in a step."""
    found = review(SAMPLE["id"], {**SAMPLE, **change})
    assert not found.is_good
    assert found.problems[0].startswith(message)


def test_an_id_that_no_step_can_name_is_refused():
    """An id that no step can use is refused."""
    assert "no step can name" in review("a b", {**SAMPLE, "id": "a b"}).problems[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "expected an object, got []"),
        (json.dumps({**SAMPLE, "id": "a/b"}), "id: expected [A-Za-z0-9_-]{1,128}, got 'a/b'"),
        (json.dumps({**SAMPLE, "id": 5}), "id: expected [A-Za-z0-9_-]{1,128}, got 5"),
    ],
)
def test_a_file_that_holds_no_template_is_refused_by_its_name(tmp_path, text, message):
    """A file without a template is refused with its name, because it has no id."""
    path = tmp_path / "broken.json"
    path.write_text(text)
    found = review_file(path)
    assert found.template_id == "broken.json"
    assert found.problems[0].startswith(message)
    assert not found.is_good
