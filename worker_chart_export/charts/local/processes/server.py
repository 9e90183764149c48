"""The parent of the renderer processes, and what a renderer does.

`python -m` runs this module in a process that has loaded the drawing libraries, has one thread and opens no
connection. It forks a renderer when the daemon asks for one: that takes some milliseconds, and all renderers
share the memory of the libraries. The daemon itself never forks, because gRPC does not survive that.

Requests of the daemon come over standard input, a socket that keeps the borders of messages:

- a descriptor: fork a renderer that serves this socket; the answer is its process id, or -1;
- a process id: end that renderer; the answer is its exit status, as `os.waitpid` returns it.

When the daemon ends in any way, this process reads the end of the socket and ends. The kernel then ends the
renderers, even if one is in an endless loop.
"""

from __future__ import annotations

import ctypes
import gc
import os
import pickle
import signal
import socket
import struct
import traceback
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worker_chart_export.charts.local.in_process import InProcessRenderer
from worker_chart_export.charts.local.processes.framing import receive_message, send_message
from worker_chart_export.errors import RequestError
from worker_chart_export.memory import keep_freed_memory, return_freed_memory

if TYPE_CHECKING:
    from collections.abc import Callable

NUMBER = struct.Struct("q")
READY = b"ready"
#: A failed fork, in place of a process id.
NOT_STARTED = -1
_MAX_REQUEST_BYTES = 64
_STDIN = 0
#: Only the daemon ends renderers: it decides whether a chart is still wanted after a signal to stop.
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM)
#: From linux/prctl.h.
_PR_SET_PDEATHSIG, _PR_SET_NAME = 1, 15
#: If memory runs out, the kernel is to end a renderer and not the daemon.
_OOM_SCORE = "500"
#: After larger requests the memory is returned to the system.
_LARGE_BYTES = 1 << 20


def main() -> None:
    """Serve the daemon until it ends."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
    _prctl(_PR_SET_NAME, b"chart-renderers")
    control = socket.socket(fileno=os.dup(_STDIN))
    os.close(_STDIN)
    os.open(os.devnull, os.O_RDONLY)  # the lowest free descriptor, so again standard input
    keep_freed_memory()
    _load_libraries()
    renderers: set[int] = set()
    with suppress(OSError):  # the daemon has ended
        control.send(READY)
        while _serve_request(control, renderers):
            pass
    for pid in renderers:
        _end(pid)
    os._exit(0)


def _load_libraries() -> None:
    """Draw a chart, so that the renderers share all that is loaded for it. Keep it out of the collector."""
    with suppress(Exception):  # a request that fails in the same way says so
        renderer = InProcessRenderer(max_png_bytes=_LARGE_BYTES)
        raw = files("worker_chart_export").joinpath("data/samples/ohlcv/IBM_1d.json").read_bytes()
        candles = renderer.load(raw, symbol="IBM", timeframe="1d")
        renderer.draw(candles, {"symbol": "IBM", "interval": "1D"}, symbol="IBM", timeframe="1d")
    gc.collect()
    gc.freeze()


def _serve_request(control: socket.socket, renderers: set[int]) -> bool:
    """Serve one request of the daemon; return False when it has ended. Keep the set of renderers."""
    request, descriptors, _, _ = socket.recv_fds(control, _MAX_REQUEST_BYTES, 1)
    if not request:
        return False
    if descriptors:
        answer = _fork(control, descriptors[0])
        renderers.add(answer)
        renderers.discard(NOT_STARTED)
    else:
        (pid,) = NUMBER.unpack(request)
        answer = _end(pid)
        renderers.discard(pid)
    control.send(NUMBER.pack(answer))
    return True


def _end(pid: int) -> int:
    """End a renderer, which stays as a zombie if it has ended already; return its exit status."""
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    return status


def _fork(control: socket.socket, descriptor: int) -> int:
    """Start a renderer that serves the socket `descriptor`; return its process id."""
    parent = os.getpid()
    try:
        pid = os.fork()
    except OSError:  # no memory, too many processes
        pid = NOT_STARTED
    if pid == 0:
        try:
            control.close()
            _render_until_closed(socket.socket(fileno=descriptor), parent=parent)
        finally:
            os._exit(0)
    os.close(descriptor)
    return pid


def _render_until_closed(requests: socket.socket, *, parent: int) -> None:
    """Answer one request after the other, until the daemon closes the socket or `parent` ends."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the kernel knew
        return
    _prctl(_PR_SET_NAME, b"chart-renderer")
    with suppress(OSError):  # not on Linux, or not allowed
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE, encoding="ascii")
    with suppress(EOFError, OSError):
        while True:
            request = receive_message(requests)
            send_message(requests, _answer(request))
            if len(request) > _LARGE_BYTES:
                del request
                return_freed_memory()


def _answer(request: bytearray) -> bytes:
    """Return the pickled result of a request: `(value, None)` or `(None, error)`.

    An error that was not raised on purpose is a tuple: its type, its text, its traceback.
    """
    try:
        task, arguments = pickle.loads(request)  # noqa: S301 - from the daemon, over a socket of its own
        return pickle.dumps((_TASKS[task](**arguments), None))
    except RequestError as error:
        return pickle.dumps((None, error.with_traceback(None)))
    except Exception as error:  # noqa: BLE001 - raised and logged in the daemon
        trace = "".join(traceback.format_exception(error))
        return pickle.dumps((None, (type(error).__name__, f"{error!s:.300}", trace)))


def _load(*, raw: bytes, symbol: str, timeframe: str) -> tuple[bytes, int]:
    candles = InProcessRenderer(max_png_bytes=0).load(raw, symbol=symbol, timeframe=timeframe)
    return pickle.dumps(candles), len(candles)


def _draw(*, candles: bytes, max_png_bytes: int, **arguments: Any) -> tuple[bytes, dict[str, Any]]:
    loaded = pickle.loads(candles)  # noqa: S301 - made by `_load`
    png, facts = InProcessRenderer(max_png_bytes=max_png_bytes).draw(loaded, **arguments)
    return png, dict(facts)


_TASKS: dict[str, Callable[..., object]] = {"load": _load, "draw": _draw}


def _prctl(option: int, value: int | bytes) -> None:
    with suppress(OSError, AttributeError):  # not on Linux
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    main()
