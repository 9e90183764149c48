"""Answer the Storage JSON API as Google's clients use it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from localcloud.http_server import HttpService, Request, Response, json_response
from localcloud.storage import parts, routes
from localcloud.storage.batch import batch_response
from localcloud.storage.compression import with_expanded_body
from localcloud.storage.copies import compose, copy, move
from localcloud.storage.downloads import content_response
from localcloud.storage.encryption import check_key, key_hash
from localcloud.storage.errors import StorageError, required
from localcloud.storage.listing import ListQuery, listed, page_size
from localcloud.storage.multipart import json_object
from localcloud.storage.objects import Objects
from localcloud.storage.partial import parsed, selected
from localcloud.storage.preconditions import Preconditions, number
from localcloud.storage.settings import check_bucket_name, merged
from localcloud.storage.signed_urls import check_signed, is_signed
from localcloud.storage.uploads import Uploads
from localcloud.storage.xml_uploads import begins_upload, upload

if TYPE_CHECKING:
    from collections.abc import Mapping

    from localcloud.storage.resources import Bucket
    from localcloud.storage.routes import Route


_COPIES = {
    "objects.copy": copy,
    "objects.rewrite": copy,
    "objects.move": move,
    "objects.compose": compose,
}


class StorageService(HttpService):
    """Cloud Storage with buckets and objects in memory.

    Methods are counted as the JSON API names them (`objects.insert`, `objects.get`, `objects.download`, ...);
    their subject is `bucket/object`.

    Attributes:
        objects: What is stored.
    """

    name = "storage"
    methods = routes.NAMES

    def __init__(self, *, port: int = 0, seed: int = 0) -> None:
        super().__init__(port=port, seed=seed)
        self.lose_state()

    def lose_state(self) -> None:
        """Delete all buckets and all uploads that have not ended."""
        self.objects = Objects()
        self._uploads = Uploads(self.objects)

    def respond(self, request: Request) -> Response:
        """Answer a request, see `HttpService.respond`. A body that is sent as gzip is expanded first.

        In an upload with the XML API the header is the encoding of the object.
        """
        if "content-encoding" not in request.headers or _route(request).is_xml:
            return super().respond(request)
        try:
            return super().respond(with_expanded_body(request))
        except StorageError as error:
            return self._refused(error, self.identify(request), request)

    def identify(self, request: Request) -> str:
        """Return the JSON API's method name."""
        return _route(request).method

    def subject(self, request: Request) -> str:
        """Return `bucket/object`."""
        route = _route(request)
        name = route.name
        if route.method == "objects.insert" and not route.is_xml:
            try:
                name = self._uploads.named(request)
            except StorageError:
                name = ""  # the response will report the error
        return f"{route.bucket}/{name}"

    def answer(self, method: str, request: Request) -> Response:
        """Answer one request. Errors are in Google's JSON format."""
        try:
            if method == "unknown":
                raise routes.no_method(request.method, request.path)
            if method == "batch":
                return batch_response(request, self.respond)
            route = _route(request)
            routes.check_parameters(route, request.query)
            routes.check_headers(route, request.query, request.headers)
            if is_signed(request.query):
                check_signed(request.query, request.headers, datetime.now(UTC))
            answer = self._answer(method, request, route)
            if isinstance(answer, Response):
                return answer
            fields = request.query.get("fields")
            return json_response(selected(answer, parsed(fields)) if fields else answer)
        except StorageError as error:
            return self._refused(error, method, request)

    def _refused(self, error: StorageError, method: str, request: Request) -> Response:
        """Return an error as the caller gets it, and report it if the request asks for what is not served."""
        is_xml = is_signed(request.query) or parts.is_part(request.query)
        answer = parts.error_response(error) if is_xml and _route(request).is_xml else error.response()
        if error.status != HTTPStatus.NOT_IMPLEMENTED and method != "unknown":
            return answer
        self.refusals.add(self.name, method, error.message, call=f"{request.method} {request.path}")
        # Many HTTP clients show of an error only its first line, and the answer to HEAD has nothing else.
        return replace(answer, phrase=error.message)

    def error_response(self, status: int, message: str) -> Response:
        """Return an error in Google's JSON format: an injected one, or that of a malformed request."""
        reason = "invalid" if status == HTTPStatus.BAD_REQUEST else "backendError"
        return StorageError(status, reason, message).response()

    def _answer(self, method: str, request: Request, route: Route) -> dict[str, Any] | Response:
        if method == "objects.insert":
            return self._upload(request, route)
        if method == routes.PARTS:
            return parts.answer(request, route, self.objects, self._uploads.sessions)
        if method == "objects.list":
            query = ListQuery.of(request.query)
            return listed(self.objects.list(route.bucket, query.prefix, versions=query.versions), query)
        if method in _COPIES:
            return _COPIES[method](self.objects, request, route)
        if method.startswith("objects."):
            return self._answer_object(method, request, route)
        return self._answer_bucket(method, request, route)

    def _upload(self, request: Request, route: Route) -> dict[str, Any] | Response:
        if route.is_xml:
            return upload(request, route, self.objects, self._uploads)
        return self._uploads.answer(request, route.bucket)

    def _answer_object(self, method: str, request: Request, route: Route) -> dict[str, Any] | Response:
        wanted, bucket, name = Preconditions.of(request.query, request.headers), route.bucket, route.name
        generation = number(request.query, "generation")
        if method == "objects.delete":
            self.objects.delete(bucket, name, wanted, generation)
            return Response(status=HTTPStatus.NO_CONTENT)
        if method in ("objects.patch", "objects.update"):
            change = _change(method, request)
            return self.objects.change(bucket, name, wanted, change, generation).resource(knows_key=False)
        stored, key = self.objects.get(bucket, name, wanted, generation), key_hash(request.headers)
        reads_content = routes.reads_content(method, request.query)
        check_key(stored, key, needed=reads_content)
        return content_response(request, stored) if reads_content else stored.resource(knows_key=bool(key))

    def _answer_bucket(self, method: str, request: Request, route: Route) -> dict[str, Any] | Response:
        if method == "buckets.insert":
            return self._create_bucket(request)
        if method == "buckets.list":
            return self._list_buckets(request)
        wanted = Preconditions.of(request.query, request.headers)
        if method == "buckets.delete":
            self.objects.delete_bucket(route.bucket, wanted)
            return Response(status=HTTPStatus.NO_CONTENT)
        if method in ("buckets.patch", "buckets.update"):
            return self.objects.change_bucket(route.bucket, wanted, _change(method, request)).resource()
        return self.objects.bucket(route.bucket, wanted).resource()

    def _create_bucket(self, request: Request) -> dict[str, Any]:
        resource, project = json_object(request.body), _project(request)
        if not resource.get("name"):
            raise required("name")
        name = check_bucket_name(str(resource["name"]))
        return self.objects.create_bucket(name, resource, project=project).resource()

    def _list_buckets(self, request: Request) -> dict[str, Any]:
        query = request.query
        prefix, after, size = query.get("prefix", ""), query.get("pageToken", ""), page_size(query)
        found: list[Bucket] = [
            bucket
            for bucket in self.objects.buckets(_project(request))
            if bucket.name.startswith(prefix) and bucket.name > after
        ]
        page = found[:size]
        shown = {"kind": "storage#buckets", "items": [bucket.resource() for bucket in page]}
        return {**shown, "nextPageToken": page[-1].name} if len(found) > size else shown


def _route(request: Request) -> Route:
    verb = request.method
    if verb == "POST":
        verb = request.headers.get("x-http-method-override", verb)
    found = routes.route(verb, request.path)
    if found.method != routes.PARTS or parts.is_part(request.query):
        return found
    is_upload = verb == "PUT" or begins_upload(request)
    method = "objects.delete" if verb == "DELETE" else "objects.insert" if is_upload else found.method
    return replace(found, method=method)


def _change(method: str, request: Request) -> Any:
    """Return what a patch or an update makes of settings."""
    body = json_object(request.body)

    def change(settings: Mapping[str, Any]) -> Mapping[str, Any]:
        return merged(settings, body) if method.endswith("patch") else body

    return change


def _project(request: Request) -> str:
    if not request.query.get("project"):
        raise required("project")
    return request.query["project"]
