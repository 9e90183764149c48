"""Classify Chart-IMG's answers. Pure.

Sources: its documentation, RFC 9110 for `Retry-After`, and what broken servers send.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from worker_chart_export.charts.base import PNG_SIGNATURE, check_png, png_end
from worker_chart_export.errors import ChartApiFailed

if TYPE_CHECKING:
    from collections.abc import Callable

#: The message of the daily quota. With status 429 it may stand in a longer message. With other statuses a
#: longer message may mean any limit.
LIMIT_EXCEEDED = "limit exceeded"
#: Status 429 also means calls that come too fast. Their message names a rate.
OF_A_RATE = re.compile(r"\brate\b|\bper[ -]?(second|minute|hour)\b")
MAX_ERRORS_SHOWN = 10
#: Shorter than the part of a body that is read. So no key that is cut at the end of that part gets in.
MAX_TEXT_CHARS = 2000
MAX_MESSAGE_CHARS, MAX_PARAM_CHARS = 300, 100


class Meaning(StrEnum):
    """What to do after an answer."""

    #: The chart.
    CHART = "ok"
    #: Calls come too fast. Call the same account again after a second, without counting again.
    TOO_FAST = "too_fast"
    #: The account is used up until its window ends.
    EXHAUSTED = "exhausted"
    #: The account is refused: its key is invalid, or it is not paid. Try the next account.
    BAD_KEY = "bad_key"
    #: The account's plan does not allow this chart. Try the next account.
    OVER_PLAN = "over_plan"
    #: Another attempt may succeed.
    TRANSIENT = "trouble"
    #: Another attempt would fail too.
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One classified answer.

    Attributes:
        meaning: What to do next.
        status: The HTTP status; 0 when there was no answer.
        message: The API's own message, or what is wrong with the picture.
        params: The fields that a 422 names.
        retry_after_seconds: The pause that the server requests, if any.
        is_complete: The answer arrived completely but is no usable chart. A retry rarely helps.
        was_sent: The server may have received the request.
        png: The chart.
    """

    meaning: Meaning
    status: int
    message: str = ""
    params: tuple[str, ...] = ()
    retry_after_seconds: float | None = None
    is_complete: bool = False
    was_sent: bool = True
    png: bytes = field(default=b"", repr=False)

    @property
    def keeps_count(self) -> bool:
        """Return True if Chart-IMG can't have charged for the call: the next one is not counted again."""
        return self.meaning is Meaning.TOO_FAST or not self.was_sent

    @property
    def proves_key(self) -> bool:
        """Return True if it shows that the key is valid. Invalid keys may get the other answers too."""
        return self.meaning not in (Meaning.TRANSIENT, Meaning.TOO_FAST, Meaning.BAD_KEY)


def classify_answer(
    status: int,
    body: bytes,
    *,
    width: int,
    height: int,
    max_bytes: int,
    retry_after_seconds: float | None = None,
    redact: Callable[[str], str] = str,
) -> Answer:
    """Classify the answer to a request for a chart of this size.

    Args:
        status: The HTTP status.
        body: The body, of an error perhaps only its start.
        width: In pixels.
        height: In pixels.
        max_bytes: The largest picture that readers accept.
        retry_after_seconds: The pause that the server requests.
        redact: Removes the key from the server's message.

    Raises:
        ChartTooLarge: It is a chart with more than `max_bytes` bytes.
    """
    if status == HTTPStatus.OK and body.startswith(PNG_SIGNATURE):
        try:
            png = check_png(body, width=width, height=height, max_bytes=max_bytes)
        except ChartApiFailed as error:
            is_complete = png_end(body) is not None
            return Answer(
                meaning=Meaning.TRANSIENT, status=status, message=error.message, is_complete=is_complete
            )
        return Answer(meaning=Meaning.CHART, status=status, png=png)
    message, params = parse_error_body(body, redact)
    return Answer(
        meaning=_meaning_of_error(status, message.lower(), is_page=body.lstrip().startswith(b"<")),
        status=status,
        message=message,
        params=params,
        retry_after_seconds=retry_after_seconds,
        is_complete=status == HTTPStatus.OK and not PNG_SIGNATURE.startswith(body),
    )


def _meaning_of_error(status: int, message: str, *, is_page: bool) -> Meaning:
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        is_daily = LIMIT_EXCEEDED in message and OF_A_RATE.search(message) is None
        return Meaning.EXHAUSTED if is_daily else Meaning.TOO_FAST
    is_server_error = status >= HTTPStatus.INTERNAL_SERVER_ERROR
    if not is_server_error and message.strip(" .!") == LIMIT_EXCEEDED:
        return Meaning.EXHAUSTED
    if status == HTTPStatus.FORBIDDEN and "exceed max usage" in message:
        return Meaning.OVER_PLAN
    # The API answers in JSON. An HTML page with status 403 comes from a proxy or firewall before it.
    # 402 is the account's too: its subscription is not paid.
    of_the_account = (HTTPStatus.UNAUTHORIZED, HTTPStatus.PAYMENT_REQUIRED)
    if status in of_the_account or (status == HTTPStatus.FORBIDDEN and not is_page):
        return Meaning.BAD_KEY
    # RFC 9110, 15.5.9 and RFC 8470, 5.2: a client may repeat the request after 408 and 425.
    transient = (HTTPStatus.OK, HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.FORBIDDEN)
    return Meaning.TRANSIENT if is_server_error or status in transient else Meaning.REFUSED


def parse_error_body(body: bytes, redact: Callable[[str], str] = str) -> tuple[str, tuple[str, ...]]:
    """Return the message of an error and the parameters that it names.

    Known shapes are `message`, `error`, `errors[]` and a bare array. Text is redacted before it is cut,
    because a part of a key is a secret too.
    """
    try:
        found = _param_errors(json.loads(body))
    except (ValueError, RecursionError):
        found = [("", redact(body.decode("utf-8", errors="replace"))[:MAX_TEXT_CHARS])]
    message = "; ".join(f"{param}: {text}" if param else text for param, text in found)
    params = tuple(dict.fromkeys(redact(param)[:MAX_PARAM_CHARS] for param, _ in found if param))
    return " ".join(redact(message).split())[:MAX_MESSAGE_CHARS] or "no message", params


def _param_errors(value: Any) -> list[tuple[str, str]]:
    """Return pairs of a parameter, or "", and a message."""
    if isinstance(value, list):
        return [pair for item in value[:MAX_ERRORS_SHOWN] for pair in _param_errors(item)]
    if not isinstance(value, dict):
        return [("", str(value))]
    if value.get("errors") and isinstance(value["errors"], list):
        return _param_errors(value["errors"])
    text = next((value[key] for key in ("message", "msg", "error") if value.get(key)), "")
    if isinstance(text, dict):
        return _param_errors(text)
    return [(str(value.get("param") or ""), str(text))] if text else []


def parse_retry_after(header: str, *, date: str | None, now: datetime) -> float | None:
    """Return the seconds of a `Retry-After` header (RFC 9110, 10.2.3), or None if it can't be parsed.

    Args:
        header: Seconds or a date.
        date: The answer's own `Date`, so that both times are by the server's clock.
        now: Used when there is no `Date`.
    """
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", header.strip()):
        return float(header)
    until = _parse_date(header)
    return None if until is None else max(0.0, (until - (_parse_date(date) or now)).total_seconds())


def _parse_date(text: str | None) -> datetime | None:
    try:
        instant = parsedate_to_datetime(text or "")
    except (ValueError, OverflowError):  # not a date, or one beyond the calendar
        return None
    return instant if instant.tzinfo is not None else instant.replace(tzinfo=UTC)
