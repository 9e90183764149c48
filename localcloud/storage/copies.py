"""Make an object of others: copy, rewrite, move, compose."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from localcloud.storage.encryption import check_key, key_hash
from localcloud.storage.errors import invalid, required, unserved
from localcloud.storage.multipart import json_object
from localcloud.storage.preconditions import Preconditions, number

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from localcloud.http_server import Request
    from localcloud.storage.objects import Objects
    from localcloud.storage.resources import StoredObject
    from localcloud.storage.routes import Route

_MAX_PARTS = 32


def copy(objects: Objects, request: Request, route: Route) -> dict[str, Any]:
    """Copy an object. A rewrite is done in one call, so that it never returns a token.

    Raises:
        StorageError: 404 no such object, 412 a precondition, 400 a token or a wrong key.
    """
    if request.query.get("rewriteToken"):
        raise invalid("Invalid rewrite token: each rewrite is done in its first call.", "rewriteToken")
    source, wanted = _source(objects, request, route), Preconditions.of(request.query, request.headers)
    resource = json_object(request.body)
    check_key(source, key_hash(request.headers, "x-goog-copy-source-"))
    key = key_hash(request.headers)
    stored = objects.copy(source, route.to_bucket, route.to_name, wanted, resource, key_sha256=key)
    copied = stored.resource()
    if route.method == "objects.copy":
        return copied
    size = str(len(source.content))
    done = {"totalBytesRewritten": size, "objectSize": size, "done": True}
    return {"kind": "storage#rewriteResponse", **done, "resource": copied}


def move(objects: Objects, request: Request, route: Route) -> dict[str, Any]:
    """Rename an object within its bucket.

    Raises:
        StorageError: 404 no such object, 412 a precondition.
    """
    source, wanted = _source(objects, request, route), Preconditions.of(request.query, request.headers)
    return objects.move(source, route.to_name, wanted).resource(knows_key=False)


def compose(objects: Objects, request: Request, route: Route) -> dict[str, Any]:
    """Write the contents of up to 32 objects one after the other into a new one.

    Raises:
        StorageError: 404 no such object, 412 a precondition, 400 no source, too many or a wrong key.
    """
    body = json_object(request.body)
    _check_served(body, "ComposeRequest", {"kind", "destination", "sourceObjects"})
    sources = body.get("sourceObjects")
    if not isinstance(sources, list) or not sources:
        raise required("sourceObjects")
    if len(sources) > _MAX_PARTS:
        message = f"The number of source components provided ({len(sources)} > {_MAX_PARTS})"
        raise invalid(message, "sourceObjects")
    parts, key = [_part(objects, route.bucket, source) for source in sources], key_hash(request.headers)
    for part in parts:
        check_key(part, key)
    resource = {**_fields(body, "destination"), "name": route.name}
    wanted = Preconditions.of(request.query, request.headers)
    return objects.compose(route.bucket, resource, parts, wanted, key_sha256=key).resource()


def _part(objects: Objects, bucket: str, source: Any) -> StoredObject:
    if not isinstance(source, dict) or not source.get("name"):
        raise required("sourceObjects.name")
    conditions = _fields(source, "objectPreconditions")
    _check_served(source, "ComposeRequest.sourceObjects", {"name", "generation", "objectPreconditions"})
    _check_served(conditions, "ComposeRequest.sourceObjects.objectPreconditions", {"ifGenerationMatch"})
    given = {"generation": source.get("generation"), **conditions}
    numbers = {name: str(value) for name, value in given.items() if value is not None}
    return objects.get(bucket, str(source["name"]), Preconditions.of(numbers), number(numbers, "generation"))


def _fields(message: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a field of a JSON message that holds fields itself; empty when it is absent."""
    value = message.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise invalid(f"Invalid value for {name}: a map is expected.", name)
    return value


def _check_served(message: Mapping[str, Any], name: str, served: Collection[str]) -> None:
    """Refuse fields that are not served; null and false ask for nothing."""
    for field, value in message.items():
        if field not in served and value not in (None, False):
            raise unserved(f"{name}.{field}")


def _source(objects: Objects, request: Request, route: Route) -> StoredObject:
    wanted = Preconditions.of(request.query, prefix="ifSource")
    return objects.get(route.bucket, route.name, wanted, number(request.query, "sourceGeneration"))
