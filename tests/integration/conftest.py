"""Run each test on the embedded cloud and on Google's official emulators."""

from __future__ import annotations

import pytest

from tests.support.cloud.resources import deployment_on, new_project


@pytest.fixture(params=["embedded", pytest.param("official", marks=pytest.mark.official)])
def deployment(request, cloud):
    """Return a deployment on each cloud in turn. Storage and Chart-IMG are always embedded."""
    environment = cloud.environment()
    if request.param == "official":
        environment |= request.getfixturevalue("official").environment()
    environment["GOOGLE_CLOUD_PROJECT"] = new_project()  # a rescue reads all runs of its project
    with deployment_on(environment, cloud) as found:
        yield found
