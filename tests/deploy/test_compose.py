"""`compose.yaml` without Docker: limits of its containers, and its commands on real emulators."""

from __future__ import annotations

import json
import secrets
import socket
import subprocess
import sys

import pytest
import yaml

from daemon.settings import Settings
from localcloud import LocalCloud
from localcloud.cloud import Ports
from tests.support.cloud.clouds import PROJECT, free_port
from tests.support.process.daemons import ROOT, DaemonUnderTest, clean_environment

COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
SERVICES = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}
#: The emulators' addresses in the file. The tests replace them.
ADDRESSES = {"PUBSUB_EMULATOR_HOST", "FIRESTORE_EMULATOR_HOST", "STORAGE_EMULATOR_HOST"}
#: Variables of Google's clients, which are no settings of the worker.
KNOWN = ADDRESSES | {name.upper() for name in Settings.model_fields}
STEPS = 5


@pytest.fixture(params=["embedded", pytest.param("official", marks=pytest.mark.official)])
def emulators(request, cloud):
    """Return the addresses of the three services."""
    environment = dict(cloud.environment())
    if request.param == "official":
        environment |= request.getfixturevalue("official").environment()
    return environment


def _environment(service, found, project):
    """Return a service's variables, with the emulators of this test in place of its own."""
    given = SERVICES[service]["environment"]
    assert given["GOOGLE_CLOUD_PROJECT"] == PROJECT
    return {
        **given,
        **{name: found[name] for name in ADDRESSES & given.keys()},
        "GOOGLE_CLOUD_PROJECT": project,
    }


def _setup(environment):
    return subprocess.Popen(
        [sys.executable, "-m", "daemon.cli", *SERVICES["setup"]["command"]],
        cwd=ROOT,
        env=clean_environment(environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.parametrize("name", OURS)
def test_our_containers_are_restricted(name):
    """Our containers are read-only, have no capabilities and can't gain privileges."""
    service = OURS[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["image"] == OURS["worker"]["image"]


def test_nothing_listens_beyond_this_machine():
    """All published ports are bound to the loopback address."""
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_each_variable_is_a_setting():
    """Every variable in the file is a setting."""
    named = {name for service in SERVICES.values() for name in service.get("environment", {})}
    assert named <= KNOWN


def test_services_that_are_named_exist():
    """Every service in `depends_on` and `network_mode` exists."""
    needed = {other for service in SERVICES.values() for other in service.get("depends_on", ())}
    shared = {
        service["network_mode"].removeprefix("service:")
        for service in SERVICES.values()
        if "network_mode" in service
    }
    assert needed | shared <= SERVICES.keys()
    addresses = {
        service["environment"][name].partition(":")[0]
        for service in OURS.values()
        for name in ("PUBSUB_EMULATOR_HOST", "FIRESTORE_EMULATOR_HOST")
        if "environment" in service
    }
    assert addresses == {"pubsub", "firestore"}


def test_the_worker_may_drain():
    """Docker's grace period is longer than the worker's drain."""
    drain = float(
        SERVICES["worker"]["environment"].get("DRAIN_SECONDS", Settings.model_fields["drain_seconds"].default)
    )
    assert float(SERVICES["worker"]["stop_grace_period"].removesuffix("s")) >= drain + 10


def test_setup_and_worker_do_the_whole_job(emulators):
    """The commands and settings of the file complete the whole job on a new project."""
    project = f"compose-{secrets.token_hex(4)}"
    with _setup(_environment("setup", emulators, project)) as setup:
        said, _ = setup.communicate(timeout=60)
    assert setup.returncode == 0, said
    assert "published 3 messages\n" in said
    changed = {"HEALTH_PORT": "0", "LOG_FORMAT": "json"}
    with DaemonUnderTest(_environment("worker", emulators, project) | changed) as daemon:
        ended = daemon.wait_for_event("step_completed", count=STEPS, timeout_seconds=60)
        assert [line["status"] for line in ended] == ["SUCCEEDED"] * STEPS
        assert daemon.terminate() == 0


def test_the_setup_waits_for_emulators_that_are_still_starting():
    """The setup command waits for emulators that are still starting, as after `docker compose up`."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        addresses = {
            "PUBSUB_EMULATOR_HOST": f"127.0.0.1:{port}",
            "FIRESTORE_EMULATOR_HOST": f"127.0.0.1:{free_port()}",
            "STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{free_port()}",
        }
        setup = _setup(_environment("setup", addresses, PROJECT))
        silent.accept()[0].close()  # it has connected, and no emulator answered
    ports = Ports(
        pubsub=port,
        firestore=int(addresses["FIRESTORE_EMULATOR_HOST"].rpartition(":")[2]),
        storage=int(addresses["STORAGE_EMULATOR_HOST"].rpartition(":")[2]),
    )
    with LocalCloud.start(project=PROJECT, ports=ports), setup:
        said, _ = setup.communicate(timeout=60)
    assert setup.returncode == 0, said


def test_commands_of_the_services_are_understood():
    """The services' commands `emulators` and `demo` accept their options."""
    for name in ("storage", "demo"):
        command = SERVICES[name]["command"]
        done = subprocess.run(
            [sys.executable, "-m", "daemon.cli", *command, "--help"],
            env=clean_environment({}),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, json.dumps(command) + done.stderr
