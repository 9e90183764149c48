"""Deployments for daemon processes: on the embedded cloud, and on Google's official emulators."""

from __future__ import annotations

import pytest

from tests.support.cloud.resources import deployment_on, new_project


@pytest.fixture
def deployment(cloud):
    """A deployment on an embedded cloud of the test's own."""
    with deployment_on(cloud.environment(), cloud) as found:
        yield found


@pytest.fixture(params=["official"])
def official_deployment(official, cloud):
    """A deployment on the official Pub/Sub and Firestore emulators; Storage and Chart-IMG are embedded."""
    own = {"GOOGLE_CLOUD_PROJECT": new_project()}  # a rescue looks over all runs of its project
    with deployment_on({**cloud.environment(), **official.environment(), **own}, cloud) as found:
        yield found
