"""What Chart-IMG's answers mean. Pure; sources: its documentation, and what broken servers send."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Self

from worker_chart_export.charts.base import PNG_IEND, PNG_SIGNATURE, check_png
from worker_chart_export.errors import ChartApiFailed

if TYPE_CHECKING:
    from collections.abc import Callable

OK, UNAUTHORIZED, FORBIDDEN, RATE_LIMITED = 200, 401, 403, 429
REQUEST_TIMEOUT, SERVER_ERRORS = 408, 500
#: The daily quota. At 429 other words may stand around it, elsewhere any limit may be meant.
LIMIT_EXCEEDED = "limit exceeded"
#: The other kind of 429.
OF_A_RATE = re.compile(r"\brate\b|\bper[ -]?(second|minute|hour)\b")
MAX_ERRORS_SHOWN = 10
#: Less than is read of a body: a key that the reading cut in two is not among them.
MAX_TEXT_CHARS = 10_000
MAX_WORDS_CHARS, MAX_PARAM_CHARS = 300, 100


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
        is_whole: It is in order, but no chart as asked for: the next one will hardly be.
        was_sent: Whether the server may have got the request.
    """

    meaning: Meaning
    status: int
    words: str = ""
    params: tuple[str, ...] = ()
    retry_after_seconds: float | None = None
    is_whole: bool = False
    was_sent: bool = True

    @classmethod
    def missing(cls, status: int, why: str, *, was_sent: bool) -> Self:
        """None came, or none that can be read."""
        is_whole = status == OK
        return cls(meaning=Meaning.TROUBLE, status=status, words=why, was_sent=was_sent, is_whole=is_whole)

    @property
    def keeps_count(self) -> bool:
        """Whether the account can't have paid for it: the next call is counted already."""
        return self.meaning is Meaning.TOO_FAST or not self.was_sent

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
    retry_after_seconds: float | None = None,
    blot: Callable[[str], str] = str,
) -> Answer:
    """What the answer to a chart of this size means; the server's words go through `blot`.

    Raises:
        ChartTooLarge: It is a chart, but larger than its readers accept.
    """
    if status == OK and body.startswith(PNG_SIGNATURE):
        try:
            check_png(body, width=width, height=height, max_bytes=max_bytes)
        except ChartApiFailed as error:
            is_whole = body.endswith(PNG_IEND)
            return Answer(meaning=Meaning.TROUBLE, status=status, words=error.message, is_whole=is_whole)
        return Answer(meaning=Meaning.CHART, status=status)
    words, params = said(body, blot)
    return Answer(
        meaning=_meaning(status, words.lower(), is_page=body.lstrip().startswith(b"<")),
        status=status,
        words=words,
        params=params,
        retry_after_seconds=retry_after_seconds,
        is_whole=status == OK and not PNG_SIGNATURE.startswith(body),
    )


def _meaning(status: int, words: str, *, is_page: bool) -> Meaning:
    if _says_used_up(status, words):
        return Meaning.EXHAUSTED
    if status == RATE_LIMITED:
        return Meaning.TOO_FAST
    if status == FORBIDDEN and "exceed max usage" in words:
        return Meaning.OVER_PLAN
    if status == UNAUTHORIZED or (status == FORBIDDEN and not is_page):
        return Meaning.BAD_KEY
    # A page with 403 is from something between: the API itself answers in JSON.
    is_trouble = status in (OK, REQUEST_TIMEOUT, FORBIDDEN) or status >= SERVER_ERRORS
    return Meaning.TROUBLE if is_trouble else Meaning.REFUSED


def _says_used_up(status: int, words: str) -> bool:
    if status == RATE_LIMITED:
        return LIMIT_EXCEEDED in words and OF_A_RATE.search(words) is None
    return status < SERVER_ERRORS and words.strip(" .!") == LIMIT_EXCEEDED


def said(body: bytes, blot: Callable[[str], str] = str) -> tuple[str, tuple[str, ...]]:
    """An error body's words and the parameters it names: `message`, `error`, `errors[]`, or a bare array.

    They go through `blot` before they are cut: a part of a key is a secret too.
    """
    try:
        found = _phrases(json.loads(body))
    except (ValueError, RecursionError):
        found = [("", blot(body.decode("utf-8", errors="replace"))[:MAX_TEXT_CHARS])]
    phrases = "; ".join(f"{param}: {text}" if param else text for param, text in found)
    params = tuple(dict.fromkeys(blot(param)[:MAX_PARAM_CHARS] for param, _ in found if param))
    return " ".join(blot(phrases).split())[:MAX_WORDS_CHARS] or "no message", params


def _phrases(value: Any) -> list[tuple[str, str]]:
    if isinstance(value, list):
        return [phrase for item in value[:MAX_ERRORS_SHOWN] for phrase in _phrases(item)]
    if not isinstance(value, dict):
        return [("", str(value))]
    if value.get("errors") and isinstance(value["errors"], list):
        return _phrases(value["errors"])
    text = next((value[key] for key in ("message", "msg", "error") if value.get(key)), "")
    if isinstance(text, dict):
        return _phrases(text)
    return [(str(value.get("param") or ""), str(text))] if text else []
