"""The page on the embedded cloud: every call has a contract case, and every case says what it proves."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import fields

import pytest

from docs.cloud_tables import IN_PROCESS, SERVICES, cases, faults, served
from localcloud import Fault
from localcloud.firestore import FirestoreService
from localcloud.pubsub import PubsubService
from localcloud.storage import StorageService
from tests.support.copy_blocks import blocks_of

GRPC = {"pubsub": PubsubService, "firestore": FirestoreService}


@pytest.mark.parametrize("service", SERVICES)
def test_every_case_says_what_it_proves(service):
    """Every contract case has the mark `serves`, and a docstring that ends with a full stop."""
    assert [case.name for case in cases(service) if not case.serves] == []
    assert [case.name for case in cases(service) if not case.sentence.endswith(".")] == []


@pytest.mark.parametrize("service", GRPC)
def test_every_call_has_a_case(service):
    """Every RPC that is served has a contract case; nothing that has one is listed as refused."""
    methods = {name for methods in GRPC[service]().methods().values() for name in methods}
    proved = {name.partition(".")[0] for name in served(service)}
    assert methods - proved == set()
    assert set(served(service)) & set(SERVICES[service][1]) == set()


def test_every_method_of_storage_has_a_case():
    """Every method of the JSON API has a contract case; nothing that has one is listed as refused."""
    assert StorageService.methods - set(served("storage")) == set()
    assert set(served("storage")) & set(SERVICES["storage"][1]) == set()


def _drills(cloud):
    """Run the examples of the page in order; return what each printed."""
    outputs = []
    for block in blocks_of("docs/embedded-cloud.md"):
        if "LOCALCLOUD_CONTROL_URL" in block.text:
            done = subprocess.run(
                ["/bin/sh", "-ec", block.text],
                env={**os.environ, **cloud.environment()},
                capture_output=True,
                text=True,
                check=True,
            )
            outputs.append(done.stdout)
    return outputs


def test_the_examples_of_the_control_port_run(cloud):
    """Each example with curl arms what it says, and the last one ends all faults."""
    *armed, last = _drills(cloud)
    # Each service counts its own faults; Firestore has two.
    assert sorted(json.loads(text)["id"] for text in armed) == [1, 1, 1, 1, 2]
    lines = last.replace("}{", "}\n{").splitlines()
    stopped, started, listed, ended = (json.loads(line) for line in lines)
    assert (stopped, started, ended) == ({"running": False}, {"running": True}, {})
    assert {name: [fault["fired"] for fault in faults] for name, faults in listed.items()} == {
        "pubsub": [0],
        "firestore": [0, 0],
        "storage": [0],
        "chart_img": [0],
    }
    assert listed["storage"] == [{"id": 1, "fired": 0, "method": "objects.insert", "error": 503, "times": 2}]
    assert not any(service.faults.armed for service in cloud.services.values())


def test_every_field_of_a_fault_is_there():
    """The page has every field of a fault that JSON can set."""
    rows = {line.split("`")[1] for line in faults().splitlines()[2:]}
    assert rows == {field.name for field in fields(Fault)} - IN_PROCESS
