"""The list of all checks, and how they run: in parallel, each with a time limit."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from daemon.cli.doctor.checks import accounts, credentials, firestore, pubsub, storage, templates
from daemon.cli.doctor.checks.settings import check_settings, load_part
from daemon.cli.doctor.results import CheckResult, DoctorReport, Status, not_checkable, unreachable_fix
from daemon.cli.doctor.scratch import Scratch
from daemon.settings import (
    BucketSettings,
    ChartSettings,
    Environment,
    FirestoreSettings,
    ProjectSettings,
    PubsubSettings,
    SettingsError,
)
from worker_chart_export.backends.errors import describe_error
from worker_chart_export.errors import WorkerError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from daemon.settings.emulators import Emulators
    from worker_chart_export.concurrency.cancel_scope import CancelScope

#: Longer than two calls that run into their own time-outs.
CHECK_SECONDS = 22.0
#: Together with `CHECK_SECONDS`, half a minute.
CREDENTIALS_SECONDS = 8.0
WRONG_SETTINGS = "the settings it needs are wrong, see above"
NO_CREDENTIALS = "it needs credentials that get a token, see above"

S = TypeVar("S", bound=Environment)


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A function that makes one or more checks.

    Attributes:
        ids: The checks that are reported if the function fails or does not end in time.
        run: Makes the checks.
        fix: What to do if it does not end in time.
        leaves: What it writes, and deletes again before it ends.
    """

    ids: tuple[str, ...]
    run: Callable[[], Sequence[CheckResult]]
    fix: str = ""
    leaves: str = ""


def run_checks(
    emulators: Emulators,
    run: CancelScope,
    *,
    call: bool,
    credentials_seconds: float = CREDENTIALS_SECONDS,
    seconds: float = CHECK_SECONDS,
) -> DoctorReport:
    """Run all checks. They write a scratch document and a scratch object, and delete both.

    Args:
        emulators: The emulators that the environment names.
        run: If it is stopped, no further check starts. What was written is still deleted.
        call: Also spend one request of Chart-IMG.
        credentials_seconds: The time limit of the check of the credentials, which comes first.
        seconds: The time limit of all other checks.
    """
    settings = check_settings()
    check_credentials = _check(
        ProjectSettings,
        (credentials.CHECK,),
        lambda project: credentials.check_credentials(project.google_cloud_project, emulators),
        fix=credentials.NO_ANSWER_FIX,
    )
    found = run_all([check_credentials], run, seconds=credentials_seconds)
    has_credentials = all(result.status is not Status.FAILURE for result in found)
    checks = _backend_checks(emulators, run, has_credentials=has_credentials, call=call)
    return DoctorReport(
        results=(*settings, *found, *run_all(checks, run, seconds=seconds)),
        settings_are_good=all(result.status is not Status.FAILURE for result in settings),
    )


def _backend_checks(
    emulators: Emulators, run: CancelScope, *, has_credentials: bool, call: bool
) -> list[Check]:
    """Return all checks that follow the credentials, in the order in which they are shown."""
    of_pubsub = partial(_google_check, emulators.pubsub, has_credentials, PubsubSettings)
    of_firestore = partial(_google_check, emulators.firestore, has_credentials, FirestoreSettings)
    of_storage = partial(_google_check, emulators.storage, has_credentials, BucketSettings)
    scratch_document, scratch_object = Scratch(run=run), Scratch(run=run)
    charts = load_part(ChartSettings)
    configured = accounts.configured_accounts(charts)
    checks = [
        of_pubsub(pubsub.OF_SUBSCRIPTION, pubsub.check_subscription),
        of_pubsub((pubsub.CONSUME,), pubsub.check_consume),
        of_pubsub((pubsub.QUARANTINE,), pubsub.check_quarantine),
        of_firestore((firestore.DATABASE,), firestore.check_database),
        of_firestore(
            (firestore.WRITE,),
            partial(firestore.check_write, scratch=scratch_document),
            leaves=lambda _: firestore.document_path(scratch_document),
        ),
        of_firestore((firestore.LEASE_INDEX, firestore.STEPS_EXEMPTION), firestore.check_indexes),
        of_storage(
            storage.CHECKS,
            partial(storage.check_bucket, scratch=scratch_object),
            leaves=lambda settings: storage.object_uri(settings.bucket_name, scratch_object),
        ),
        of_firestore((templates.CHECK,), partial(templates.check_templates, accounts=configured)),
        _check(ChartSettings, (accounts.CHECK,), accounts.check_accounts),
    ]
    if call:
        needs_login = emulators.firestore is None and not has_credentials
        skip = NO_CREDENTIALS if needs_login else WRONG_SETTINGS if charts is None else ""
        checks.append(
            _check(
                FirestoreSettings,
                (accounts.CALL,),
                lambda documents: accounts.check_call(documents, charts) if charts else [],
                fix=accounts.UNREACHABLE_FIX,
                skip_because=skip,
            )
        )
    return checks


def _google_check(
    emulator: str | None,
    has_credentials: bool,
    kind: type[S],
    ids: tuple[str, ...],
    make: Callable[[S, str | None], Sequence[CheckResult]],
    leaves: Callable[[S], str] = lambda _: "",
) -> Check:
    """Return a check of one of Google's services, or of its emulator."""
    return _check(
        kind,
        ids,
        lambda settings: make(settings, emulator),
        fix=unreachable_fix(emulator),
        leaves=leaves,
        skip_because="" if emulator or has_credentials else NO_CREDENTIALS,
    )


def _check(
    kind: type[S],
    ids: tuple[str, ...],
    make: Callable[[S], Sequence[CheckResult]],
    *,
    fix: str = "",
    leaves: Callable[[S], str] = lambda _: "",
    skip_because: str = "",
) -> Check:
    """Return a check that needs settings of this kind. If these are wrong, it is not made."""
    settings = load_part(kind)
    if settings is None or skip_because:
        why = skip_because or WRONG_SETTINGS
        return Check(ids=ids, run=lambda: [not_checkable(check, why) for check in ids])
    return Check(ids=ids, run=lambda: make(settings), fix=fix, leaves=leaves(settings))


def run_all(
    checks: Sequence[Check], run: CancelScope, *, seconds: float = CHECK_SECONDS
) -> list[CheckResult]:
    """Run the checks in parallel, and return their results in the given order after at most `seconds`.

    After a stop of `run`, no check starts, and only checks that must delete something are waited for.
    """
    deadline = time.monotonic() + seconds
    running = [_RunningCheck(check, run) for check in checks]
    return [result for one in running for result in one.results_by(deadline)]


class _RunningCheck:
    """A check in its own thread. An error or a check that hangs does not affect the others."""

    def __init__(self, check: Check, run: CancelScope) -> None:
        self._check = check
        self._run = run
        self._results: Sequence[CheckResult] | None = None
        self._is_done = threading.Event()
        if not check.leaves:
            run.on_stop(lambda _: self._is_done.set())
        # A daemon thread: a check that hangs must not keep the process alive.
        threading.Thread(target=self._make, name=check.ids[0], daemon=True).start()

    def _make(self) -> None:
        try:
            self._run.check_stopped()
            self._results = self._check.run()
        except (WorkerError, SettingsError) as error:
            self._results = self._failed(str(error))
        except Exception as error:  # noqa: BLE001 - a bug in one check must not hide the other results
            self._results = self._failed(f"internal: {describe_error(error)}")
        finally:
            self._is_done.set()

    def results_by(self, deadline: float) -> Sequence[CheckResult]:
        """Wait until the deadline, and return the results."""
        self._is_done.wait(max(0.0, deadline - time.monotonic()))
        if (results := self._results) is not None:
            return results
        return self._failed("it did not end in time", fix=self._check.fix, left_over=self._check.leaves)

    def _failed(self, why: str, fix: str = "", left_over: str = "") -> list[CheckResult]:
        first, *others = self._check.ids
        failed = CheckResult(check=first, status=Status.FAILURE, summary=why, fix=fix, left_over=left_over)
        return [failed, *(not_checkable(check, f"{first} failed") for check in others)]
