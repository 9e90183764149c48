"""`python -m daemon.cli`: the same as `worker-chart-export`."""

from __future__ import annotations

from daemon.cli.app import main

if __name__ == "__main__":
    main()
