"""The clouds of the tests: the embedded one, and Google's official emulators."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING
from unittest import mock

import grpc
import pytest

from localcloud import LocalCloud

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PROJECT = "demo-project"
_START_TIMEOUT_SECONDS = 40.0
_STOP_TIMEOUT_SECONDS = 10.0
#: For some minutes: Java's better compiler and its parallel collector take more time than they save.
_BRIEFLY = {"JAVA_TOOL_OPTIONS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"}

#: The emulators of the environment at the start of the session. `tests/conftest.py` removes them afterwards.
GIVEN = {
    name: os.environ[name]
    for name in ("PUBSUB_EMULATOR_HOST", "FIRESTORE_EMULATOR_HOST")
    if name in os.environ
}


class OfficialEmulatorsMissing(Exception):
    """Google's emulators are neither named in the environment nor installed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OfficialEmulators:
    """Google's Pub/Sub and Firestore emulators, running."""

    pubsub: str
    firestore: str

    def environment(self) -> dict[str, str]:
        """Return the variables through which Google's clients find them."""
        return {
            "GOOGLE_CLOUD_PROJECT": PROJECT,
            "PUBSUB_EMULATOR_HOST": self.pubsub,
            "FIRESTORE_EMULATOR_HOST": self.firestore,
        }


@contextlib.contextmanager
def official_emulators(*, briefly: bool = False) -> Iterator[OfficialEmulators]:
    """Yield the emulators of the session's environment, or start missing ones on free ports.

    Args:
        briefly: They are needed for some minutes, and nobody measures them: they start with less work.

    Raises:
        OfficialEmulatorsMissing: There are no emulators.
    """
    with contextlib.ExitStack() as running:
        pubsub = GIVEN.get("PUBSUB_EMULATOR_HOST")
        firestore = GIVEN.get("FIRESTORE_EMULATOR_HOST")
        given = {"pubsub": pubsub, "firestore": firestore}
        commands = {} if all(given.values()) else {k: v for k, v in _commands().items() if not given[k]}
        # Both are started before the wait, because each Java process needs some seconds.
        variables = {**os.environ, **(_BRIEFLY if briefly else {})}
        started = {
            name: running.enter_context(_started(command, variables)) for name, command in commands.items()
        }
        for server in started.values():
            server.wait_until_ready()
        yield OfficialEmulators(
            pubsub=pubsub or started["pubsub"].address, firestore=firestore or started["firestore"].address
        )


def _sdk_roots() -> Iterator[Path]:
    """Return the possible places of a Google Cloud SDK, the most likely first."""
    if "CLOUDSDK_ROOT_DIR" in os.environ:
        yield Path(os.environ["CLOUDSDK_ROOT_DIR"])
    gcloud = shutil.which("gcloud")
    if gcloud:
        yield Path(gcloud).resolve().parent.parent
    for base in (Path.home(), Path("/usr/lib"), Path("/usr/local"), Path("/usr/local/share"), Path("/opt")):
        yield base / "google-cloud-sdk"
    yield Path("/snap/google-cloud-cli/current")


def _commands() -> dict[str, list[str]]:
    """Return the command of each emulator, without host and port."""
    java = shutil.which("java")
    for root in _sdk_roots():
        pubsub = sorted((root / "platform/pubsub-emulator/lib").glob("cloud-pubsub-emulator-*-all.jar"))
        firestore = root / "platform/cloud-firestore-emulator/cloud_firestore_emulator"
        if java and pubsub and firestore.is_file():
            return {"pubsub": [java, "-jar", str(pubsub[-1])], "firestore": [str(firestore), "start"]}
    raise OfficialEmulatorsMissing(
        "Google's Pub/Sub and Firestore emulators were not found. Install Java and "
        "`gcloud components install pubsub-emulator cloud-firestore-emulator`, or name running ones in "
        "PUBSUB_EMULATOR_HOST and FIRESTORE_EMULATOR_HOST."
    )


def free_port() -> int:
    """Choose a free port that the system gives to nobody else before the emulator binds it, seconds later.

    Ports from 32768 on are those that Linux gives to outgoing connections and to servers on port 0.
    """
    while True:
        port = 10_000 + secrets.randbelow(22_768)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@dataclass(frozen=True, kw_only=True, slots=True)
class _Server:
    address: str
    process: subprocess.Popen[bytes]
    output: IO[str]

    def wait_until_ready(self) -> None:
        """Wait until it answers; raise RuntimeError with its output when it does not."""
        with grpc.insecure_channel(self.address) as channel:
            try:
                grpc.channel_ready_future(channel).result(timeout=_START_TIMEOUT_SECONDS)
            except grpc.FutureTimeoutError:
                self.output.seek(0)
                said = self.output.read()[-2000:]
                code = self.process.poll()
                raise RuntimeError(f"{self.process.args!r} is not up (exit code {code}): {said}") from None


@contextlib.contextmanager
def _started(command: list[str], environment: Mapping[str, str]) -> Iterator[_Server]:
    """Run an emulator on a free port during the context; its output goes to a file."""
    port = free_port()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            [*command, "--host=127.0.0.1", f"--port={port}"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # the Firestore script starts a Java process, which must end with it
        )
        try:
            yield _Server(address=f"127.0.0.1:{port}", process=process, output=output)
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):  # it has already ended
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_TIMEOUT_SECONDS)
            return
    raise RuntimeError(f"{process.args!r} does not end")


@contextlib.contextmanager
def clients_find(environment: Mapping[str, str]) -> Iterator[None]:
    """Make Google's clients in this context use the cloud that `environment` names."""
    with mock.patch.dict(os.environ, environment):
        yield


@pytest.fixture(scope="session")
def official() -> Iterator[OfficialEmulators]:
    """Return the official emulators; without them tests fail in CI and are skipped elsewhere."""
    with contextlib.ExitStack() as running:
        try:
            emulators = running.enter_context(official_emulators(briefly=True))
        except OfficialEmulatorsMissing as missing:
            if os.environ.get("CI"):
                pytest.fail(str(missing), pytrace=False)
            pytest.skip(str(missing))
        yield emulators


@pytest.fixture(scope="session")
def embedded() -> Iterator[LocalCloud]:
    """Return the session's embedded cloud; tests use their own names for documents, topics, buckets."""
    with LocalCloud.start(project=PROJECT) as cloud:
        yield cloud


@pytest.fixture
def cloud() -> Iterator[LocalCloud]:
    """Return a new embedded cloud that a test can break and restart."""
    with LocalCloud.start(project=PROJECT) as own:
        yield own
