"""Fixtures: a booted systemd, and a deployment for its services."""

from __future__ import annotations

import pytest

from tests.support.cloud.resources import deployment_on
from tests.support.process.systemd_container import Container, why_no_container


@pytest.fixture(scope="session")
def container(tmp_path_factory):
    """Run one container for all tests; each starts and stops its own units."""
    lacking = why_no_container()
    if lacking:
        pytest.skip(lacking)
    with Container(tmp_path_factory.mktemp("container")) as booted:
        yield booted


@pytest.fixture
def deployment(cloud):
    """Return a deployment on a new embedded cloud, outside the container."""
    with deployment_on(cloud.environment(), cloud) as found:
        yield found
