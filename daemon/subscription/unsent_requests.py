"""The acks, nacks and new deadlines that Google's client has not sent yet."""

from __future__ import annotations

import queue
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


class UnsentRequests(queue.Queue[Any]):
    """The queue from which the client's only dispatcher thread sends requests, in batches.

    The dispatcher waits for the first request of a batch without a time limit. Until it does so again, the
    requests that it has taken count as unsent. So the age grows if the dispatcher hangs or has ended.

    Args:
        on_put: Called with each request.
        clock: A monotonic clock, in seconds.
    """

    def __init__(
        self,
        on_put: Callable[[Any], None] = lambda _: None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self._on_put = on_put
        self._clock = clock
        self._oldest_taken: float | None = None

    def get(self, block: bool = True, timeout: float | None = None) -> Any:  # noqa: FBT001, FBT002 - as in `Queue`
        """Return the next request; see the class for the meaning of a call without a time limit."""
        if block and timeout is None:
            with self.mutex:
                self._oldest_taken = None
        return super().get(block, timeout)

    def oldest_seconds(self) -> float:
        """Return the age of the oldest unsent request, or 0."""
        with self.mutex:
            since = self.queue[0][0] if self.queue else None
            if self._oldest_taken is not None:
                since = self._oldest_taken
            return 0.0 if since is None else self._clock() - since

    def _put(self, item: Any) -> None:
        self._on_put(item)
        super()._put((self._clock(), item))

    def _get(self) -> Any:
        put_at, item = super()._get()
        if self._oldest_taken is None:
            self._oldest_taken = put_at
        return item
