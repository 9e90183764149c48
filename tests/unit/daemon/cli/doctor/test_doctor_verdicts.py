"""The results for errors, trials, templates and responses, without a backend."""

from __future__ import annotations

import pytest
from google.api_core import exceptions as google_errors

from daemon.cli.doctor.checks.accounts import CallTrial, call_verdict
from daemon.cli.doctor.checks.firestore import WriteTrial, steps_exemption, write_verdict
from daemon.cli.doctor.checks.storage import BucketTrial, bucket_verdicts
from daemon.cli.doctor.checks.templates import template_verdicts
from daemon.cli.doctor.results import LOG_IN, Fixes, Status, backend_failure, ok
from daemon.cli.template_check import review
from daemon.settings import FirestoreSettings
from tests.support.charts.chart_img_samples import account
from tests.support.fakes import template_document
from worker_chart_export.backends.errors import backend_errors
from worker_chart_export.charts.chart_img.answers import Meaning
from worker_chart_export.errors import BackendRefused, BackendUnavailable, ObjectRefused, StepTimedOut


def google_error(error):
    """Return our error as raised by a call that failed with Google's error."""
    with pytest.raises((BackendRefused, BackendUnavailable)) as raised, backend_errors("pubsub"):
        raise error
    return raised.value


@pytest.mark.parametrize(
    ("error", "fix"),
    [
        (google_errors.NotFound("x"), "make it"),
        (google_errors.PermissionDenied("x"), "allow it"),
        (google_errors.Unauthenticated("x"), LOG_IN),
        (google_errors.InvalidArgument("x"), ""),
        (google_errors.ServiceUnavailable("x"), "start the emulator, or correct the variable that holds h:1"),
    ],
)
def test_the_fix_follows_the_kind_of_error(error, fix):
    """The fix depends on the kind of error: missing, forbidden, invalid, unavailable."""
    fixes = Fixes(missing="make it", forbidden="allow it", emulator="h:1")
    found = backend_failure("c", google_error(error), fixes)
    assert (found.status, found.fix) == ("failure", fix)


def test_the_error_of_each_attempt_is_shown():
    """The error of each attempt is shown, and not only the client's timeout."""
    error = google_errors.RetryError(
        "Timeout of 10.0s exceeded", cause=google_errors.ServiceUnavailable("no")
    )
    found = backend_failure("c", google_error(error), Fixes())
    assert "ServiceUnavailable: no" in found.summary
    assert "googleapis.com" in found.fix


FORBIDDEN = ObjectRefused("Cloud Storage refused it (403).", httpStatus=403)
NO = BackendRefused("firestore", "no")
MISSING = ObjectRefused("Cloud Storage refused it (404).", httpStatus=404)


@pytest.mark.parametrize(
    ("change", "check", "status", "fix"),
    [
        ({"create": MISSING}, "create", "failure", "correct CHARTS_BUCKET"),
        ({"create": FORBIDDEN}, "create", "failure", "roles/storage.objectUser"),
        ({"create": BackendUnavailable("storage", "x")}, "create", "failure", "googleapis.com"),
        ({"read": StepTimedOut("x")}, "read", "failure", "googleapis.com"),
        ({"replaced": True}, "create", "failure", "preconditions"),
        ({"read": FORBIDDEN}, "read", "failure", "roles/storage.objectUser"),
        ({"differs": True}, "read", "failure", "proxy"),
        ({"listed": FORBIDDEN}, "list", "failure", "roles/storage.objectUser"),
        ({"delete": FORBIDDEN}, "delete", "warning", "gcloud storage rm gs://b/x"),
    ],
)
def test_each_problem_of_the_bucket_has_its_line(change, check, status, fix):
    """Each problem of the bucket has its line; a forbidden delete is a warning with what is left over."""
    found = bucket_verdicts(BucketTrial(uri="gs://b/x", **change), "b", None)
    assert [result.check for result in found] == [
        f"storage.{n}" for n in ("create", "read", "list", "delete")
    ]
    problem = next(result for result in found if result.status is not Status.OK)
    assert (problem.check, problem.status) == (f"storage.{check}", status)
    assert fix in problem.fix
    assert problem.left_over == ("gs://b/x" if check == "delete" else "")


def test_without_an_object_other_checks_of_the_bucket_are_skipped():
    """When no object can be created, the other checks of the bucket are skipped and not ok."""
    found = bucket_verdicts(BucketTrial(uri="gs://b/x", create=MISSING), "b", None)
    assert [result.status for result in found] == ["failure", *["not_checkable"] * 3]
    assert found[0].left_over == ""


def test_an_object_that_may_have_been_created_is_named_with_the_command_that_deletes_it():
    """An object that may exist is named with the command that deletes it."""
    unavailable = BackendUnavailable("storage", "x")
    created = bucket_verdicts(BucketTrial(uri="gs://b/x", create=unavailable, delete=unavailable), "b", None)[
        0
    ]
    assert (created.check, created.status, created.left_over) == ("storage.create", "failure", "gs://b/x")
    assert created.fix.endswith("then: gcloud storage rm gs://b/x")


@pytest.mark.parametrize(
    ("change", "status", "message"),
    [
        ({}, "ok", "an outdated write was refused"),
        ({"error": NO}, "failure", "no"),
        ({"error": NO, "left_over": NO}, "failure", "s/1 may be left over"),
        ({"stale_accepted": True}, "failure", "two workers"),
        ({"stale_accepted": True, "left_over": NO}, "failure", "s/1 may be left over"),
        ({"left_over": NO}, "warning", "could not be deleted: firestore refused: no; s/1 may be left over"),
    ],
)
def test_the_scratch_document_shows_conditional_writes(change, status, message):
    """The scratch document shows whether conditional writes work; an accepted old precondition fails."""
    found = write_verdict(WriteTrial(path="s/1", **change), Fixes())
    assert found.status == status
    assert message in str(found)


def test_the_exemption_of_steps_must_be_checked_by_hand():
    """The index exemption must be checked by hand, with a given command, except on an emulator."""
    settings = FirestoreSettings(google_cloud_project="p", firestore_db="d")
    found = steps_exemption(settings, None)
    assert found.status is Status.NOT_CHECKABLE
    for message in ("describe steps", "--collection-group=flow_runs", "--database='d'", "--project=p"):
        assert message in found.fix
    assert steps_exemption(settings, "h:1").fix == ""


def test_templates_are_counted_and_the_bad_ones_named():
    """Invalid templates fail; unknown keys, and templates that fit no account, give warnings."""
    good = template_document()
    del good["id"]
    documents = {
        "good": good,
        "odd": {**good, "colour": "red"},
        "bad": {**good, "chartImgSymbolTemplate": "NASDAQ"},
        "large": {**good, "request": {**good["request"], "width": 1920, "height": 1080}},
    }
    accounts = [account(plan="BASIC")]
    found = template_verdicts([review(name, document, accounts) for name, document in documents.items()])
    assert found[0] == ok("templates", "3 of 4 can be used")
    statuses = {result.check: result.status for result in found[1:]}
    assert statuses == {"templates.odd": "warning", "templates.bad": "failure", "templates.large": "warning"}
    message = {result.check: result.summary for result in found}
    assert "chartImgSymbolTemplate" in message["templates.bad"]
    assert "colour" in message["templates.odd"]
    assert "800x600" in message["templates.large"]


@pytest.mark.parametrize("documents", [{}, {"bad": {}}])
def test_without_a_usable_template_no_chart_can_be_made(documents):
    """Without a valid template the check fails, because no chart can be made."""
    found = template_verdicts([review(name, document) for name, document in documents.items()])
    assert (found[0].check, found[0].status) == ("templates", "failure")
    assert "templates push" in found[0].fix


@pytest.mark.parametrize("meaning", Meaning)
def test_every_answer_of_chart_img_has_its_verdict(meaning):
    """Every Chart-IMG response has its result and names the account."""
    variable = "CHART_IMG_ACCOUNTS_FILE"
    trial = CallTrial(account_id="main", meaning=meaning, text="403 no")
    found = call_verdict("accounts.call", trial, variable=variable)
    assert "main" in found.summary
    assert (variable in found.fix) is (meaning in {Meaning.BAD_KEY, Meaning.OVER_PLAN})
    assert "{" not in found.fix
    assert (found.status is Status.OK) is (meaning is Meaning.CHART)
    assert bool(found.fix) is (meaning is not Meaning.CHART)
