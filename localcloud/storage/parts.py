"""Uploads in parts, with the XML API: Google's clients send the parts of a large file in parallel."""

from __future__ import annotations

from http import HTTPStatus
from itertools import pairwise
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

from localcloud.http_requests import whole_number
from localcloud.http_server import Request, Response
from localcloud.storage.encryption import check_key_of_upload, key_hash
from localcloud.storage.errors import StorageError, invalid, unserved
from localcloud.storage.preconditions import Preconditions
from localcloud.storage.resources import crc32c, md5
from localcloud.storage.resumable import Session, Sessions, announced_hashes
from localcloud.storage.settings import object_settings
from localcloud.storage.xml_uploads import resource_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from localcloud.storage.objects import Objects
    from localcloud.storage.routes import Route

#: The parameters of such an upload.
PARAMETERS = frozenset({"uploads", "uploadId", "partNumber"})
# Source: https://cloud.google.com/storage/quotas#requests
_PART_NUMBERS = range(1, 10_001)
_LEAST_BYTES = 5 * 1024 * 1024
_NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"


def is_part(query: Mapping[str, str]) -> bool:
    """Return whether a request of the XML API is one of an upload in parts."""
    return not PARAMETERS.isdisjoint(query)


def answer(request: Request, route: Route, objects: Objects, sessions: Sessions) -> Response:
    """Begin an upload, take a part of it, end it with an object, or cancel it.

    Raises:
        StorageError: 501, it is another call of the XML API; 404, no such bucket or upload; 400, a part or
            the list of parts is wrong.
    """
    query, verb = request.query, request.method
    if verb == "POST" and "uploads" in query:
        return _begin(request, route, objects, sessions)
    if "uploadId" not in query:
        raise unserved("XML API")
    if verb == "DELETE":
        sessions.cancel(query["uploadId"])
        return Response(status=HTTPStatus.NO_CONTENT)
    session = sessions.get(query["uploadId"])
    if (session.bucket, session.resource["name"]) != (route.bucket, route.name):
        raise invalid("The upload is that of another object.", "uploadId")
    check_key_of_upload(session.key_sha256, request.headers)
    with session.lock:
        return _take_part(request, session) if verb == "PUT" else _complete(request, session, objects)


def error_response(error: StorageError) -> Response:
    """Return an error in the format of the XML API. Status 304 has no body."""
    if error.status == HTTPStatus.NOT_MODIFIED:
        return error.response()
    code = "BadDigest" if error.location in ("CRC32C", "MD5") else error.reason
    fields = {"Code": code, "Message": error.message, "Details": error.location}
    return _xml("Error", fields, status=error.status, namespace="")


def _begin(request: Request, route: Route, objects: Objects, sessions: Sessions) -> Response:
    resource = resource_of(request, route)
    object_settings(resource)
    objects.bucket(route.bucket)
    session = Session(
        bucket=route.bucket,
        resource=resource,
        wanted=Preconditions(),
        total=None,
        key_sha256=key_hash(request.headers),
    )
    fields = {"Bucket": route.bucket, "Key": route.name, "UploadId": sessions.start(session)}
    return _xml("InitiateMultipartUploadResult", fields)


def _take_part(request: Request, session: Session) -> Response:
    number, content = whole_number(request.query.get("partNumber", "")), request.body
    if number is None or number not in _PART_NUMBERS:
        raise invalid("A part has a number from 1 to 10000.", "partNumber")
    found = {"crc32c": crc32c(content), "md5Hash": md5(content)}
    for kind, given in announced_hashes(request.headers).items():
        if given != found[kind]:
            name = "CRC32C" if kind == "crc32c" else "MD5"
            raise invalid(f'Provided {name} "{given}" doesn\'t match calculated "{found[kind]}".', name)
    session.parts[number] = content
    hashes = f"crc32c={found['crc32c']},md5={found['md5Hash']}"
    return Response(headers={"ETag": _etag(content), "X-Goog-Hash": hashes})


def _complete(request: Request, session: Session, objects: Objects) -> Response:
    """Store the object, once. What a client asks again has the same answer."""
    if session.stored is None:
        content = b"".join(_listed_parts(request.body, session.parts))
        bucket, resource, key = session.bucket, session.resource, session.key_sha256
        stored = objects.insert(bucket, resource, content, session.wanted, has_md5=False, key_sha256=key)
        session.stored = stored.resource()
        session.parts.clear()
    stored_as = session.stored
    fields = {"Bucket": stored_as["bucket"], "Key": stored_as["name"], "ETag": f'"{stored_as["etag"]}"'}
    return _xml("CompleteMultipartUploadResult", fields)


def _listed_parts(body: bytes, parts: Mapping[int, bytes]) -> list[bytes]:
    """Return the parts that a request lists, in its order."""
    numbers: list[int] = []
    for item in _items(body):
        texts = {part.tag.rpartition("}")[2]: (part.text or "").strip() for part in item}
        number = whole_number(texts.get("PartNumber", ""))
        if (
            number is None
            or number not in parts
            or texts.get("ETag", "").strip('"') != _etag(parts[number]).strip('"')
        ):
            raise invalid(f"Part {texts.get('PartNumber')} was not uploaded, or has another ETag.", "Part")
        numbers.append(number)
    if not numbers or any(number >= after for number, after in pairwise(numbers)):
        raise invalid("The parts are listed in the order of their numbers, at least one.", "Part")
    if any(len(parts[number]) < _LEAST_BYTES for number in numbers[:-1]):
        raise invalid(f"All parts but the last have at least {_LEAST_BYTES} bytes.", "Part")
    return [parts[number] for number in numbers]


def _items(body: bytes) -> list[ET.Element]:
    if b"<!" in body:
        raise invalid("The list of parts has no declarations.", "Part")
    try:
        return list(ET.fromstring(body))  # noqa: S314 - without declarations nothing expands
    except ET.ParseError:
        raise invalid("The list of parts is no XML.", "Part") from None


def _etag(content: bytes) -> str:
    return f'"{md5(content)}"'


def _xml(
    kind: str, fields: Mapping[str, str], *, status: int = HTTPStatus.OK, namespace: str = _NAMESPACE
) -> Response:
    inside = "".join(f"<{name}>{escape(text)}</{name}>" for name, text in fields.items())
    root = f"{kind} xmlns='{namespace}'" if namespace else kind
    text = f"<?xml version='1.0' encoding='UTF-8'?><{root}>{inside}</{kind}>"
    return Response(status=status, body=text.encode(), content_type="application/xml; charset=UTF-8")
