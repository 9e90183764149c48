"""Scenes for daemon processes: on the embedded cloud, and on Google's official emulators."""

from __future__ import annotations

import pytest

from tests.support.cloud.resources import new_project, scene_on


@pytest.fixture
def scene(cloud):
    """A scene on an embedded cloud of the test's own."""
    with scene_on(cloud.environment(), cloud) as found:
        yield found


@pytest.fixture(params=["official"])
def official_scene(official, cloud):
    """A scene on the official Pub/Sub and Firestore emulators; Storage and Chart-IMG are embedded."""
    own = {"GOOGLE_CLOUD_PROJECT": new_project()}  # a rescue looks over all runs of its project
    with scene_on({**cloud.environment(), **official.environment(), **own}, cloud) as found:
        yield found
