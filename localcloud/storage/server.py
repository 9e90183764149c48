"""Answer the Storage JSON API as Google's Python client uses it."""

from __future__ import annotations

import json
import re
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

from localcloud.http_server import HttpService, Request, Response, json_response
from localcloud.storage.objects import Objects, Preconditions, StorageError, StoredObject

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
_BOUNDARY = re.compile(r'boundary="?([^";]+)"?')
_BLANK_LINE = b"\r\n\r\n"
_CONTENT_TYPE = re.compile(rb"(?im)^\s*content-type\s*:[ \t]*([^\r\n]*?)[ \t]*\r?$")
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
            if method == "objects.insert":
                return self._insert(request, bucket)
            if method == "objects.list":
                return self._list(request, bucket)
            if method.startswith("objects."):
                return self._answer_object(method, request, bucket, name)
            return self._answer_bucket(method, request, bucket)
        except StorageError as error:
            return _error(error.status, error.reason, error.message)

    def error_response(self, status: int, message: str) -> Response:
        """Return an injected error in Google's JSON format."""
        return _error(status, "backendError", message)

    def _answer_object(self, method: str, request: Request, bucket: str, name: str) -> Response:
        wanted, query = Preconditions.of(request.query), request.query
        if method == "objects.patch":
            return json_response(self.objects.patch(bucket, name, _json(request), wanted).resource())
        generation = int(query["generation"]) if "generation" in query else None
        if method == "objects.delete":
            self.objects.delete(bucket, name, wanted, generation)
            return Response(status=HTTPStatus.NO_CONTENT)
        stored = self.objects.get(bucket, name, wanted, generation)
        if method == "objects.download" or query.get("alt") == "media":
            return _content(request, stored)
        return json_response(stored.resource())

    def _answer_bucket(self, method: str, request: Request, bucket: str) -> Response:
        match method:
            case "buckets.get":
                self.objects.require_bucket(bucket)
                return json_response(_bucket_resource(bucket))
            case "buckets.insert":
                name = str(_json(request).get("name", ""))
                if not name:
                    raise StorageError(400, "required", "A bucket needs a name.")
                self.objects.create_bucket(name)
                return json_response(_bucket_resource(name))
            case "buckets.delete":
                self.objects.delete_bucket(bucket)
                return Response(status=HTTPStatus.NO_CONTENT)
            case "buckets.list":
                items = [_bucket_resource(name) for name in self.objects.buckets()]
                return json_response({"kind": "storage#buckets", "items": items})
            case _:
                message = f"No such method here: {request.method} {request.path}"
                raise StorageError(404, "notFound", message)

    def _insert(self, request: Request, bucket: str) -> Response:
        if request.query.get("uploadType") != "multipart":
            raise StorageError(501, "notImplemented", "The local cloud takes multipart uploads only.")
        resource, content = _parse_upload(request)
        if "name" in request.query:
            resource["name"] = request.query["name"]
        stored = self.objects.insert(bucket, resource, content, Preconditions.of(request.query))
        return json_response(stored.resource())

    def _list(self, request: Request, bucket: str) -> Response:
        query = request.query
        size = min(int(query.get("maxResults") or _MAX_RESULTS), _MAX_RESULTS)
        prefix, delimiter, token = (query.get(name, "") for name in ("prefix", "delimiter", "pageToken"))
        items: dict[str, StoredObject | None] = {}
        for stored in self.objects.list(bucket, prefix):
            end = stored.name.find(delimiter, len(prefix)) if delimiter else -1
            if end >= 0:  # a folder stands for all names that start with it
                items[stored.name[: end + len(delimiter)]] = None
            else:
                items[stored.name] = stored
        names = [name for name in items if name.encode() > token.encode()]
        page = names[:size]
        shown: dict[str, Any] = {"kind": "storage#objects"}
        shown["items"] = [item.resource() for name in page if (item := items[name])]
        shown["prefixes"] = [name for name in page if items[name] is None]
        if len(names) > size:
            shown["nextPageToken"] = page[-1]
        return json_response(shown)


def _route(request: Request) -> tuple[str, str, str]:
    for name, method, pattern in _COMPILED:
        match = pattern.fullmatch(request.path)
        if match and request.method == method:
            parts = match.groupdict()
            return name, unquote(parts.get("bucket", "")), unquote(parts.get("object", ""))
    return "unknown", "", request.path


def _parse_upload(request: Request) -> tuple[dict[str, Any], bytes]:
    """Return metadata and content of a `multipart/related` upload: JSON metadata first, then the content.

    The content type of the second part fills in a missing `contentType`.

    Raises:
        StorageError: 400, the body is not such an upload.
    """
    match, body = _BOUNDARY.search(request.headers.get("content-type", "")), request.body
    if match is None:
        raise StorageError(400, "invalid", "The upload's content type has no boundary.")
    delimiter = b"--" + match[1].encode()
    # The content may contain a delimiter, so find the outer ones: the first, the second and the last.
    start = body.find(delimiter)
    second = body.find(b"\r\n" + delimiter, start + len(delimiter))
    end = body.rfind(b"\r\n" + delimiter + b"--")
    if start < 0 or second < 0 or end <= second:
        raise StorageError(400, "invalid", "The upload is not two parts of multipart/related.")
    _, separator, metadata = body[start + len(delimiter) : second].partition(_BLANK_LINE)
    headers, other_separator, content = body[second + 2 + len(delimiter) : end].partition(_BLANK_LINE)
    if not separator or not other_separator:
        raise StorageError(400, "invalid", "A part of the upload has no headers.")
    try:
        resource = dict(json.loads(metadata or b"{}"))
    except ValueError:
        raise StorageError(400, "parseError", "The upload's metadata is not a JSON object.") from None
    given = _CONTENT_TYPE.search(headers)
    resource.setdefault("contentType", given[1].decode("latin-1") if given else "")
    return resource, content


def _name_in_upload(request: Request) -> str:
    try:
        return str(_parse_upload(request)[0].get("name", ""))
    except StorageError:
        return ""  # the response will report the error


def _content(request: Request, stored: StoredObject) -> Response:
    size, body, status = len(stored.content), stored.content, HTTPStatus.OK
    headers = {
        "X-Goog-Hash": f"crc32c={stored.crc32c},md5={stored.md5}",
        "X-Goog-Generation": str(stored.generation),
        "X-Goog-Metageneration": str(stored.metageneration),
        "X-Goog-Stored-Content-Length": str(size),
        "ETag": f'"{stored.generation}/{stored.metageneration}"',
    }
    if stored.content_encoding:  # all clients of this worker accept gzip, so nothing is expanded here
        headers["Content-Encoding"] = headers["X-Goog-Stored-Content-Encoding"] = stored.content_encoding
    match = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("range", ""))
    if match is not None:
        first, last = int(match[1]), min(int(match[2] or size - 1), size - 1)
        if first > last:
            message = "The requested range cannot be satisfied."
            raise StorageError(416, "requestedRangeNotSatisfiable", message)
        headers["Content-Range"] = f"bytes {first}-{last}/{size}"
        body, status = body[first : last + 1], HTTPStatus.PARTIAL_CONTENT
    return Response(status=status, body=body, content_type=stored.content_type, headers=headers)


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
