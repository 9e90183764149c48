"""Pub/Sub, Firestore, Cloud Storage and Chart-IMG, embedded.

Google's own clients talk to it through the standard emulator variables:

    with LocalCloud.start() as cloud:
        os.environ.update(cloud.environment())
"""

from __future__ import annotations

from localcloud.cloud import LocalCloud, Ports
from localcloud.faults import Fault

__all__ = ["Fault", "LocalCloud", "Ports"]
