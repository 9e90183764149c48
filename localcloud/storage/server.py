"""Answer the Storage JSON API as Google's Python client uses it."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from localcloud.http_server import HttpService, Request, Response, json_response
from localcloud.storage import multipart
from localcloud.storage.objects import Objects, Preconditions, StorageError, StoredObject

if TYPE_CHECKING:
    from collections.abc import Callable

_MAX_RESULTS = 1000
# An object's name may hold encoded slashes, so routes match the path as sent, not decoded.
_OBJECT = r"/storage/v1/b/(?P<bucket>[^/]+)/o/(?P<object>[^/]+)"
_ROUTES: tuple[tuple[str, str, str], ...] = (
    ("objects.insert", "POST", r"/upload/storage/v1/b/(?P<bucket>[^/]+)/o"),
    ("objects.get", "GET", _OBJECT),
    ("objects.download", "GET", rf"/download{_OBJECT}"),
    ("objects.patch", "PATCH", _OBJECT),
    ("objects.delete", "DELETE", _OBJECT),
    ("objects.list", "GET", r"/storage/v1/b/(?P<bucket>[^/]+)/o"),
    ("buckets.get", "GET", r"/storage/v1/b/(?P<bucket>[^/]+)"),
    ("buckets.delete", "DELETE", r"/storage/v1/b/(?P<bucket>[^/]+)"),
    ("buckets.insert", "POST", r"/storage/v1/b"),
    ("buckets.list", "GET", r"/storage/v1/b"),
)
_COMPILED = tuple((name, method, re.compile(path)) for name, method, path in _ROUTES)


class StorageService(HttpService):
    """Cloud Storage with buckets and objects in memory.

    Methods are counted as the JSON API names them (`objects.insert`, `objects.get`, `objects.download`, ...);
    their subject is `bucket/object`.

    Attributes:
        objects: What is stored.
    """

    name = "storage"
    methods = frozenset(name for name, _, _ in _ROUTES)

    def __init__(self, *, port: int = 0, seed: int = 0) -> None:
        super().__init__(port=port, seed=seed)
        self.objects = Objects()
        self._answers: dict[str, Callable[[Request, str, str], Response]] = {
            "objects.insert": self._insert,
            "objects.get": self._get,
            "objects.download": self._download,
            "objects.patch": self._patch,
            "objects.delete": self._delete,
            "objects.list": self._list,
            "buckets.get": self._get_bucket,
            "buckets.delete": self._delete_bucket,
            "buckets.insert": self._insert_bucket,
            "buckets.list": self._list_buckets,
        }

    def lose_state(self) -> None:
        """Delete all buckets."""
        self.objects = Objects()

    def identify(self, request: Request) -> str:
        """Return the JSON API's method name."""
        return _route(request)[0]

    def subject(self, request: Request) -> str:
        """Return `bucket/object`."""
        method, bucket, name = _route(request)
        if method == "objects.insert":
            name = request.query.get("name") or _name_in_upload(request)
        return f"{bucket}/{name}"

    def answer(self, method: str, request: Request) -> Response:
        """Answer one request. Errors are in Google's JSON format."""
        try:
            _, bucket, name = _route(request)
            return self._answers.get(method, self._unknown)(request, bucket, name)
        except StorageError as error:
            return _error(error.status, error.reason, error.message)

    def _unknown(self, request: Request, _bucket: str, _name: str) -> Response:
        raise StorageError(404, "notFound", f"No such method here: {request.method} {request.path}")

    def error_response(self, status: int, message: str) -> Response:
        """Return an injected error in Google's JSON format."""
        return _error(status, "backendError", message)

    def _insert(self, request: Request, bucket: str, _name: str) -> Response:
        if request.query.get("uploadType") != "multipart":
            raise StorageError(501, "notImplemented", "The local cloud takes multipart uploads only.")
        resource, content = multipart.parse(request.headers.get("content-type", ""), request.body)
        if "name" in request.query:
            resource["name"] = request.query["name"]
        stored = self.objects.insert(bucket, resource, content, Preconditions.of(request.query))
        return json_response(stored.resource())

    def _stored(self, request: Request, bucket: str, name: str) -> StoredObject:
        return self.objects.get(bucket, name, Preconditions.of(request.query), _generation(request))

    def _get(self, request: Request, bucket: str, name: str) -> Response:
        if request.query.get("alt") == "media":
            return self._download(request, bucket, name)
        return json_response(self._stored(request, bucket, name).resource())

    def _download(self, request: Request, bucket: str, name: str) -> Response:
        stored = self._stored(request, bucket, name)
        headers = {
            "X-Goog-Hash": f"crc32c={stored.crc32c},md5={stored.md5}",
            "X-Goog-Generation": str(stored.generation),
            "X-Goog-Metageneration": str(stored.metageneration),
            "X-Goog-Stored-Content-Length": str(len(stored.content)),
            "ETag": f'"{stored.generation}/{stored.metageneration}"',
        }
        return _ranged(request, stored, headers)

    def _patch(self, request: Request, bucket: str, name: str) -> Response:
        resource = _json(request)
        return json_response(
            self.objects.patch(bucket, name, resource, Preconditions.of(request.query)).resource()
        )

    def _delete(self, request: Request, bucket: str, name: str) -> Response:
        self.objects.delete(bucket, name, Preconditions.of(request.query), _generation(request))
        return Response(status=204)

    def _list(self, request: Request, bucket: str, _name: str) -> Response:
        query = request.query
        size = min(int(query.get("maxResults") or _MAX_RESULTS), _MAX_RESULTS)
        prefix, delimiter, token = (
            query.get("prefix", ""),
            query.get("delimiter", ""),
            query.get("pageToken", ""),
        )
        items: dict[str, StoredObject | None] = {}
        for stored in self.objects.list(bucket, prefix):
            folder = _folder(stored.name, prefix, delimiter)
            items[folder or stored.name] = None if folder else stored
        names = [name for name in items if name.encode() > token.encode()]
        page = names[:size]
        shown: dict[str, Any] = {"kind": "storage#objects"}
        shown["items"] = [item.resource() for name in page if (item := items[name])]
        shown["prefixes"] = [name for name in page if items[name] is None]
        if len(names) > size:
            shown["nextPageToken"] = page[-1]
        return json_response(shown)

    def _get_bucket(self, _request: Request, bucket: str, _name: str) -> Response:
        self.objects.require_bucket(bucket)
        return json_response(_bucket_resource(bucket))

    def _insert_bucket(self, request: Request, _bucket: str, _name: str) -> Response:
        name = str(_json(request).get("name", ""))
        if not name:
            raise StorageError(400, "required", "A bucket needs a name.")
        self.objects.create_bucket(name)
        return json_response(_bucket_resource(name))

    def _delete_bucket(self, _request: Request, bucket: str, _name: str) -> Response:
        self.objects.delete_bucket(bucket)
        return Response(status=204)

    def _list_buckets(self, _request: Request, _bucket: str, _name: str) -> Response:
        return json_response(
            {"kind": "storage#buckets", "items": [_bucket_resource(name) for name in self.objects.buckets()]}
        )


def _route(request: Request) -> tuple[str, str, str]:
    for name, method, pattern in _COMPILED:
        match = pattern.fullmatch(request.path)
        if match and request.method == method:
            parts = match.groupdict()
            return name, unquote(parts.get("bucket", "")), unquote(parts.get("object", ""))
    return "unknown", "", request.path


def _name_in_upload(request: Request) -> str:
    try:
        return str(multipart.parse(request.headers.get("content-type", ""), request.body)[0].get("name", ""))
    except StorageError:
        return ""  # the response will report the error


def _generation(request: Request) -> int | None:
    return int(request.query["generation"]) if "generation" in request.query else None


def _folder(name: str, prefix: str, delimiter: str) -> str:
    """Return the prefix that replaces `name` in a listing with a delimiter; empty = the name itself."""
    end = name.find(delimiter, len(prefix)) if delimiter else -1
    return name[: end + len(delimiter)] if end >= 0 else ""


def _ranged(request: Request, stored: StoredObject, headers: dict[str, str]) -> Response:
    match = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("range", ""))
    if match is None:
        return Response(body=stored.content, content_type=stored.content_type, headers=headers)
    size = len(stored.content)
    first = int(match[1])
    last = min(int(match[2] or size - 1), size - 1)
    if first > last:
        raise StorageError(416, "requestedRangeNotSatisfiable", "The requested range cannot be satisfied.")
    headers["Content-Range"] = f"bytes {first}-{last}/{size}"
    body = stored.content[first : last + 1]
    return Response(status=206, body=body, content_type=stored.content_type, headers=headers)


def _json(request: Request) -> dict[str, Any]:
    try:
        return dict(json.loads(request.body or b"{}"))
    except ValueError:
        raise StorageError(400, "parseError", "The body is not a JSON object.") from None


def _bucket_resource(name: str) -> dict[str, Any]:
    return {
        "kind": "storage#bucket",
        "id": name,
        "name": name,
        "projectNumber": "0",
        "location": "LOCAL",
        "storageClass": "STANDARD",
        "metageneration": "1",
        "etag": "1",
    }


def _error(status: int, reason: str, message: str) -> Response:
    detail = {"message": message, "domain": "global", "reason": reason}
    return json_response({"error": {"code": status, "message": message, "errors": [detail]}}, status)
