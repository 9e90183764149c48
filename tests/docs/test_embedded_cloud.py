"""The page on the embedded cloud: every call has a contract case, and every case says what it proves."""

from __future__ import annotations

import pytest

from docs.cloud_tables import SERVICES, cases, served
from localcloud.firestore import FirestoreService
from localcloud.pubsub import PubsubService

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
