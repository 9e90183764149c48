"""The path of a message: which files and functions one message runs through, from its arrival to its ack.

`python -m benchmarks.walk` starts the embedded cloud and, in this process, the parts of a worker. It
publishes a message that names one READY step with one chart, and prints each function that the message
enters: file by file, in the order of the first call. `--shape` and `--one-caller` look at the sources
instead (`shape.py`).

What counts: each function (file and qualified name) of `PACKAGES` that begins to run between the stream's
call of the delivery's callback and its return, which comes after the ack. That is so in all threads but
those of `BESIDE`. Heartbeats, rescue and health server serve no message, live page and tracing only watch
one; they are not started. Properties, closures and methods that Python itself calls count as any other
function. The methods that `dataclasses` writes stand in no file and don't count. The last line counts
lambdas, comprehensions and generator expressions too. Python 3.12 and later run most comprehensions without
a frame: compare figures of one version of Python only.

By default the first message is followed, and it reads a template and opens connections. `--warm-up 1`
follows the second one.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import tempfile
import threading
from typing import TYPE_CHECKING

from benchmarks import shape
from benchmarks.processes import ROOT
from benchmarks.rendering import CANDLES
from daemon.lifecycle.library_defaults import set_library_defaults
from daemon.subscription.callback import Delivery
from daemon.subscription.stream import open_stream
from localcloud import LocalCloud
from tests.support.cloud.clouds import clients_find
from tests.support.cloud.resources import deployment_on
from tests.support.process.in_process_worker import WorkerUnderTest
from worker_chart_export.observability.logs import configure

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import CodeType, FrameType

    from tests.support.cloud.resources import Deployment

PACKAGES = ("daemon", "worker_chart_export")
#: Threads that serve no message.
BESIDE = {"chart-img-calls"}
SECONDS = 60.0
CALLBACK = Delivery.__call__.__code__
FOLDERS = tuple(f"{ROOT / name}/" for name in PACKAGES)


class Walk:
    """Notes what runs between a callback's call and its return; one message at a time.

    Args:
        skip: So many messages are let pass first.

    Attributes:
        entered: The functions in the order of their first call, as path and qualified name.
    """

    def __init__(self, skip: int) -> None:
        self.entered: dict[tuple[str, str], None] = {}
        self._to_skip = skip
        self._is_on = False
        self._settled = threading.Semaphore(0)

    def __call__(self, frame: FrameType, event: str, _argument: object) -> None:
        """Note one event; Python calls this in every thread that it was set for."""
        code = frame.f_code
        if code is CALLBACK and event == "call":
            self._is_on = self._to_skip == 0
            self._to_skip -= 1
        if self._is_on and event == "call" and code.co_filename.startswith(FOLDERS):
            self._note(code)
        if code is CALLBACK and event == "return":
            self._is_on = False
            self._settled.release()

    def wait(self) -> None:
        """Wait until one more message is settled.

        Raises:
            TimeoutError: It was not.
        """
        if not self._settled.acquire(timeout=SECONDS):
            raise TimeoutError(f"no message was settled within {SECONDS:g} s")

    def _note(self, code: CodeType) -> None:
        if threading.current_thread().name not in BESIDE:
            path = code.co_filename.removeprefix(f"{ROOT}/")
            self.entered.setdefault((path, code.co_qualname))


@contextlib.contextmanager
def profiled(walk: Walk) -> Iterator[None]:
    """Show the walk every call of all threads that are started meanwhile, and of this one."""
    threading.setprofile(walk)
    sys.setprofile(walk)
    try:
        yield
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


def follow(mode: str, *, warm_up: int) -> Walk:
    """Let a worker work so many messages and one more, which is followed."""
    walk = Walk(skip=warm_up)
    with contextlib.ExitStack() as running:
        folder = running.enter_context(tempfile.TemporaryDirectory())
        cloud = running.enter_context(LocalCloud.start())
        deployment = running.enter_context(deployment_on(cloud.environment(), cloud))
        deployment.objects.bucket(deployment.bucket).blob("ohlcv.json").upload_from_string(
            CANDLES.read_bytes()
        )
        running.enter_context(profiled(walk))
        if mode == "mock":
            record(deployment, folder)
        worker = WorkerUnderTest(deployment, CHARTS_API_MODE=mode, CHARTS_FIXTURES_DIR=folder)
        running.callback(worker.close)
        with clients_find(deployment.environment):
            stream = open_stream(worker.settings, worker.callback)
        running.callback(stream.wait_until_ended, SECONDS)
        running.callback(stream.cancel)
        for _ in range(warm_up + 1):
            work_one(deployment, walk)
    return walk


def record(deployment: Deployment, folder: str) -> None:
    """Let another worker, without a message, put the chart into the folder from which `mock` takes it."""
    worker = WorkerUnderTest(deployment, CHARTS_API_MODE="record", CHARTS_FIXTURES_DIR=folder)
    worker.handle(deployment.put_run(charts=1)[0])
    worker.close()


def work_one(deployment: Deployment, walk: Walk) -> None:
    """Publish one message and wait until it is settled.

    Raises:
        RuntimeError: Its step did not succeed.
    """
    run_id, (step_id,) = deployment.put_run(charts=1)
    deployment.publish_step(run_id, step_id)
    walk.wait()
    step = deployment.step(run_id, step_id)
    if step["status"] != "SUCCEEDED":
        raise RuntimeError(f"the step ended as {step['status']}: {step.get('error')}")


def report(walk: Walk) -> str:
    """List the files in the order in which they are entered first, with their functions, and the totals."""
    named: dict[str, list[str]] = {path: [] for path, _ in walk.entered}
    for path, name in walk.entered:
        if not name.endswith(">"):
            named[path].append(name)
    lines = [line for path, names in named.items() for line in (path, *(f"    {name}" for name in names))]
    functions = sum(map(len, named.values()))
    lines += ["", f"{len(named)} files, {functions} functions that have a name"]
    lines += [f"{len(named)} files, {len(walk.entered)} functions, lambdas and comprehensions among them"]
    return "\n".join(lines)


def main() -> int:
    """Follow a message, or look at the sources."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.walk", description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--mode", choices=["real", "local", "mock"], default="real", help="where charts come from"
    )
    parser.add_argument("--warm-up", type=int, default=0, help="messages before the one that is followed")
    parser.add_argument("--shape", action="store_true", help="how large files, folders and functions are")
    parser.add_argument("--one-caller", action="store_true", help="small private functions with one caller")
    options = parser.parse_args()
    if options.shape or options.one_caller:
        text = shape.table() if options.shape else shape.one_caller()
    else:
        set_library_defaults()
        configure(level="INFO", log_format="json", stream=io.StringIO())
        text = report(follow(options.mode, warm_up=options.warm_up))
    sys.stdout.write(f"{text}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
