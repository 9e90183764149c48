"""Uploads: in one request, with metadata, or resumable."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from localcloud.http_requests import whole_number
from localcloud.http_server import Request, Response
from localcloud.storage.encryption import check_key_of_upload, key_hash
from localcloud.storage.errors import invalid, required
from localcloud.storage.multipart import json_object, typed, upload_parts
from localcloud.storage.preconditions import Preconditions
from localcloud.storage.resumable import CANCELLED, Session, Sessions, announced_hashes
from localcloud.storage.settings import check_object_name, object_settings

if TYPE_CHECKING:
    from localcloud.storage.objects import Objects


class Uploads:
    """The uploads to a store of objects.

    Attributes:
        sessions: Those in more than one request.
    """

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self.sessions = Sessions()

    def answer(self, request: Request, bucket: str) -> dict[str, Any] | Response:
        """Return the object in the JSON API's format, or what to answer as long as there is none.

        Raises:
            StorageError: The upload is malformed, is not served, or its preconditions don't hold.
        """
        query, headers = request.query, request.headers
        if "upload_id" in query:
            return self._continue(request, query["upload_id"])
        if request.method != "POST":
            raise required("upload_id")
        kind, content_type = query.get("uploadType"), headers.get("content-type", "")
        if kind == "resumable":
            return self._start(request, bucket)
        if kind == "multipart":
            resource, content = upload_parts(content_type, request.body)
        elif kind == "media":
            resource, content = {"contentType": content_type}, request.body
        elif kind is None:
            raise required("uploadType")
        else:
            raise invalid(f"Invalid upload type: '{kind}'.", "uploadType")
        resource = _completed(request, bucket, resource)
        wanted, key = Preconditions.of(query, headers), key_hash(headers)
        return self._objects.insert(bucket, resource, content, wanted, key_sha256=key).resource()

    def named(self, request: Request) -> str:
        """Return the name of the object that a request uploads; empty if it can't be read."""
        if "upload_id" in request.query:
            session = self.sessions.get(request.query["upload_id"])
            return str(session.resource["name"])
        if "name" in request.query:
            return request.query["name"]
        if request.query.get("uploadType") == "resumable":
            return str(json_object(request.body).get("name", ""))
        return str(upload_parts(request.headers.get("content-type", ""), request.body)[0].get("name", ""))

    def _start(self, request: Request, bucket: str) -> Response:
        content_type = request.headers.get("x-upload-content-type", "")
        resource = _completed(request, bucket, typed(json_object(request.body), content_type))
        announced = request.headers.get("x-upload-content-length", "")
        total = whole_number(announced)
        if announced and total is None:
            raise invalid(f"Invalid content length: '{announced}'.", "X-Upload-Content-Length")
        return self.begin(request, bucket, resource, total=total)

    def begin(
        self,
        request: Request,
        bucket: str,
        resource: dict[str, Any],
        *,
        total: int | None = None,
        status: int = HTTPStatus.OK,
    ) -> Response:
        """Begin a resumable upload, and return where to send its chunks.

        Args:
            request: Has the preconditions and the encryption key of the object.
            bucket: The bucket's name.
            resource: The settings of the object, with its name.
            total: The size of the object; None = not known yet.
            status: The HTTP status of the response.

        Raises:
            StorageError: 404, no such bucket; 412, a precondition; 400, the name, a setting or the key.
        """
        name = check_object_name(resource["name"])
        object_settings(resource)
        wanted, key = Preconditions.of(request.query, request.headers), key_hash(request.headers)
        wanted.check(self._objects.find(bucket, name))
        session = Session(bucket=bucket, resource=resource, wanted=wanted, total=total, key_sha256=key)
        upload_id = self.sessions.start(session)
        path = f"/upload/storage/v1/b/{quote(bucket, safe='')}/o"
        location = (
            f"http://{request.headers.get('host', '')}{path}?uploadType=resumable&upload_id={upload_id}"
        )
        headers = {"Location": location, "X-GUploader-UploadID": upload_id}
        return Response(status=status, headers=headers)

    def _continue(self, request: Request, upload_id: str) -> dict[str, Any] | Response:
        if request.method == "DELETE":
            self.sessions.cancel(upload_id)
            return Response(status=CANCELLED)
        session = self.sessions.get(upload_id)
        with session.lock:
            if session.stored is not None:
                return session.stored
            check_key_of_upload(session.key_sha256, request.headers)
            is_complete = session.take(request.body, request.headers.get("content-range", ""))
            session.resource |= announced_hashes(request.headers)
            if not is_complete:
                return _incomplete(request, session)
            content = bytes(session.content)
            stored = self._objects.insert(
                session.bucket, session.resource, content, session.wanted, key_sha256=session.key_sha256
            )
            session.stored = stored.resource()
            session.content.clear()
            return session.stored


def _incomplete(request: Request, session: Session) -> Response:
    """Return status 308, or 200 for a client that would take 308 for a redirect."""
    headers = session.received()
    if request.headers.get("x-guploader-no-308") == "yes":
        return Response(headers={**headers, "X-HTTP-Status-Code-Override": "308"})
    return Response(status=HTTPStatus.PERMANENT_REDIRECT, headers=headers)


def _completed(request: Request, bucket: str, resource: dict[str, Any]) -> dict[str, Any]:
    """Return the metadata with what the parameters and the headers of a request add to it."""
    if resource.get("bucket") not in (None, "", bucket):
        raise invalid(f"The metadata names another bucket: '{resource['bucket']}'.", "bucket")
    if "contentEncoding" in request.query:
        resource["contentEncoding"] = request.query["contentEncoding"]
    resource["name"] = request.query.get("name") or str(resource.get("name") or "")
    if not resource["name"]:
        raise required("name")
    return {**resource, **announced_hashes(request.headers)}
