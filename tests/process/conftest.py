"""Fixtures: deployments for daemon processes on the embedded cloud and on the official emulators."""

from __future__ import annotations

import pytest

from tests.support.cloud.resources import deployment_on, new_project


def _official_environment(official, cloud):
    """Return the official Pub/Sub and Firestore emulators; the rest is embedded."""
    own = {"GOOGLE_CLOUD_PROJECT": new_project()}  # a rescue reads all runs of its project
    return {**cloud.environment(), **official.environment(), **own}


@pytest.fixture
def deployment(cloud):
    """Return a deployment on a new embedded cloud."""
    with deployment_on(cloud.environment(), cloud) as found:
        yield found


@pytest.fixture(params=["official"])
def official_deployment(official, cloud):
    """Return a deployment on the official Pub/Sub and Firestore emulators; the rest is embedded."""
    with deployment_on(_official_environment(official, cloud), cloud) as found:
        yield found


@pytest.fixture(
    params=["embedded", pytest.param("official", marks=[pytest.mark.official, pytest.mark.long])],
)
def each_deployment(request, cloud):
    """Return a deployment on the embedded cloud, and in a long test one on the official emulators."""
    environment = cloud.environment()
    if request.param == "official":
        environment = _official_environment(request.getfixturevalue("official"), cloud)
    with deployment_on(environment, cloud) as found:
        yield found
