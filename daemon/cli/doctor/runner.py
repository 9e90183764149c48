"""Which checks there are, in the order they are shown, and what each needs of the settings."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, TypeVar

from daemon.cli.doctor.checks import subscription_verdicts as pubsub_checks
from daemon.cli.doctor.checks.accounts import CALL, check_accounts, check_call, configured_accounts
from daemon.cli.doctor.checks.accounts import CHECK as ACCOUNTS
from daemon.cli.doctor.checks.chart_call import UNREACHED
from daemon.cli.doctor.checks.credentials import CHECK as CREDENTIALS
from daemon.cli.doctor.checks.credentials import NOBODY_ANSWERS, check_credentials
from daemon.cli.doctor.checks.firestore import (
    DATABASE,
    LEASE_INDEX,
    STEPS_EXEMPTION,
    WRITE,
    check_database,
    check_indexes,
    check_write,
    document_path,
)
from daemon.cli.doctor.checks.pubsub import check_consume, check_quarantine, check_subscription
from daemon.cli.doctor.checks.settings import check_settings, part
from daemon.cli.doctor.checks.storage import CHECKS as BUCKET_CHECKS
from daemon.cli.doctor.checks.storage import check_bucket, object_uri
from daemon.cli.doctor.checks.templates import CHECK as TEMPLATES
from daemon.cli.doctor.checks.templates import check_templates
from daemon.cli.doctor.refusals import reach
from daemon.cli.doctor.results import Report, Status, not_checkable
from daemon.cli.doctor.rounds import CHECK_SECONDS, Examination, make_all
from daemon.cli.doctor.scratch import Scratch
from daemon.settings import (
    BucketSettings,
    ChartSettings,
    Environment,
    FirestoreSettings,
    ProjectSettings,
    PubsubSettings,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from daemon.cli.doctor.results import CheckResult
    from daemon.settings.emulators import Emulators
    from worker_chart_export.concurrency.cancel_scope import CancelScope

#: With the time of all the others, half a minute.
CREDENTIALS_SECONDS = 8.0
WRONG_SETTINGS = "the settings it needs are wrong, see above"

S = TypeVar("S", bound=Environment)


def examine(
    emulators: Emulators,
    run: CancelScope,
    *,
    call: bool,
    credentials_seconds: float = CREDENTIALS_SECONDS,
    seconds: float = CHECK_SECONDS,
) -> Report:
    """Make all checks. Creates nothing but a scratch document and a scratch object, and deletes both.

    Args:
        emulators: Those that the environment names.
        run: To be stopped by whoever does not want to wait for the end; both are deleted all the same.
        call: Also spend one request of Chart-IMG.
        credentials_seconds: How long to look for credentials, before all else.
        seconds: How long all else may take.
    """
    settings = check_settings()
    credentials = make_all([_of_project(emulators)], run, seconds=credentials_seconds)
    has_credentials = all(result.status is not Status.FAILURE for result in credentials)
    examinations = [
        examination
        for needs_credentials, some in _examinations(emulators, run, call=call)
        for examination in (some if has_credentials or not needs_credentials else _not_made(some))
    ]
    return Report(
        results=(*settings, *credentials, *make_all(examinations, run, seconds=seconds)),
        settings_are_good=all(result.status is Status.OK for result in settings),
    )


def _examinations(
    emulators: Emulators, run: CancelScope, *, call: bool
) -> list[tuple[bool, list[Examination]]]:
    """All of them, by whether they need credentials, as whatever is not emulated does."""
    pubsub, firestore, storage = emulators.pubsub, emulators.firestore, emulators.storage
    return [
        (pubsub is None, _of_pubsub(pubsub)),
        (firestore is None, _of_firestore(firestore, Scratch(run=run))),
        (storage is None, [_of_storage(storage, Scratch(run=run))]),
        (firestore is None, [_of_templates(firestore)]),
        (False, [_with(ChartSettings, (ACCOUNTS,), check_accounts)]),
        (firestore is None, [_of_call()] if call else []),
    ]


def _not_made(examinations: Sequence[Examination]) -> list[Examination]:
    why = "it needs credentials that get a token, see above"
    return [_not_checkable(examination.checks, why) for examination in examinations]


def _of_project(emulators: Emulators) -> Examination:
    return _with(
        ProjectSettings,
        (CREDENTIALS,),
        lambda settings: check_credentials(settings.google_cloud_project, emulators),
        mend=NOBODY_ANSWERS,
    )


def _of_pubsub(emulator: str | None) -> list[Examination]:
    of = partial(_at, emulator, PubsubSettings)
    return [
        of(pubsub_checks.OF_SUBSCRIPTION, check_subscription),
        of((pubsub_checks.CONSUME,), check_consume),
        of((pubsub_checks.QUARANTINE,), check_quarantine),
    ]


def _of_firestore(emulator: str | None, scratch: Scratch) -> list[Examination]:
    of = partial(_at, emulator, FirestoreSettings)
    write = partial(check_write, scratch=scratch)
    return [
        of((DATABASE,), check_database),
        of((WRITE,), write, leaves=lambda _: document_path(scratch)),
        of((LEASE_INDEX, STEPS_EXEMPTION), check_indexes),
    ]


def _of_storage(emulator: str | None, scratch: Scratch) -> Examination:
    return _at(
        emulator,
        BucketSettings,
        BUCKET_CHECKS,
        partial(check_bucket, scratch=scratch),
        leaves=lambda settings: object_uri(settings.bucket_name, scratch),
    )


def _of_templates(emulator: str | None) -> Examination:
    accounts = configured_accounts(part(ChartSettings))
    return _at(emulator, FirestoreSettings, (TEMPLATES,), partial(check_templates, accounts=accounts))


def _of_call() -> Examination:
    charts = part(ChartSettings)
    if charts is None:
        return _not_checkable((CALL,), WRONG_SETTINGS)
    return _with(FirestoreSettings, (CALL,), lambda settings: check_call(charts, settings), mend=UNREACHED)


def _at(
    emulator: str | None,
    kind: type[S],
    checks: tuple[str, ...],
    make: Callable[[S, str | None], Sequence[CheckResult]],
    *,
    leaves: Callable[[S], str] = lambda _: "",
) -> Examination:
    """An examination of one of Google's services, or of its emulator."""
    return _with(kind, checks, lambda settings: make(settings, emulator), mend=reach(emulator), leaves=leaves)


def _with(
    kind: type[S],
    checks: tuple[str, ...],
    make: Callable[[S], Sequence[CheckResult]],
    *,
    mend: str = "",
    leaves: Callable[[S], str] = lambda _: "",
) -> Examination:
    """An examination that needs only some of the settings, and is made if these are good."""
    settings = part(kind)
    if settings is None:
        return _not_checkable(checks, WRONG_SETTINGS)
    return Examination(checks=checks, make=lambda: make(settings), mend=mend, leaves=leaves(settings))


def _not_checkable(checks: tuple[str, ...], why: str) -> Examination:
    return Examination(checks=checks, make=lambda: [not_checkable(check, why) for check in checks])
