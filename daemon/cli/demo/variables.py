"""The environment variables of the daemon on the demo's resources."""

from __future__ import annotations

from typing import TYPE_CHECKING

from daemon.cli.demo.resources import DEMO_BUCKET, QUARANTINE, SUBSCRIPTION

if TYPE_CHECKING:
    from collections.abc import Mapping

#: The resources of the demo.
PLACES = {
    "PUBSUB_SUBSCRIPTION": SUBSCRIPTION,
    "QUARANTINE_TOPIC": QUARANTINE,
    "CHARTS_BUCKET": f"gs://{DEMO_BUCKET}",
}
#: Charts are drawn here, and a message that Google's emulator gets back comes again after 10 s.
DEFAULTS = {"CHARTS_API_MODE": "local", "ACK_EXTENSION_SECONDS": "10"}


def demo_variables(given: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of the daemon; of those with defaults what `given` sets.

    `CHARTS_BUCKET` is the last one: scripts wait for its line.
    """
    return {name: given.get(name) or value for name, value in DEFAULTS.items()} | PLACES
