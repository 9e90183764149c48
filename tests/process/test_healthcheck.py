"""`worker-chart-export healthcheck` as a real process, on a real daemon and on what is none."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest

from daemon.cli.healthcheck import TIMEOUT_SECONDS, NotAlive, ask, command, reachable
from daemon.settings import Settings
from tests.commands import run_command
from tests.daemons import ROOT, clean_environment


def check(port=None, **environment):
    """Ask, by setting or by option."""
    options = () if port is None else ("--port", str(port))
    return run_command("healthcheck", *options, environment=environment)


@contextmanager
def answering(answer):
    """A listener that gives every caller this answer, or none; its port."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=_serve, args=(server, answer))
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join(10)


def _serve(server, answer):
    callers = []
    while True:
        try:
            caller, _ = server.accept()
        except OSError:
            break
        callers.append(caller)  # who gets no answer is kept waiting
        if answer is not None:
            caller.recv(4096)
            caller.sendall(answer)
            caller.close()
    for caller in callers:
        caller.close()


def http_answer(status, body):
    """A whole HTTP answer."""
    return f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


def test_a_daemon_is_alive_until_it_is_frozen_or_gone(scene):
    """Found by HEALTH_HOST and HEALTH_PORT, as the daemon itself is told; no proxy is asked."""
    with scene.daemon(HEALTH_HOST="0.0.0.0").started() as daemon:  # noqa: S104 - as in a container
        port = str(daemon.named("daemon_started")[-1]["healthPort"])
        told = {"HEALTH_HOST": "0.0.0.0", "HEALTH_PORT": port}  # noqa: S104
        proxies = {"HTTP_PROXY": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"}
        done = check(**told, **proxies)
        assert (done.returncode, done.stdout) == (0, f"alive: http://127.0.0.1:{port}/livez\n")
        daemon.process.send_signal(signal.SIGSTOP)
        frozen = check(**told)
        daemon.process.send_signal(signal.SIGCONT)
        assert frozen.returncode == 1
        assert frozen.stderr == f"not alive: http://127.0.0.1:{port}/livez did not answer within 2 s\n"
        assert daemon.terminate() == 0
    gone = check(**told)
    assert (gone.returncode, gone.stdout) == (1, "")
    assert gone.stderr == f"not alive: http://127.0.0.1:{port}/livez can't be reached: Connection refused\n"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (
            http_answer(503, '{"status": "not alive", "reason": "main is silent"}'),
            "'main is silent'",
        ),
        (http_answer(200, "<html>hello</html>"), "no daemon of ours"),
        (http_answer(200, "[" * 5000), "no daemon of ours"),
        (http_answer(404, '{"status": "ok"}'), "HTTP 404"),
        (http_answer(503, '{"reason": "\\u001b[2Jx"}'), r"'\x1b[2Jx'"),
        (b"SSH-2.0-x\r\n", "can't be asked over HTTP"),
        (b"", "can't be "),
        (None, "did not answer within 2 s"),
    ],
    ids=["dead", "another site", "deep", "404", "hostile", "ssh", "nothing", "silence"],
)
def test_whatever_is_no_living_daemon_is_told_apart_in_one_line(answer, words):
    """Within the time that is promised."""
    with answering(answer) as port:
        began = time.monotonic()
        with pytest.raises(NotAlive) as verdict:
            ask("127.0.0.1", port)
        took = time.monotonic() - began
    assert words in str(verdict.value)
    assert str(verdict.value).isprintable()
    assert took < TIMEOUT_SECONDS + 3


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"HEALTH_PORT": "0"}, "--port"),
        ({"HEALTH_PORT": "many"}, "HEALTH_PORT"),
        ({"HEALTH_PORT": "70000"}, "HEALTH_PORT"),
    ],
)
def test_a_port_that_cant_be_asked_is_exit_2(environment, words):
    """A probe that is set up wrongly is no dead daemon."""
    done = check(**environment)
    assert done.returncode == 2
    assert words in done.stderr


@pytest.mark.parametrize("host", ["no such host", "a" * 100, "::"])
def test_a_host_that_cant_be_asked_is_not_alive(host):
    """Not an error of our own."""
    with pytest.raises(NotAlive, match=r"^can't be "):
        ask(reachable(host), 1)


def test_the_defaults_are_the_daemon_s_own():
    """Written twice, because the settings take too long to load for a probe."""
    fields = Settings.model_fields
    assert command.__defaults__ == (fields["health_host"].default, fields["health_port"].default)


def test_a_probe_loads_nothing_that_takes_long():
    """Neither Google's clients nor what draws, for this command and for the overview."""
    script = (
        "import sys\n"
        "from daemon.cli.__main__ import main\n"
        "try:\n    main()\n"
        "except SystemExit:\n    pass\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)\n"
    )
    for arguments in (["healthcheck", "--port", "1"], ["--version"]):
        done = subprocess.run(
            [sys.executable, "-c", script, *arguments],
            cwd=ROOT,
            env=clean_environment({}),
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        loaded = set(done.stderr.splitlines()[-1].split())
        assert "typer" in loaded
        assert loaded.isdisjoint({"google", "grpc", "requests", "pydantic_settings", "numpy", "rich"})
