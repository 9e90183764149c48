"""What Chart-IMG's answers mean. Pure; sources: its documentation, and what broken servers send."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from worker_chart_export.charts.png import SIGNATURE, check_png
from worker_chart_export.errors import ChartApiFailed

if TYPE_CHECKING:
    from collections.abc import Callable

OK, UNAUTHORIZED, FORBIDDEN, RATE_LIMITED = 200, 401, 403, 429
REQUEST_TIMEOUT, SERVER_ERRORS = 408, 500
#: The daily quota; "Rate limit exceeded" is the other kind of 429.
LIMIT_EXCEEDED = re.compile(r"(?<!rate )limit exceeded")
MOST_ERRORS_SHOWN = 10
MOST_BYTES_READ = 10_000
MOST_WORDS_CHARS, MOST_PARAM_CHARS = 300, 100


class Meaning(StrEnum):
    """What an answer means for what happens next."""

    CHART = "ok"
    #: Asked too often: the same account again a second later; the counted call is kept.
    TOO_FAST = "too_fast"
    #: The account is used up until its window ends.
    EXHAUSTED = "exhausted"
    #: The key is no good: the account is out for this process.
    BAD_KEY = "bad_key"
    #: The account's plan does not allow this chart: the next account may.
    OVER_PLAN = "over_plan"
    #: Asking again may help.
    TROUBLE = "trouble"
    #: Asking again would not.
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answer, understood.

    Attributes:
        meaning: What happens next.
        status: The HTTP status; 0 when there was no answer.
        words: The API's own words, or what is wrong with the picture.
        params: The fields that a 422 names.
        retry_after_seconds: What the server asked for, if it did.
    """

    meaning: Meaning
    status: int
    words: str = ""
    params: tuple[str, ...] = ()
    retry_after_seconds: float | None = None

    @property
    def proves_key(self) -> bool:
        """Whether it says what the key is worth: trouble, and being too fast, hit good and bad ones alike."""
        return self.meaning not in (Meaning.TROUBLE, Meaning.TOO_FAST)


def understand(
    status: int,
    body: bytes,
    *,
    width: int,
    height: int,
    max_bytes: int,
    retry_after: str | None = None,
    blot: Callable[[str], str] = str,
) -> Answer:
    """What the answer to a chart of this size means; the server's words go through `blot`.

    Raises:
        ChartTooLarge: It is a chart, but larger than its readers accept.
    """
    if status == OK and body.startswith(SIGNATURE):
        try:
            check_png(body, width=width, height=height, max_bytes=max_bytes)
        except ChartApiFailed as error:
            return Answer(meaning=Meaning.TROUBLE, status=status, words=error.message)
        return Answer(meaning=Meaning.CHART, status=status)
    words, params = said(body, blot)
    return Answer(
        meaning=_meaning(status, words.lower()),
        status=status,
        words=words,
        params=params,
        retry_after_seconds=_seconds(retry_after),
    )


def _meaning(status: int, words: str) -> Meaning:
    if LIMIT_EXCEEDED.search(words) and status < SERVER_ERRORS:
        return Meaning.EXHAUSTED
    if status == RATE_LIMITED:
        return Meaning.TOO_FAST
    if status == FORBIDDEN and "exceed max usage" in words:
        return Meaning.OVER_PLAN
    if status in (UNAUTHORIZED, FORBIDDEN):
        return Meaning.BAD_KEY
    is_trouble = status in (OK, REQUEST_TIMEOUT) or status >= SERVER_ERRORS
    return Meaning.TROUBLE if is_trouble else Meaning.REFUSED


def said(body: bytes, blot: Callable[[str], str] = str) -> tuple[str, tuple[str, ...]]:
    """An error body's words and the parameters it names: `message`, `error`, `errors[]`, or a bare array.

    They go through `blot` before they are cut: a part of a key is a secret too.
    """
    try:
        found = _phrases(json.loads(body))
    except (ValueError, RecursionError):
        found = [("", body[:MOST_BYTES_READ].decode("utf-8", errors="replace"))]
    phrases = "; ".join(f"{param}: {text}" if param else text for param, text in found)
    params = tuple(dict.fromkeys(blot(param)[:MOST_PARAM_CHARS] for param, _ in found if param))
    return " ".join(blot(phrases).split())[:MOST_WORDS_CHARS] or "no message", params


def _phrases(value: Any) -> list[tuple[str, str]]:
    if isinstance(value, list):
        return [phrase for item in value[:MOST_ERRORS_SHOWN] for phrase in _phrases(item)]
    if not isinstance(value, dict):
        return [("", str(value))]
    if isinstance(value.get("errors"), list):
        return _phrases(value["errors"])
    text = next((str(value[key]) for key in ("message", "msg", "error") if value.get(key)), "")
    return [(str(value.get("param") or ""), text)] if text else []


def _seconds(retry_after: str | None) -> float | None:
    """`Retry-After` in seconds; its other form, a date, is not used by APIs of this kind."""
    try:
        seconds = float(retry_after or "")
    except ValueError:
        return None
    return seconds if 0 <= seconds < float("inf") else None
