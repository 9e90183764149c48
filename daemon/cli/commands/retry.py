"""The command `retry`: make FAILED steps READY again, and send their messages."""

from __future__ import annotations

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from daemon.cli.durations import parse_duration
from daemon.cli.lists.filters import codes_of
from daemon.cli.operator import audit, log_to_standard_error, operator_name, require_consent
from daemon.cli.output import OutputFormat, examples
from daemon.cli.places import asking_for, place_of
from daemon.cli.stop_signals import StopSignals
from daemon.exit import ExitCode
from daemon.reports.wording import plural
from worker_chart_export.errors import RunInvalid, visible
from worker_chart_export.inputs.flow_run import StepStatus, why_run_id_refused, why_step_id_refused
from worker_chart_export.timing import SystemClock

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daemon.cli.command_settings import RetrySettings
    from daemon.cli.retrying import Retried, Retrier, RetryStep
    from daemon.reports.steps import StepFilter
    from worker_chart_export.outputs.results import StoredResults
    from worker_chart_export.timing import Clock

EXAMPLES = examples(
    "retry 20251215-102530_IBM_k3f7a charts:1d:all --keep-charts",
    "retry 20251215-102530_IBM_k3f7a --reopen-run",
    "retry --failed --code CHART_API_FAILED --since 2h",
    "retry --failed --since 24h --keep-charts --yes --output json",
)
#: How many steps are retried at a time. Those of one run share commits.
THREADS = 16
#: How many steps the question shows.
SHOWN_STEPS = 20


def command(  # noqa: PLR0913, PLR0917 - each is an option of the command line
    run_id: Annotated[str | None, typer.Argument(help="The run.", metavar="RUN_ID")] = None,
    step_ids: Annotated[
        list[str] | None,
        typer.Argument(help="The steps. Default: all FAILED chart steps.", metavar="STEP_ID..."),
    ] = None,
    failed: Annotated[bool, typer.Option("--failed", help="FAILED chart steps of all runs.")] = False,
    code: Annotated[
        str | None, typer.Option(help="With --failed: only these error codes.", metavar="CODE,...")
    ] = None,
    since: Annotated[
        timedelta | None,
        typer.Option(
            help="With --failed: only steps that failed within this time, e.g. 2h.",
            parser=parse_duration,
            metavar="DURATION",
        ),
    ] = None,
    symbol: Annotated[str | None, typer.Option(help="With --failed: only runs of this symbol.")] = None,
    keep_charts: Annotated[
        bool, typer.Option("--keep-charts", help="Use the charts that the failed attempt stored.")
    ] = False,
    reopen_run: Annotated[
        bool, typer.Option("--reopen-run", help="Also retry steps of ended runs, and make these RUNNING.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False,
    topic: Annotated[
        str | None, typer.Option(help="A topic id or full path. Default: the topic of the subscription.")
    ] = None,
    output: Annotated[OutputFormat, typer.Option(help="Lines, or a JSON array.")] = OutputFormat.TEXT,
) -> None:
    """Make FAILED chart steps READY again, and send their messages.

    Only a step that is still FAILED is changed. Its error and finishedAt are
    removed. With --keep-charts the next attempt uses the charts that the failed
    one has stored, which needs CHARTS_BUCKET; without it all charts are made and
    paid for again. A step of a run that has ended is refused, unless --reopen-run
    is given.

    --failed shows what it would do and asks; without a terminal give --yes.

    Needs GOOGLE_CLOUD_PROJECT, and PUBSUB_SUBSCRIPTION or --topic. Exit code 0:
    all were retried. 1: at least one was refused. 2: bad settings or arguments, or
    no consent. 3: a backend refuses or does not answer.
    """
    from daemon.cli.command_settings import RetrySettings, RetrySettingsWithBucket
    from daemon.cli.publishing import step_messages, target_topic
    from daemon.cli.retrying import Retrier
    from daemon.clients import firestore_client
    from daemon.reports.steps import StepFilter
    from daemon.settings import load_settings
    from worker_chart_export.ledger.operator_ledger import OperatorLedger

    _check_arguments(run_id, step_ids or [], failed=failed, filters=(code, since, symbol))
    steps = StepFilter(
        statuses=frozenset({StepStatus.FAILED}), codes=codes_of(code), symbol=symbol, since=since
    )
    settings = load_settings(RetrySettingsWithBucket if keep_charts else RetrySettings)
    target = target_topic(topic)
    log_to_standard_error()
    clock = SystemClock()
    with ExitStack() as resources:
        client = firestore_client(settings.google_cloud_project, settings.firestore_db)
        resources.callback(client.close)
        chosen = _choose(client, run_id, step_ids or [], steps)
        if run_id is None:
            chosen = _agree(chosen, reopens_runs=reopen_run, yes=yes)
        results, bucket = _stored_results(settings, clock, resources)
        retrier = Retrier(
            ledger=OperatorLedger(client=client, clock=clock, operator=operator_name()),
            publish=resources.enter_context(step_messages(target)),
            results=results,
            bucket=bucket,
            reopens_runs=reopen_run,
        )
        stop = resources.enter_context(StopSignals())
        done = _retry_all(retrier, chosen, run_id, stop)
    _print(done, output)
    if len(done) < len(chosen):
        typer.echo(f"interrupted: {plural(len(chosen) - len(done), 'step')} left as they were", err=True)
    stop.check()
    raise typer.Exit(_exit_code(done))


def _stored_results(
    settings: RetrySettings, clock: Clock, resources: ExitStack
) -> tuple[StoredResults | None, str]:
    """Return what reads stored charts, and the name of their bucket; with --keep-charts only."""
    from daemon.clients import storage_client
    from daemon.settings import BucketSettings
    from worker_chart_export.outputs.results import StoredResults

    if not isinstance(settings, BucketSettings):
        return None, ""
    objects = storage_client(settings.google_cloud_project, connections=THREADS)
    resources.callback(objects.close)
    return StoredResults(client=objects, clock=clock), settings.bucket_name


def _check_arguments(
    run_id: str | None, step_ids: Sequence[str], *, failed: bool, filters: Sequence[Any]
) -> None:
    if (run_id is None) is not failed:
        raise typer.BadParameter("expected a run id, or --failed for the steps of all runs")
    if not failed and any(value is not None for value in filters):
        raise typer.BadParameter("--code, --since and --symbol: expected only with --failed")
    problems = [None if run_id is None else why_run_id_refused(run_id), *map(why_step_id_refused, step_ids)]
    for problem in problems:
        if problem:
            raise typer.BadParameter(problem)


def _choose(client: Any, run_id: str | None, step_ids: Sequence[str], steps: StepFilter) -> list[RetryStep]:
    """Return the steps to retry, or end the command when there is no such run."""
    from daemon.cli.retrying import failed_steps, steps_of_run
    from worker_chart_export.ledger.run_snapshot import read_run

    if run_id is None:
        with asking_for("all runs"):
            return list(failed_steps(client, steps, lambda why: typer.echo(f"warning: {why}", err=True)))
    try:
        with asking_for(f"run {run_id}"):
            run = read_run(client, run_id, SystemClock()).run
    except RunInvalid as error:
        raise _ended(f"the run can't be read: {error}", run_id) from error
    if run is None:
        raise _ended("there is no such run", run_id)
    chosen = steps_of_run(run, step_ids)
    if not chosen:
        raise _ended("no chart step of the run is FAILED", run_id)
    return chosen


def _ended(why: str, run_id: str) -> typer.Exit:
    typer.echo(f"error: nothing was retried: {why} (run {run_id}, {place_of('firestore')})", err=True)
    return typer.Exit(ExitCode.JOB_FAILED)


def _agree(found: Sequence[RetryStep], *, reopens_runs: bool, yes: bool) -> list[RetryStep]:
    """Show what would be retried, and return it if the person agrees."""
    chosen = [step for step in found if reopens_runs or not step.is_of_final_run]
    if left_out := len(found) - len(chosen):
        typer.echo(
            f"{plural(left_out, 'FAILED step')} left out: the run has ended. --reopen-run takes these too.",
            err=True,
        )
    if not chosen:
        typer.echo("Nothing to retry.", err=True)
        return []
    codes = Counter(step.code or "no code" for step in chosen).most_common()
    for step in chosen[:SHOWN_STEPS]:
        typer.echo(f"  {step.run_id}  {visible(step.step_id)}  {visible(step.code)}", err=True)
    if len(chosen) > SHOWN_STEPS:
        typer.echo(f"  and {len(chosen) - SHOWN_STEPS} more", err=True)
    named = ", ".join(f"{count} {visible(code)}" for code, count in codes)
    typer.echo(f"{plural(len(chosen), 'step')} would be READY again: {named}", err=True)
    require_consent("Retry them?", yes=yes)
    return chosen


def _retry_all(
    retrier: Retrier, chosen: Sequence[RetryStep], run_id: str | None, stop: StopSignals
) -> list[Retried]:
    """Retry the steps, some at a time, with a progress bar on a terminal.

    After a stop signal what has begun is finished, the other steps are left as they are.
    """
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    is_hidden = not (chosen and console.is_terminal)
    done: list[Retried] = []
    with ThreadPoolExecutor(THREADS, thread_name_prefix="retry") as threads:
        futures = [threads.submit(retrier.retry, step) for step in chosen]
        ended = as_completed(futures)
        try:
            for future in track(ended, "Retrying", len(chosen), console=console, disable=is_hidden):
                future.result()
                if stop.came:
                    break
        finally:
            threads.shutdown(cancel_futures=True)
            done = [one.result() for one in futures if not one.cancelled() and one.exception() is None]
            _audit(done, run_id)
    return done


def _audit(done: Sequence[Retried], run_id: str | None) -> None:
    if retried := [result for result in done if result.retried]:
        runs = len({result.step.run_id for result in retried})
        sentence = f"Retried {plural(len(retried), 'step')} of {plural(runs, 'run')}"
        step_id = retried[0].step.step_id if len(retried) == 1 else None
        audit("retry", sentence, steps=len(retried), runId=run_id, stepId=step_id)


def _print(done: Sequence[Retried], output: OutputFormat) -> None:
    if output is OutputFormat.JSON:
        rows = ",\n".join(json.dumps(result.to_dict()) for result in done)
        typer.echo(f"[\n{rows}\n]" if rows else "[]")
    else:
        for result in done:
            typer.echo(_line(result))


def _exit_code(done: Sequence[Retried]) -> ExitCode:
    if any(result.is_backend_failure for result in done):
        return ExitCode.REFUSED
    return ExitCode.OK if all(result.retried for result in done) else ExitCode.JOB_FAILED


def _line(result: Retried) -> str:
    what = "retried" if result.retried else "refused"
    sent = f"  message {result.message_id}" if result.message_id else ""
    why = f": {visible(result.reason)}" if result.reason else ""
    return f"{what}  {result.step.run_id}  {visible(result.step.step_id)}{sent}{why}"
