"""Write log lines so that no work waits for the reader of the output.

A line is written at once while the reader keeps up, so that it survives a crash. If another thread is just
writing, that thread writes it too: a wait for that thread costs two thread switches. While the reader stalls,
lines wait, and a thread of their own writes them.
"""

from __future__ import annotations

import ctypes
import os
import select
import socket
import stat
import threading
from collections import deque
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from worker_chart_export.observability import metrics
from worker_chart_export.observability.logs import Event, log

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TextIO

#: How much waits at most: some ten thousand lines.
MAX_BYTES = 8 * 2**20
#: `write` of the C library. A call of it, unlike one of `os.write`, keeps Python's lock.
_WRITE = ctypes.PyDLL(None, use_errno=True).write
_WRITE.argtypes, _WRITE.restype = (ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t), ctypes.c_ssize_t
#: How much one write takes at most, unless a single line is longer.
WRITE_BYTES = 2**16


class LineQueue:
    """A text stream for log lines whose `write` never waits, not even for a lock. Shared by all threads.

    Lines keep their order. While the reader of the output stalls, lines wait up to a limit; more are dropped
    and counted, and a line says so once the reader goes on.

    Args:
        stream: Its descriptor and its encoding are used. Characters that the encoding lacks are escaped.
        max_bytes: How much waits at most. A single line may be longer.

    Raises:
        OSError: The stream has no descriptor.
        RuntimeError: The system has no more threads.
    """

    #: The log handler needs no lock for its own lines.
    is_shared_by_threads = True

    def __init__(self, stream: TextIO, *, max_bytes: int = MAX_BYTES) -> None:
        self._descriptor = stream.fileno()
        self._encoding = stream.encoding
        self._max_bytes = max_bytes
        self._write_now = _without_waiting(self._descriptor)
        #: Lines that no thread has taken yet. Whoever releases the lock looks for more.
        self._new: deque[bytes] = deque()
        self._lock = threading.Lock()
        self._waiting: deque[bytes | threading.Event] = deque()
        self._bytes = 0  # that are not written yet
        self._dropped = 0  # lines since it was last said
        self._is_idle = True
        #: Free when the thread has something to write.
        self._work = threading.Lock()
        self._work.acquire()
        threading.Thread(target=self._keep_writing, name="log-lines", daemon=True).start()

    def write(self, line: str) -> None:
        """Write a line, or let it wait, or drop it when too much waits."""
        self._new.append(line.encode(self._encoding, "backslashreplace"))
        self._take_new()

    def _take_new(self) -> None:
        """Take all new lines, unless another thread does. Or this one, which a destructor has interrupted."""
        while self._new and self._lock.acquire(blocking=False):
            try:
                self._write_new()
            finally:
                self._lock.release()

    def _write_new(self) -> None:
        """Write the new lines, or let them wait. The caller has the lock."""
        lines = [self._new.popleft() for _ in range(len(self._new))]
        if not self._bytes:
            data = b"".join(lines)
            written = self._written_now(data, len(lines))
            if written == len(data):
                return
            while lines and written >= len(lines[0]):
                written -= len(lines.pop(0))
            if written:
                lines[0] = lines[0][written:]
        for line in lines:
            if self._bytes and self._bytes + len(line) > self._max_bytes:
                self._dropped += 1
                metrics.LOG_LINES_DROPPED.labels("queue_full").inc()
            else:
                self._bytes += len(line)
                self._waiting.append(line)
                self._wake()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with self._lock:
            yield
        self._take_new()

    def isatty(self) -> bool:
        """Return whether a terminal shows the lines."""
        return os.isatty(self._descriptor)

    def flush(self) -> None:
        """Do nothing: each line is written as soon as it can be."""

    def drain(self, seconds: float) -> bool:
        """Wait until all lines so far are written. Return False if the time has passed."""
        is_written = threading.Event()
        with self._locked():
            self._write_new()
            self._waiting.append(is_written)
            self._wake()
        return is_written.wait(seconds)

    def _written_now(self, data: bytes, lines: int) -> int:
        """Return how much was written without waiting. What can't be written at all counts as written."""
        try:
            return self._write_now(data)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError:  # the reader has gone, or the disk is full
            metrics.LOG_LINES_DROPPED.labels("write_failed").inc(lines)
            return len(data)

    def _wake(self) -> None:
        if self._is_idle:
            self._is_idle = False
            self._work.release()

    def _keep_writing(self) -> None:
        while True:
            self._work.acquire()
            while items := self._take():
                self._write_waiting(items)

    def _take(self) -> list[bytes | threading.Event]:
        """Take what one write should hold. The thread is idle when there is nothing."""
        items: list[bytes | threading.Event] = []
        size = 0
        with self._locked():
            while self._waiting and size < WRITE_BYTES:
                item = self._waiting.popleft()
                items.append(item)
                size += len(item) if isinstance(item, bytes) else 0
            self._is_idle = not items
        return items

    def _write_waiting(self, items: list[bytes | threading.Event]) -> None:
        """Write lines, and say then how many were dropped before."""
        lines = [item for item in items if isinstance(item, bytes)]
        try:
            _write_all(self._descriptor, b"".join(lines))
        except OSError:  # the reader has gone, or the disk is full
            metrics.LOG_LINES_DROPPED.labels("write_failed").inc(len(lines))
        with self._locked():
            self._bytes -= sum(map(len, lines))
            dropped, self._dropped = self._dropped, 0
        if dropped:
            message = f"{dropped} log lines were dropped, because the output was not read"
            log.warning(Event.LOG_LINES_DROPPED, message, lines=dropped)
        for item in items:
            if isinstance(item, threading.Event):
                item.set()


def _without_waiting(descriptor: int) -> Callable[[bytes], int]:
    """Return a function that writes what it can at once. It raises BlockingIOError if that is nothing.

    The descriptor itself stays as it is: other processes may use the same open file. A pipe or a terminal is
    opened a second time. Where that is impossible, everything waits for the thread.
    """
    mode = os.fstat(descriptor).st_mode
    try:
        if stat.S_ISREG(mode):
            return partial(os.write, descriptor)
        if stat.S_ISSOCK(mode):
            return partial(_send, socket.socket(fileno=os.dup(descriptor)))
        flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        write = _write_at_once if stat.S_ISFIFO(mode) else os.write  # a console may make its writer wait
        return partial(write, os.open(f"/proc/self/fd/{descriptor}", flags))
    except OSError:
        return _write_nothing


def _write_at_once(descriptor: int, data: bytes) -> int:
    """Write to a non-blocking pipe as `os.write` does, but keep Python's lock.

    `os.write` gives the lock to another thread, and has to wait to get it back: under load that takes longer
    than the write itself.
    """
    written: int = _WRITE(descriptor, data, len(data))
    if written < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return written


def _send(output: socket.socket, data: bytes) -> int:
    return output.send(data, socket.MSG_DONTWAIT)


def _write_nothing(_data: bytes) -> int:
    return 0


def _write_all(descriptor: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        try:
            left = left[os.write(descriptor, left) :]
        except BlockingIOError:  # another process with this output made it non-blocking
            poll = select.poll()
            poll.register(descriptor, select.POLLOUT)
            poll.poll()
