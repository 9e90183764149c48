"""Call an embedded cloud with Google's Node clients: `python -m tests.node [pubsub] [firestore] [storage]`.

`make node` installs the clients before. The exit code is 1 if a call fails.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from localcloud import LocalCloud

HERE = Path(__file__).parent


def main() -> int:
    """Run the calls of the services that the arguments name, by default of all."""
    with LocalCloud.start() as cloud:
        # Without the variable the clients look for Google's metadata server, and warn that there is none.
        environment = {**os.environ, **cloud.environment(), "METADATA_SERVER_DETECTION": "none"}
        return subprocess.run(
            ["node", HERE / "run.js", *sys.argv[1:]],  # noqa: S607 - the Node of the path
            env=environment,
            check=False,
        ).returncode


if __name__ == "__main__":
    sys.exit(main())
