"""A booted systemd, and a deployment that its services work on."""

from __future__ import annotations

import pytest

from tests.support.cloud.resources import deployment_on
from tests.support.process.systemd_container import Container, why_no_container


@pytest.fixture(scope="session")
def container(tmp_path_factory):
    """One for all tests: each starts and stops units of its own."""
    lacking = why_no_container()
    if lacking:
        pytest.skip(lacking)
    with Container(tmp_path_factory.mktemp("container")) as booted:
        yield booted


@pytest.fixture
def deployment(cloud):
    """A deployment on an embedded cloud of the test's own, outside of the container."""
    with deployment_on(cloud.environment(), cloud) as found:
        yield found
