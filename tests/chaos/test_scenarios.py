"""Everything that may go wrong, one thing at a time; the scenarios are played side by side."""

from __future__ import annotations

import secrets
from concurrent.futures import ThreadPoolExecutor

import pytest

from localcloud import LocalCloud
from tests.chaos.scenarios import backends, crashes, deliveries, orchestrator, orphans
from tests.chaos.world import world_on

#: Most of a scenario is waiting for a lease to end.
SIDE_BY_SIDE = 10
#: The slowest first.
SCENARIOS = {
    **backends.SCENARIOS,
    **deliveries.SCENARIOS,
    **orchestrator.SCENARIOS,
    **orphans.SCENARIOS,
    **crashes.SCENARIOS,
}
ALL = SCENARIOS | crashes.OFFICIAL


def play(name, environment):
    """Play one scenario in a cloud of its own."""
    with LocalCloud.start(project=f"chaos-{secrets.token_hex(4)}") as cloud:
        named = {**environment, "GOOGLE_CLOUD_PROJECT": cloud.project} if name in crashes.OFFICIAL else None
        with world_on(cloud, named) as world:
            ALL[name](world)


@pytest.fixture(scope="module")
def played(request):
    """Begins all scenarios that were selected, and has the end of each by name."""
    chosen = [item.callspec.params["name"] for item in request.session.items if item.path == request.path]
    needed = any(name in crashes.OFFICIAL for name in chosen)
    environment = request.getfixturevalue("official").environment() if needed else {}
    with ThreadPoolExecutor(SIDE_BY_SIDE, thread_name_prefix="scenario") as pool:
        yield {name: pool.submit(play, name, environment) for name in chosen}


@pytest.mark.parametrize("name", SCENARIOS)
def test_scenario(name, played):
    """It ends as it should, and the invariants hold."""
    played[name].result()


@pytest.mark.official
@pytest.mark.parametrize("name", crashes.OFFICIAL)
def test_scenario_on_the_official_emulators(name, played):
    """The same on Google's Pub/Sub and Firestore."""
    played[name].result()
