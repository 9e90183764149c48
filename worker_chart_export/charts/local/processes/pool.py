"""The daemon's side of the renderer processes: a pool of them, each drawing one chart at a time."""

from __future__ import annotations

import pickle
import select
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, LifoQueue
from typing import TYPE_CHECKING, Any

from worker_chart_export.charts.local.processes.framing import receive_message, send_message
from worker_chart_export.charts.local.processes.server_process import RendererEnded, ServerProcess
from worker_chart_export.errors import RenderFailed
from worker_chart_export.observability import metrics
from worker_chart_export.observability.logs import Event, log

if TYPE_CHECKING:
    from collections.abc import Callable

#: A stop is noticed within this time.
CHECK_SECONDS = 0.2
#: A task takes milliseconds, or seconds for the largest candle files on a busy machine.
TASK_SECONDS = 30.0
#: How often a task is tried when its process ends.
ATTEMPTS = 2


class UnexpectedError(Exception):
    """A task failed in its process with an error that is a fault of this program.

    Args:
        kind: The type of the error.
        text: Its text.
        trace: Its traceback.
    """

    def __init__(self, kind: str, text: str, trace: str) -> None:
        super().__init__(f"{kind}: {text}")
        self.kind = kind
        self.add_note(trace)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Renderer:
    """A renderer process.

    Attributes:
        pid: Its process id.
        stream: The socket for tasks and results.
        server: Its parent.
    """

    pid: int
    stream: socket.socket
    server: ServerProcess

    def is_alive(self) -> bool:
        """Return whether an idle renderer still runs. It sends nothing, so only its end can be read."""
        ready = select.poll()
        ready.register(self.stream, select.POLLIN)
        return not ready.poll(0)

    def run(self, task: bytes, on_idle: Callable[[], None]) -> bytearray:
        """Return the pickled result of a task. After an error the process is ended.

        Raises:
            RendererEnded: The process ended.
        """
        try:
            send_message(self.stream, task, on_idle=on_idle)
            return receive_message(self.stream, on_idle=on_idle)
        except (EOFError, OSError) as error:
            raise RendererEnded(self.end()) from error
        except BaseException:
            self.end()
            raise

    def end(self) -> str:
        """End the process, if it has not; return how it ended."""
        self.stream.close()
        return self.server.end(self.pid)


class RendererPool:
    """A pool of renderer processes. They are started when they are needed. All threads share one pool.

    A process draws for one thread at a time, so one that crashes or is ended costs no other chart. No thread
    is started, and this process is never forked.

    Args:
        processes: The most processes that draw at the same time.
        task_seconds: A process that needs longer for one task is ended.
    """

    def __init__(self, *, processes: int, task_seconds: float = TASK_SECONDS) -> None:
        self._task_seconds = task_seconds
        self._lock = threading.Lock()
        self._server: ServerProcess | None = None
        self._is_closed = False
        # The last that became idle is taken first. So no more are started than work at the same time.
        self._idle: LifoQueue[_Renderer | None] = LifoQueue()
        for _ in range(processes):
            self._idle.put(None)

    def run(self, task: str, *, check: Callable[[], None], **arguments: Any) -> Any:
        """Return the result of a task of a renderer process. It is tried once more if the process ends.

        Args:
            task: `load` or `draw`.
            check: Called several times a second; raises to stop the work. The process is then ended.
            arguments: What the task needs; it is pickled.

        Raises:
            RequestError: The error of the task.
            UnexpectedError: The same, if it was not raised on purpose.
            RenderFailed: The process ended twice.
            Exception: What `check` raised.
        """
        message = pickle.dumps((task, arguments))
        ends: list[str] = []
        while len(ends) < ATTEMPTS:
            try:
                value, error = pickle.loads(self._run(message, check))  # noqa: S301 - from our process
            except RendererEnded as end:
                ends.append(str(end))
                metrics.RENDERER_ENDS.inc()
                log.warning(Event.RENDERER_ENDED, f"A renderer process {end}", attempt=len(ends), task=task)
                continue
            if error is None:
                return value
            raise UnexpectedError(*error) if isinstance(error, tuple) else error
        raise RenderFailed(f"The process that draws the chart {ends[-1]}, {ATTEMPTS} times.", ends=ends)

    def close(self) -> None:
        """End all processes. Tasks that still run fail."""
        with self._lock:
            self._is_closed = True
            server, self._server = self._server, None
        if server is not None:
            server.close()
        idle: list[_Renderer | None] = []
        with suppress(Empty):
            while True:
                idle.append(self._idle.get_nowait())
        for renderer in idle:
            if renderer is not None:
                renderer.stream.close()
            self._idle.put(None)

    def _run(self, message: bytes, check: Callable[[], None]) -> bytearray:
        renderer, usable = self._take(check), None
        try:
            if renderer is not None and not renderer.is_alive():
                renderer.end()
                renderer = None
            renderer = renderer or self._start(check)
            answer = renderer.run(message, self._limited(check))
            usable = renderer
            return answer
        finally:
            self._idle.put(usable)

    def _limited(self, check: Callable[[], None]) -> Callable[[], None]:
        deadline = time.monotonic() + self._task_seconds

        def on_idle() -> None:
            check()
            if time.monotonic() > deadline:
                raise RendererEnded(f"worked for more than {self._task_seconds:g} s")

        return on_idle

    def _take(self, check: Callable[[], None]) -> _Renderer | None:
        """Wait for an idle renderer, or for the right to start one (None)."""
        while True:
            try:
                return self._idle.get(timeout=CHECK_SECONDS)
            except Empty:
                check()

    def _start(self, check: Callable[[], None]) -> _Renderer:
        while not self._lock.acquire(timeout=CHECK_SECONDS):
            check()
        try:
            if self._is_closed:
                raise RenderFailed("The worker stops.")
            if self._server is None or not self._server.is_alive():
                if self._server is not None:
                    self._server.close()
                self._server = ServerProcess()
            server = self._server
            server.wait_until_ready(check, every_seconds=CHECK_SECONDS)
            own, other = socket.socketpair()
            with other:
                pid = server.start_renderer(other)
        finally:
            self._lock.release()
        own.settimeout(CHECK_SECONDS)
        return _Renderer(pid=pid, stream=own, server=server)
