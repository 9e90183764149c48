"""Describe quarantined messages: as lines for a person, as objects with stable names for scripts."""

from __future__ import annotations

import base64
import json
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import typer

from daemon.cli.output import OutputFormat
from daemon.lifecycle.standard_streams import lost_reader
from daemon.reports.wording import instant
from worker_chart_export.errors import visible
from worker_chart_export.timing import rfc3339, span

if TYPE_CHECKING:
    from collections.abc import Iterable

    from daemon.subscription.quarantined import QuarantinedMessage

TITLE = f"{'MESSAGE':<20}  {'AGE':<12}  {'REASON':<18}  RUN AND STEP, DETAIL"


def print_list(messages: Iterable[QuarantinedMessage], output: OutputFormat) -> int:
    """Print a line or an object for each message as it arrives, and return how many there are."""
    count = 0
    as_json = output is OutputFormat.JSON
    for message in messages:
        before = "" if count else f"{TITLE}\n"
        text = f"{before}{line(message)}"
        if as_json:
            text = f"{',' if count else '['}\n{json.dumps(summary(message))}"
        typer.echo(text, nl=not as_json)
        count += 1
        if lost_reader(sys.stdout):
            break
    if as_json:
        typer.echo("\n]" if count else "[]")
    return count


def line(message: QuarantinedMessage) -> str:
    """Return a message in one line, with all but its data and attributes."""
    step = " ".join(visible(name) for name in (message.run_id, message.step_id) if name)
    more = ", ".join(text for text in (step, visible(message.detail or "")) if text)
    age = span(_age_seconds(message))
    return f"{message.message_id:<20}  {age:<12}  {visible(why(message)):<18}  {more or '-'}"


def why(message: QuarantinedMessage) -> str:
    """Return the reason; for a dead letter the number of its deliveries."""
    deliveries = "dead letter" if message.deliveries is None else f"{message.deliveries} deliveries"
    return message.reason or deliveries


def summary(message: QuarantinedMessage) -> dict[str, Any]:
    """Return the object of a message in the list."""
    return {
        "messageId": message.message_id,
        "publishTime": rfc3339(message.publish_time),
        "ageSeconds": round(_age_seconds(message)),
        "reason": message.reason,
        "detail": message.detail,
        "deliveries": message.deliveries,
        "runId": message.run_id,
        "stepId": message.step_id,
        "sourceMessageId": message.source_message_id,
        "sourceSubscription": message.source_subscription,
        "dataBytes": len(message.data),
    }


def whole(message: QuarantinedMessage) -> dict[str, Any]:
    """Return the object of a message with its original data and attributes."""
    text = _text(message.data)
    return {
        **summary(message),
        "attributes": dict(message.attributes),
        "data": text,
        "dataBase64": base64.b64encode(message.data).decode() if text is None else None,
    }


def block(message: QuarantinedMessage) -> str:
    """Return a whole message as lines for a person."""
    facts = {
        "message": message.message_id,
        "reason": why(message),
        "detail": message.detail,
        "since": f"{instant(message.publish_time)} ({span(_age_seconds(message))})",
        "run": message.run_id,
        "step": message.step_id,
        "original": message.source_message_id,
        "from": message.source_subscription,
        **{f"attribute {name}": value for name, value in sorted(message.attributes.items())},
    }
    text = _text(message.data)
    if text is None:
        facts["data (base64)"] = base64.b64encode(message.data).decode()
    else:
        facts["data"] = text or "(empty)"
    return "\n".join(f"{visible(name)}: {visible(value)}" for name, value in facts.items() if value)


def _text(data: bytes) -> str | None:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


def _age_seconds(message: QuarantinedMessage) -> float:
    return max((datetime.now(UTC) - message.publish_time).total_seconds(), 0.0)
