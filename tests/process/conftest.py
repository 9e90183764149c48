"""Fixtures: deployments for daemon processes on the embedded cloud and on the official emulators."""

from __future__ import annotations

import pytest

from tests.support.cloud.resources import deployment_on, new_project


@pytest.fixture
def deployment(cloud):
    """Return a deployment on a new embedded cloud."""
    with deployment_on(cloud.environment(), cloud) as found:
        yield found


@pytest.fixture(params=["official"])
def official_deployment(official, cloud):
    """Return a deployment on the official Pub/Sub and Firestore emulators; the rest is embedded."""
    own = {"GOOGLE_CLOUD_PROJECT": new_project()}  # a rescue reads all runs of its project
    with deployment_on({**cloud.environment(), **official.environment(), **own}, cloud) as found:
        yield found
