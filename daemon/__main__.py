"""`python -m daemon`: run the daemon."""

from __future__ import annotations

from daemon.main import leave, run_daemon

if __name__ == "__main__":
    leave(run_daemon())
