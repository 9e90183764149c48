"""Every field of every request that is served is read, refused, or named as neutral with the reason."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import localcloud
from localcloud.firestore.service import FirestoreService
from localcloud.firestore.unserved import NEUTRAL as FIRESTORE_NEUTRAL
from localcloud.grpc_server import raw
from localcloud.pubsub.service import PubsubService
from localcloud.pubsub.unserved import NEUTRAL as PUBSUB_NEUTRAL
from localcloud.storage import routes
from localcloud.storage.server import StorageService
from localcloud.storage.unserved import NEUTRAL as STORAGE_NEUTRAL
from localcloud.storage.unserved import UNSERVED as STORAGE_UNSERVED

SERVICES = [(FirestoreService, FIRESTORE_NEUTRAL), (PubsubService, PUBSUB_NEUTRAL)]
# Kinds of values that `values.kind_of` refuses by their common name, and the push settings that are refused
# as a whole in both calls that have them.
REFUSED = {
    *(f"Value.{kind}_value" for kind in ("field_reference", "variable_reference", "function", "pipeline")),
    "ModifyPushConfigRequest.push_config",
}


def fields_of(service, leaves):
    """Return `Message.field` of all requests; below a field in `leaves` nothing is looked at."""
    rpcs = [rpc for rpcs in service().methods().values() for rpc in rpcs.values()]
    found, waiting = {}, [raw(rpc.request).DESCRIPTOR for rpc in rpcs]
    while waiting:
        message = waiting.pop()
        if message.GetOptions().map_entry:
            waiting += [field.message_type for field in message.fields if field.message_type]
            continue
        for field in message.fields:
            name = f"{message.name}.{field.name}"
            below = field.message_type
            if name in found:
                continue
            found[name] = below.name if below else ""
            is_leaf = name in leaves or (below and below.name in leaves)
            if below and not is_leaf and below.full_name.startswith(("google.firestore", "google.pubsub")):
                waiting.append(below)
    return found


def words_of(service, *, without=("unserved.py",)):
    """Return all names and texts in the code of a service: what it reads is among them."""
    words = set()
    for path in Path(localcloud.__file__).parent.joinpath(service.name).glob("*.py"):
        if path.name in without:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute):
                words.add(node.attr)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                words.update((node.value, node.value.rpartition(".")[2]))
    return words


@pytest.mark.parametrize(("service", "neutral"), SERVICES)
def test_no_field_is_accepted_and_dropped(service, neutral):
    """A field that the service's code never names is in the table of what is refused, or of what is neutral.

    A new field of Google's API has to be placed in one of them.
    """
    leaves = {*service.unserved, *neutral, *REFUSED}
    fields, words = fields_of(service, leaves), words_of(service)
    dropped = [
        name
        for name, kind in fields.items()
        if not leaves & {name, kind} and name.partition(".")[2] not in words
    ]
    assert dropped == []


@pytest.mark.parametrize(("service", "neutral"), SERVICES)
def test_the_tables_name_fields_that_exist(service, neutral):
    """Each neutral field exists, is not refused as well, and has its reason."""
    fields = fields_of(service, set())
    assert set(neutral) <= {*fields, *fields.values()}
    assert not set(neutral) & set(service.unserved)
    assert all(neutral.values())


def test_no_parameter_of_storage_is_accepted_and_dropped():
    """Each parameter that is not refused is read outside the table of the methods, or neutral."""
    words = words_of(StorageService, without=("routes.py", "unserved.py"))
    # Preconditions are read by their ends: with `if`, and with `ifSource` for the source of a copy.
    read = {f"{prefix}{word}" for prefix in ("", "if", "ifSource") for word in words}
    assert routes.TAKEN - read == set(STORAGE_NEUTRAL)
    assert not routes.TAKEN & set(STORAGE_UNSERVED)
