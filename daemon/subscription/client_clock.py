"""Keep steps of the wall clock away from the waits of Google's Pub/Sub client.

The client measures its waits with the wall clock. If that clock is set back by N seconds, the client sends no
ack, nack or new deadline for N seconds, and may wait as long before it opens its stream again. If the clock
is set forward by more than the longest lease, the client drops the messages in progress. So the modules that
measure get a clock that never goes back. A module that measures in another way is left alone.
"""

from __future__ import annotations

import datetime as dt
import time
from types import SimpleNamespace
from typing import Any

from google.api_core import bidi
from google.cloud.pubsub_v1.subscriber._protocol import helper_threads, leaser

from worker_chart_export.timing import boot_seconds

#: They measure waits and the age of messages with `time.time()`.
TIME_MODULES: tuple[Any, ...] = (helper_threads, leaser)
#: It measures the pause between two streams with `datetime.datetime.now()`.
DATETIME_MODULES: tuple[Any, ...] = (bidi,)
_EPOCH = dt.datetime(1970, 1, 1)  # noqa: DTZ001 - the client compares times without a zone


class _BootDatetime(dt.datetime):
    @classmethod
    def now(cls, tz: dt.tzinfo | None = None) -> Any:
        """Return the boot clock as a time without a zone."""
        del tz
        return _EPOCH + dt.timedelta(seconds=boot_seconds())


_TIME = SimpleNamespace(**{**vars(time), "time": boot_seconds})
_DATETIME = SimpleNamespace(**{**vars(dt), "datetime": _BootDatetime})


def measure_waits_by_boot_clock() -> None:
    """Replace the clocks of these modules, once for the process."""
    for module in TIME_MODULES:
        if getattr(module, "time", None) is time:
            module.time = _TIME
    for module in DATETIME_MODULES:
        if getattr(module, "datetime", None) is dt:
            module.datetime = _DATETIME
