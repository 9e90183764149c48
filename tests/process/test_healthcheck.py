"""`worker-chart-export healthcheck` as a real process on a real daemon."""

from __future__ import annotations

import signal
import subprocess
import sys

from tests.support.process.commands import run_command
from tests.support.process.daemons import ROOT, clean_environment


def check(**environment):
    """Run the check with the settings."""
    return run_command("healthcheck", environment=environment)


def test_a_daemon_is_alive_until_it_is_frozen_or_dead(deployment):
    """A daemon is alive until it is frozen or dead; the check uses its settings and no proxy."""
    with deployment.daemon(HEALTH_HOST="0.0.0.0").started() as daemon:  # noqa: S104 - as in a container
        port = str(daemon.named("daemon_started")[-1]["healthPort"])
        settings = {"HEALTH_HOST": "0.0.0.0", "HEALTH_PORT": port}  # noqa: S104
        proxies = {"HTTP_PROXY": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"}
        done = check(**settings, **proxies)
        assert (done.returncode, done.stdout) == (0, f"alive: http://127.0.0.1:{port}/livez\n")
        daemon.process.send_signal(signal.SIGSTOP)
        frozen = check(**settings)
        daemon.process.send_signal(signal.SIGCONT)
        assert frozen.returncode == 1
        assert frozen.stderr == f"not alive: http://127.0.0.1:{port}/livez did not answer within 2 s\n"
        assert daemon.terminate() == 0
    gone = check(**settings)
    assert (gone.returncode, gone.stdout) == (1, "")
    assert gone.stderr == f"not alive: http://127.0.0.1:{port}/livez can't be reached: Connection refused\n"


def test_a_probe_loads_nothing_that_takes_long():
    """`healthcheck` and the overview load neither Google's clients nor the drawing libraries."""
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
        assert loaded.isdisjoint({"google", "grpc", "requests", "numpy", "rich"})
