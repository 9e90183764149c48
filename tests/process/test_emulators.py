"""`emulators -- COMMAND`: environment, exit code and signals of the command, and the end of both."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.process.commands import run_command
from tests.support.process.daemons import ROOT, clean_environment
from tests.support.process.terminal import Terminal

#: Waits for SIGUSR1; its exit code is 10 and how often SIGINT came.
COUNTING = """
import os, signal
count = 0
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGUSR1})
print("parent", os.getppid(), "ready", flush=True)
while signal.sigwait({signal.SIGINT, signal.SIGUSR1}) == signal.SIGINT:
    count += 1
    print("interrupted", flush=True)
raise SystemExit(10 + count)
"""


@contextlib.contextmanager
def running(*command):
    """Run a command on emulators in a new interpreter; yield the process with its output in pipes."""
    with subprocess.Popen(
        [sys.executable, "-m", "daemon.cli", "emulators", "--", *command],
        cwd=ROOT,
        env=clean_environment({}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def assert_ends(pid, seconds=10):
    """Wait until there is no such process."""
    deadline = time.monotonic() + seconds
    while is_running(pid):
        assert time.monotonic() < deadline, f"{pid} still runs"
        time.sleep(0.02)


def is_running(pid):
    """Return whether there is such a process, and it has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def assert_nothing_listens(address):
    """Check that an emulator has ended."""
    host, port = address.rsplit(":", 1)
    with pytest.raises(ConnectionRefusedError), socket.create_connection((host, int(port)), timeout=5):
        pass


def test_the_command_gets_the_variables_and_gives_its_exit_code():
    """The command sees the emulators in place of what was set. They end with it."""
    given = {"PUBSUB_EMULATOR_HOST": "elsewhere:1", "GOOGLE_CLOUD_PROJECT": "prod", "OTHER": "kept"}
    script = "echo $GOOGLE_CLOUD_PROJECT $OTHER $PUBSUB_EMULATOR_HOST $FIRESTORE_EMULATOR_HOST; exit 7"
    done = run_command("emulators", "--", "sh", "-c", script, environment=given)
    assert done.returncode == 7, done.stderr
    project, other, pubsub, firestore = done.stdout.split()
    assert (project, other) == ("demo-project", "kept")
    assert "GOOGLE_CLOUD_PROJECT is demo-project for the command, in place of 'prod'" in done.stderr
    assert f"PUBSUB_EMULATOR_HOST is {pubsub} for the command, in place of 'elsewhere:1'" in done.stderr
    assert_nothing_listens(pubsub)
    assert_nothing_listens(firestore)


@pytest.mark.parametrize(
    ("command", "code", "message"),
    [
        (["no-such-command"], 127, "error: no-such-command: No such file or directory\n"),
        (["/etc"], 126, "error: /etc: Permission denied\n"),
        (["sh", "-c", "kill -9 $$"], 137, ""),
    ],
)
def test_exit_codes_are_those_of_a_shell(command, code, message):
    """Missing is 127, not executable 126, ended by a signal 128 and its number."""
    done = run_command("emulators", "--", *command)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", message)


def test_dashes_without_a_command_are_refused():
    """`emulators --` is a wrong argument: without a command it would not end."""
    done = run_command("emulators", "--")
    assert done.returncode == 2
    assert "expected a command after --" in done.stderr


def test_the_command_keeps_its_own_options():
    """What follows the command is its own, also without `--`."""
    done = run_command("emulators", "printf", "%s", "--project")
    assert (done.returncode, done.stdout) == (0, "--project")


def test_what_is_refused_is_said_on_standard_error():
    """A user whose client hides the answer's text reads the reason there, once."""
    script = (
        "import os, urllib.request as u, urllib.error as e\n"
        "for number in range(3):\n"
        "    try: u.urlopen(os.environ['STORAGE_EMULATOR_HOST'] + '/storage/v1/b/x/acl')\n"
        "    except e.HTTPError as error: print(error.code)\n"
    )
    done = run_command("emulators", "--", sys.executable, "-c", script)
    assert (done.returncode, done.stdout) == (0, "501\n" * 3)
    assert done.stderr.startswith("storage: GET /storage/v1/b/x/acl refused: buckets.acl is not served by ")
    assert done.stderr.count("\n") == 1


def test_a_signal_is_passed_on():
    """The command gets the signal, and its exit code decides."""
    script = "trap 'exit 3' TERM; echo ready; while :; do sleep 0.05; done"
    with running("sh", "-c", script) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 3, process.stderr.read()


def test_what_the_command_leaves_running_is_ended():
    """Processes in the background end with the command."""
    with running("sh", "-c", "sleep 1000 & echo $!; exit 4") as process:
        left = int(process.stdout.readline())
        assert process.wait(20) == 4
        assert not is_running(left)
        assert "Ending 1 program that the command left running" in process.stderr.read()


def test_what_ignores_its_end_is_killed_by_a_second_signal():
    """Ctrl-C while the rest is ended kills it."""
    script = "(trap '' TERM; echo ready; exec sleep 1000) & echo $!; read _; exit 5"
    with running("sh", "-c", script.replace("read _; ", "")) as process:
        left = next(int(line) for line in process.stdout if line.strip().isdigit())
        assert process.stderr.readline().startswith("Ending 1 program")
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 5
        assert not is_running(left)


def test_a_kill_of_the_emulators_ends_the_command():
    """The command does not go on without its emulators."""
    with running("sh", "-c", "echo $$; exec sleep 1000") as process:
        pid = int(process.stdout.readline())
        process.kill()
        process.wait(20)
        assert_ends(pid)


def test_ctrl_c_reaches_the_command_once(tmp_path):
    """The terminal sends Ctrl-C to the command itself, so that it is not passed on again."""
    script = tmp_path / "count.py"
    script.write_text(COUNTING)
    with Terminal("emulators", "--", sys.executable, str(script), environment={}) as terminal:
        terminal.wait_for(" ready")
        emulators = int(terminal.text.partition("parent ")[2].split()[0])
        terminal.type("\x03")
        terminal.wait_for("interrupted")
        os.kill(emulators, signal.SIGUSR1)
        assert terminal.end() == 11, terminal.text


def test_ctrl_c_ends_both():
    """A command that Ctrl-C ends is an end by SIGINT, so that a script that runs it ends too."""
    with Terminal("emulators", "--", "sh", "-c", "echo $$; exec sleep 1000", environment={}) as terminal:
        terminal.wait_for("until this ends: sh")
        terminal.type("\x03")
        assert terminal.end() == -signal.SIGINT, terminal.text
