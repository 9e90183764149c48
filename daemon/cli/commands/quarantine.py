"""The commands `quarantine list | show | replay | drop`, for rejected messages and dead letters."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Self

import typer

from daemon.cli.durations import parse_duration
from daemon.cli.operator import audit, log_to_standard_error, require_consent
from daemon.cli.output import OutputFormat, examples
from daemon.cli.places import topic_path
from daemon.exit import ExitCode
from daemon.reports.wording import plural

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from daemon.cli.quarantine.replay import Replayer
    from daemon.cli.quarantine.source import Source
    from daemon.subscription.quarantined import QuarantinedMessage

#: So many messages are shown before the question.
SHOWN_MESSAGES = 20
#: An audit line names so many messages.
AUDITED_IDS = 20

app = typer.Typer(
    name="quarantine",
    help="Read rejected messages, send them again, or remove them.",
    epilog=examples(
        "quarantine list",
        "quarantine show 1234567890",
        "quarantine replay --all --reason not_ready",
        "quarantine list --dead-letter",
    ),
    no_args_is_help=True,
)

Ids = Annotated[list[str], typer.Argument(help="The ids that the list shows.", metavar="ID")]
OutputOption = Annotated[OutputFormat, typer.Option("--output", help="Lines, or a JSON array.")]
DeadLetter = Annotated[
    bool, typer.Option("--dead-letter", help="The dead letters of the worker's subscription.")
]
SubscriptionOption = Annotated[
    str | None,
    typer.Option("--subscription", help="Read this one: an id or full path.", metavar="NAME"),
]
Wait = Annotated[
    timedelta | None,
    typer.Option(
        parser=parse_duration, help="The wait for the next message. Default: 2s, then 1s.", metavar="DURATION"
    ),
]


@app.command(
    "list",
    epilog=examples(
        "quarantine list --reason not_ready", "quarantine list --output json", "quarantine list --dead-letter"
    ),
)
def list_(
    reason: Annotated[str | None, typer.Option(help="Only this reason.")] = None,
    limit: Annotated[int | None, typer.Option(help="The most lines.", min=1)] = None,
    output: OutputOption = OutputFormat.TEXT,
    dead_letter: DeadLetter = False,
    subscription: SubscriptionOption = None,
    wait: Wait = None,
) -> None:
    """List the messages: id, age, reason, and the step that they name.

    All of them stay where they are. While the command runs, no other reader of
    the subscription receives them. Exit code 0: the list was printed, even if it
    is empty. 2: bad settings or arguments. 3: Pub/Sub refuses or is unavailable.
    """
    from daemon.cli.quarantine.report import print_list
    from daemon.cli.quarantine.source import each_message, find_source

    source = find_source(dead_letter=dead_letter, subscription=subscription, wait=wait)
    with source.hold() as held:
        found = (each for each in each_message(held) if reason in {None, each.reason})
        count = print_list(islice(found, limit), output)
    if count == limit:
        typer.echo(f"note: there may be more: the list ends at --limit {limit}", err=True)
    elif not count:
        typer.echo(f"note: no message came from {source.path}", err=True)


@app.command(epilog=examples("quarantine show 1234567890", "quarantine show 1234567890 --output json"))
def show(
    ids: Ids,
    output: OutputOption = OutputFormat.TEXT,
    dead_letter: DeadLetter = False,
    subscription: SubscriptionOption = None,
    wait: Wait = None,
) -> None:
    """Show whole messages with their original data and attributes.

    They stay where they are. Exit code 1: one of them was not found.
    """
    from daemon.cli.quarantine.report import block, whole
    from daemon.cli.quarantine.source import find_source

    source = find_source(dead_letter=dead_letter, subscription=subscription, wait=wait)
    found: list[QuarantinedMessage] = []
    missing = _each_of(source, ids, lambda message, _remove: found.append(message))
    if output is OutputFormat.JSON:
        typer.echo(json.dumps([whole(message) for message in found], indent=2))
    else:
        typer.echo("\n\n".join(block(message) for message in found), nl=bool(found))
    _end(source, missing, failed=0)


@app.command(
    epilog=examples(
        "quarantine replay 1234567890",
        "quarantine replay --all --reason not_ready",
        "quarantine replay --all --dead-letter --yes",
    )
)
def replay(
    ids: Annotated[
        list[str] | None, typer.Argument(help="The ids that the list shows.", metavar="ID")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All messages; asks first.")] = False,
    reason: Annotated[str | None, typer.Option(help="With --all: only this reason.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="With --all: do not ask.")] = False,
    topic: Annotated[
        str | None,
        typer.Option(help="An id or full path. Default: the topic that each message came from."),
    ] = None,
    dead_letter: DeadLetter = False,
    subscription: SubscriptionOption = None,
    wait: Wait = None,
) -> None:
    """Send messages again, with their original data and attributes.

    Each one goes to the topic of the subscription that it came from. It leaves
    the quarantine when it is stored there. Other subscriptions of that topic
    receive it too. Exit code 1: not all messages were sent.
    """
    from daemon.cli.quarantine.replay import Replayer
    from daemon.cli.quarantine.source import find_source

    if bool(ids) == everything:
        raise typer.BadParameter("expected either ids or --all")
    if reason is not None and not everything:
        raise typer.BadParameter("--reason needs --all")
    path = None if topic is None else topic_path(topic)
    source = find_source(dead_letter=dead_letter, subscription=subscription, wait=wait)
    with closing(Replayer(topic=path, subscription=source.worker_subscription)) as replayer:
        chosen = ids or _choose_all(source, replayer, reason, yes=yes)
        if not chosen:
            typer.echo(f"Nothing to send: no such message in {source.path}", err=True)
            return
        sending = _Sending(replayer)
        with _Audited("quarantine replay", "Sent {} of the quarantine again", source) as done:
            missing = _each_of(source, chosen, lambda message, remove: sending.send(message, remove, done))
    _end(source, missing, failed=sending.failed)


@app.command(epilog=examples("quarantine drop 1234567890"))
def drop(
    ids: Ids,
    dead_letter: DeadLetter = False,
    subscription: SubscriptionOption = None,
    wait: Wait = None,
) -> None:
    """Remove messages for ever.

    Exit code 1: one of them was not found.
    """
    from daemon.cli.quarantine.source import find_source

    source = find_source(dead_letter=dead_letter, subscription=subscription, wait=wait)

    def remove_one(message: QuarantinedMessage, remove: Callable[[], None]) -> None:
        remove()
        done.ids.append(message.message_id)
        typer.echo(f"dropped {message.message_id}{_step_of(message)}")

    with _Audited("quarantine drop", "Dropped {} of the quarantine", source) as done:
        missing = _each_of(source, ids, remove_one)
    _end(source, missing, failed=0)


@dataclass(slots=True)
class _Audited:
    """Writes the audit line at the end of the block, also after an error, if anything was changed."""

    command: str
    sentence: str
    source: Source
    ids: list[str] = field(default_factory=list)

    def __enter__(self) -> Self:
        log_to_standard_error()
        return self

    def __exit__(self, *_error: object) -> None:
        if self.ids:
            sentence = self.sentence.format(plural(len(self.ids), "message"))
            named = self.ids[:AUDITED_IDS]
            audit(
                self.command, sentence, subscription=self.source.path, count=len(self.ids), messageIds=named
            )


@dataclass(slots=True)
class _Sending:
    """Sends messages one by one, and counts those that can't be sent."""

    replayer: Replayer
    failed: int = 0

    def send(self, message: QuarantinedMessage, remove: Callable[[], None], done: _Audited) -> None:
        from daemon.cli.quarantine.replay import NotReplayed

        try:
            topic, new_id = self.replayer.publish(message)
        except NotReplayed as error:
            self.failed += 1
            typer.echo(f"error: {message.message_id}: not sent: {error}", err=True)
            return
        done.ids.append(message.message_id)
        typer.echo(f"replayed {message.message_id} as {new_id} to {topic}{_step_of(message)}")
        remove()


def _each_of(
    source: Source,
    ids: Collection[str],
    act: Callable[[QuarantinedMessage, Callable[[], None]], None],
) -> list[str]:
    """Call `act` with each message of these ids and a function that removes it; return the ids not found."""
    from daemon.cli.quarantine.source import each_message

    left = dict.fromkeys(ids)
    with source.hold() as held:
        for message in each_message(held):
            if message.message_id not in left:
                continue
            act(message, lambda: held.remove(message.message_id))  # noqa: B023 - called at once
            del left[message.message_id]
            if not left:
                break
    return list(left)


def _choose_all(source: Source, replayer: Replayer, reason: str | None, *, yes: bool) -> list[str]:
    """Return the ids of all messages with that reason, after consent.

    They are given back before the question. Because the ids are fixed then, a message that is rejected anew
    during the replay is not sent for ever.
    """
    from daemon.cli.quarantine.report import line, why
    from daemon.cli.quarantine.source import each_message

    chosen: list[str] = []
    groups: Counter[tuple[str, str]] = Counter()
    first: list[str] = []
    with source.hold() as held:
        for message in each_message(held):
            if reason not in {None, message.reason}:
                continue
            chosen.append(message.message_id)
            if not yes:
                groups[why(message), _target_of(replayer, message)] += 1
                first += [line(message)] if len(first) < SHOWN_MESSAGES else []
    if chosen and not yes:
        for text in first:
            typer.echo(text, err=True)
        if len(chosen) > len(first):
            typer.echo(f"... and {len(chosen) - len(first)} more", err=True)
        for (because, target), count in sorted(groups.items()):
            typer.echo(f"{plural(count, 'message')} ({because}): {target}", err=True)
        require_consent(f"Send {plural(len(chosen), 'message')} again?", yes=False)
    return chosen


def _target_of(replayer: Replayer, message: QuarantinedMessage) -> str:
    from daemon.cli.quarantine.replay import NotReplayed

    try:
        return f"to {replayer.target(message)}"
    except NotReplayed as error:
        return f"can't be sent: {error}"


def _step_of(message: QuarantinedMessage) -> str:
    names = [name for name in (message.run_id, message.step_id) if name]
    return f" ({' '.join(names)})" if names else ""


def _end(source: Source, missing: Collection[str], *, failed: int) -> None:
    for message_id in missing:
        typer.echo(f"error: {message_id}: not found in {source.path}", err=True)
    if missing or failed:
        raise typer.Exit(ExitCode.JOB_FAILED)
