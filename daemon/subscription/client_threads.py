"""Let Google's Pub/Sub client close a stream when the system has no more threads.

The client starts a thread for its shutdown, and another one when the stream ends. Without them the stream
would never close. So threads that exist already take their place. A client that does it in another way is
left alone.
"""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

from google.cloud.pubsub_v1.subscriber._protocol import streaming_pull_manager

from worker_chart_export.concurrency.parallel import ThreadCache

#: The shutdown, and the end of the stream that it causes.
THREADS = 2
_threads = ThreadCache("stream-end")
_manager: Any = streaming_pull_manager


class _Thread(threading.Thread):
    def start(self) -> None:
        """Start the thread, or do its work in one that exists."""
        try:
            super().start()
        except RuntimeError:  # the system has no more threads
            _threads.run(self.run)


_THREADING = SimpleNamespace(**{**vars(threading), "Thread": _Thread})


def reserve_threads() -> None:
    """Start the threads that close a stream, unless they wait for work already.

    Raises:
        RuntimeError: The system has no more threads.
    """
    _threads.reserve(THREADS)
    if getattr(_manager, "threading", None) is threading:
        _manager.threading = _THREADING
