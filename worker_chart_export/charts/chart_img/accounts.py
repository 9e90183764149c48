"""The Chart-IMG accounts: their settings, their plans and their rate limits."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, field_validator

from worker_chart_export.charts.base import DEFAULT_HEIGHT, DEFAULT_WIDTH
from worker_chart_export.charts.chart_img.redaction import redacted
from worker_chart_export.charts.whole_numbers import with_whole_numbers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from worker_chart_export.concurrency.cancel_scope import CancelScope
    from worker_chart_export.timing import Clock

#: Studies and drawings together, width and height by plan. Source: Chart-IMG's documentation, "Limits".
PLANS = {
    "BASIC": (3, 800, 600),
    "PRO": (5, 1920, 1080),
    "MEGA": (10, 1920, 1600),
    "ULTRA": (25, 2048, 1920),
    "ENTERPRISE": (50, 2048, 1920),
}
#: An id is also the name of the account's usage document.
ACCOUNT_ID = r"^(?!\.{1,2}\Z)(?!__.*__\Z)[^/\x00-\x1f]{1,128}\Z"
#: The characters that an HTTP header can hold; a line end copied with a key is refused.
API_KEY = re.compile(r"[\x21-\x7e]+")
WHOLE = "a whole number above 0"
#: An integer, also as a double. No other type is converted.
WholeNumber = Annotated[int, BeforeValidator(with_whole_numbers)]
#: A caller in the queue of a rate limit checks this often if a caller before it has left the queue.
QUEUE_CHECK_SECONDS = 1.0


class Account(BaseModel):
    """One account as configured, by the names of `CHART_IMG_ACCOUNTS_JSON`.

    The docstring of a field explains it. Its description is the expected value in an error message. No repr
    and no error shows the key.

    Raises:
        ValidationError: A value is wrong.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        regex_engine="python-re",
        validate_by_name=True,
    )

    id: Annotated[
        str,
        Field(
            pattern=ACCOUNT_ID,
            description="1-128 characters without / or control characters, not ., .. or __*__",
        ),
    ]
    """The name of the account in logs, metrics and its usage document."""
    api_key: Annotated[
        SecretStr, Field(validation_alias="apiKey", description="a text of printable ASCII without spaces")
    ]
    """The key. Never shown."""
    daily_limit: Annotated[
        WholeNumber, Field(validation_alias="dailyLimit", gt=0, strict=True, description=WHOLE)
    ] = 44
    """How many calls the account may make in a day (UTC), over all workers."""
    rate_per_second: Annotated[
        float,
        Field(
            validation_alias="ratePerSecond",
            gt=0,
            le=1000,
            strict=True,
            description="a number above 0, at most 1000",
        ),
    ] = 1.0
    """How many calls one process makes in a second."""
    burst: Annotated[
        WholeNumber, Field(gt=0, le=10_000, strict=True, description="a whole number from 1 to 10000")
    ] = 3
    """How many calls one process may make at once before the rate applies."""
    plan: Annotated[
        Literal["BASIC", "PRO", "MEGA", "ULTRA", "ENTERPRISE"] | None,
        Field(description="one of BASIC, PRO, MEGA, ULTRA, ENTERPRISE"),
    ] = None
    """The Chart-IMG plan. `templates validate` uses it to say which account can make a chart."""
    max_parameters: Annotated[
        WholeNumber | None, Field(validation_alias="maxParameters", gt=0, strict=True, description=WHOLE)
    ] = None
    """How many studies and drawings the plan allows in one chart, if it differs from the plan's own number.
    """

    @field_validator("api_key")
    @classmethod
    def _check_key(cls, value: SecretStr) -> SecretStr:
        if API_KEY.fullmatch(value.get_secret_value()) is None:
            raise ValueError("expected printable ASCII without spaces")
        return value

    def without_key(self, text: str) -> str:
        """Return the text with the key replaced: servers and libraries quote what they refuse."""
        return redacted(text, self.api_key.get_secret_value())


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What a chart needs an account's plan to allow."""

    parameters: int
    width: int
    height: int

    @classmethod
    def of(cls, payload: Mapping[str, Any]) -> Self:
        """Return the demand of a request body."""
        return cls(
            parameters=len(payload.get("studies", [])) + len(payload.get("drawings", [])),
            width=int(payload.get("width", DEFAULT_WIDTH)),
            height=int(payload.get("height", DEFAULT_HEIGHT)),
        )

    def is_at_least(self, other: Self) -> bool:
        """Return True if it is as large as `other` in every respect."""
        return (
            self.parameters >= other.parameters and self.width >= other.width and self.height >= other.height
        )


def why_not_on_plan(account: Account, demand: Demand) -> str | None:
    """Return why the account's plan does not allow the chart, or None if it does or is not known. Pure."""
    parameters, width, height = (None, None, None) if account.plan is None else PLANS[account.plan]
    parameters = account.max_parameters if account.max_parameters is not None else parameters
    if parameters is not None and demand.parameters > parameters:
        return f"{demand.parameters} studies and drawings, its plan allows {parameters}"
    if width is not None and height is not None and (demand.width > width or demand.height > height):
        return f"{demand.width}x{demand.height} pixels, its plan allows {width}x{height}"
    return None


class RateLimit:
    """A token bucket with a queue: the generic cell rate algorithm. Shared by all threads.

    A caller takes a token when it leaves the queue. A caller that stops waiting takes none.

    Args:
        per_second: Calls per second on average.
        burst: Calls at once after a rest.
        clock: Its monotonic clock is used.
    """

    def __init__(self, *, per_second: float, burst: int, clock: Clock) -> None:
        self._interval = 1.0 / per_second
        self._slack = (burst - 1) * self._interval
        self._clock = clock
        self._lock = threading.Lock()
        self._queue: list[object] = []
        # The theoretical arrival time of the next call.
        self._next_at = clock.monotonic()

    def wait(self, scope: CancelScope) -> bool:
        """Wait for a token. Return False at once when that would take longer than the scope has left.

        Raises:
            StepTimedOut: The step's time is used up.
            WorkerError: The error that stopped the step.
        """
        ticket = object()
        with self._lock:
            is_in_time = self._seconds_until_token(len(self._queue)) <= scope.remaining_seconds()
            if is_in_time:
                self._queue.append(ticket)
        if not is_in_time:
            scope.check()  # a step that was stopped has no time left either
            return False
        try:
            while True:
                with self._lock:
                    seconds = self._seconds_until_token(self._queue.index(ticket))
                    if seconds == 0:
                        self._queue.remove(ticket)
                        self._next_at = max(self._next_at, self._clock.monotonic()) + self._interval
                        return True
                scope.sleep(min(seconds, QUEUE_CHECK_SECONDS))
        except BaseException:
            with self._lock:
                self._queue.remove(ticket)
            raise

    def _seconds_until_token(self, others: int) -> float:
        """Return the seconds until a caller gets a token that has `others` callers before it."""
        now = self._clock.monotonic()
        return max(0.0, max(self._next_at, now) + others * self._interval - self._slack - now)
