"""Uploads with the XML API in one request or resumable, as clients make them with signed URLs."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from localcloud.http_server import Request, Response
from localcloud.storage.encryption import key_hash
from localcloud.storage.preconditions import Preconditions
from localcloud.storage.resumable import announced_hashes
from localcloud.storage.settings import check_object_name

if TYPE_CHECKING:
    from localcloud.storage.objects import Objects
    from localcloud.storage.routes import Route
    from localcloud.storage.uploads import Uploads

_SETTINGS = {
    "cache-control": "cacheControl",
    "content-disposition": "contentDisposition",
    "content-encoding": "contentEncoding",
    "content-language": "contentLanguage",
    "content-type": "contentType",
    "x-goog-custom-time": "customTime",
    "x-goog-storage-class": "storageClass",
}
_METADATA = "x-goog-meta-"


def resource_of(request: Request, route: Route) -> dict[str, Any]:
    """Return the settings that the headers of a request give an object, in the JSON API's format."""
    headers = request.headers
    resource: dict[str, Any] = {_SETTINGS[name]: headers[name] for name in _SETTINGS.keys() & headers.keys()}
    metadata = {
        name.removeprefix(_METADATA): text for name, text in headers.items() if name.startswith(_METADATA)
    }
    return {**resource, "name": check_object_name(route.name), "metadata": metadata}


def begins_upload(request: Request) -> bool:
    """Return whether a request begins a resumable upload."""
    return request.method == "POST" and request.headers.get("x-goog-resumable") == "start"


def upload(request: Request, route: Route, objects: Objects, uploads: Uploads) -> Response:
    """Store the body as an object, or begin a resumable upload.

    Raises:
        StorageError: 404, no such bucket; 400, a setting, a hash or a key is wrong; 412, a precondition.
    """
    resource = resource_of(request, route) | announced_hashes(request.headers)
    if begins_upload(request):
        return uploads.begin(request, route.bucket, resource, status=HTTPStatus.CREATED)
    wanted, key = Preconditions.of(request.query, request.headers), key_hash(request.headers)
    stored = objects.insert(route.bucket, resource, request.body, wanted, key_sha256=key)
    headers = {"ETag": stored.etag, "X-Goog-Generation": str(stored.generation)}
    hashes = {"X-Goog-Hash": f"crc32c={stored.crc32c},md5={stored.md5}"}
    return Response(content_type="text/html; charset=UTF-8", headers=headers | hashes)
