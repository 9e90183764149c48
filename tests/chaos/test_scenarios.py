"""Each scenario breaks one thing. The scenarios run in parallel."""

from __future__ import annotations

import secrets
from concurrent.futures import ThreadPoolExecutor

import pytest

from localcloud import LocalCloud
from tests.chaos.scenarios import backends, crashes, deliveries, orchestrator, orphans
from tests.chaos.world import world_on

#: A scenario mostly waits for the end of a lease.
MAX_PARALLEL = 10
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
    """Run one scenario on its own cloud, or on the services that `environment` names."""
    with LocalCloud.start(project=f"chaos-{secrets.token_hex(4)}") as cloud:
        named = environment and {**environment, "GOOGLE_CLOUD_PROJECT": cloud.project}
        with world_on(cloud, named) as world:
            ALL[name](world)


def begun(request, names, environment=None):
    """Start all selected scenarios of `names`; yield their futures by name."""
    selected = [item.callspec.params["name"] for item in request.session.items if item.path == request.path]
    with ThreadPoolExecutor(MAX_PARALLEL, thread_name_prefix="scenario") as pool:
        yield {name: pool.submit(play, name, environment) for name in selected if name in names}


@pytest.fixture(scope="module")
def played(request):
    """Run the scenarios on embedded clouds."""
    yield from begun(request, SCENARIOS)


@pytest.fixture(scope="module")
def played_officially(request, official):
    """Run the scenarios on Google's emulators."""
    yield from begun(request, crashes.OFFICIAL, official.environment())


@pytest.mark.parametrize("name", SCENARIOS)
def test_scenario(name, played):
    """The scenario ends as expected, and the invariants hold."""
    played[name].result()


@pytest.mark.official
@pytest.mark.parametrize("name", crashes.OFFICIAL)
def test_scenario_on_the_official_emulators(name, played_officially):
    """The scenario ends as expected on Google's Pub/Sub and Firestore emulators."""
    played_officially[name].result()
