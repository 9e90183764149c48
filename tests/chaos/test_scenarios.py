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
    """Play one scenario in a cloud of its own, on the services that `environment` names if there is one."""
    with LocalCloud.start(project=f"chaos-{secrets.token_hex(4)}") as cloud:
        named = environment and {**environment, "GOOGLE_CLOUD_PROJECT": cloud.project}
        with world_on(cloud, named) as world:
            ALL[name](world)


def begun(request, names, environment=None):
    """Begin all scenarios of `names` that were selected; yields their futures by name."""
    selected = [item.callspec.params["name"] for item in request.session.items if item.path == request.path]
    with ThreadPoolExecutor(SIDE_BY_SIDE, thread_name_prefix="scenario") as pool:
        yield {name: pool.submit(play, name, environment) for name in selected if name in names}


@pytest.fixture(scope="module")
def played(request):
    """The scenarios on embedded clouds."""
    yield from begun(request, SCENARIOS)


@pytest.fixture(scope="module")
def played_officially(request, official):
    """The scenarios on Google's emulators."""
    yield from begun(request, crashes.OFFICIAL, official.environment())


@pytest.mark.parametrize("name", SCENARIOS)
def test_scenario(name, played):
    """It ends as it should, and the invariants hold."""
    played[name].result()


@pytest.mark.official
@pytest.mark.parametrize("name", crashes.OFFICIAL)
def test_scenario_on_the_official_emulators(name, played_officially):
    """The same on Google's Pub/Sub and Firestore."""
    played_officially[name].result()
