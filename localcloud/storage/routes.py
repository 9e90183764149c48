"""The methods of the JSON API: their paths and parameters."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import unquote

from localcloud.storage.errors import StorageError, invalid, not_found, unserved
from localcloud.storage.parts import PARAMETERS
from localcloud.storage.signed_urls import PARAMETERS as SIGNATURE
from localcloud.storage.signed_urls import RESPONSE_HEADERS
from localcloud.storage.unserved import NEUTRAL, UNSERVED

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    """A method of the JSON API.

    Attributes:
        name: As it is counted.
        verbs: The HTTP methods.
        path: A regular expression. Names may hold encoded slashes, so it matches the path as sent.
        is_xml: Whether it is one of the XML API.
    """

    name: str
    verbs: frozenset[str]
    path: re.Pattern[str]
    is_xml: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Route:
    """What a request addresses.

    Attributes:
        method: The method's name; `unknown` for none.
        bucket: The bucket's name.
        name: The object's name, or the path of an unknown method.
        to_bucket: The bucket to copy to.
        to_name: The object to copy to.
        is_xml: Whether the path is one of the XML API.
    """

    method: str
    bucket: str = ""
    name: str = ""
    to_bucket: str = ""
    to_name: str = ""
    is_xml: bool = False


#: The uploads of the XML API. The JSON API has no name for them.
PARTS = "objects.parts"
# What the methods take. Google's service ignores what a method does not take: the client for Node sends the
# parameters of a list with each deletion.
_CONDITIONS = ("GenerationMatch", "GenerationNotMatch", "MetagenerationMatch", "MetagenerationNotMatch")
TAKEN = frozenset(
    {
        *(f"{prefix}{condition}" for prefix in ("if", "ifSource") for condition in _CONDITIONS),
        *("uploadType", "upload_id", "name", "contentEncoding"),
        *("generation", "sourceGeneration", "rewriteToken", "project"),
        *("prefix", "delimiter", "startOffset", "endOffset", "matchGlob", "versions"),
        *("includeTrailingDelimiter", "pageToken", "maxResults", "alt", "fields"),
        *NEUTRAL,
    }
)

# Clients of an emulator may leave out `/storage/v1`, as the one for Node does.
_BUCKETS = r"(?:/storage/v1)?/b"
_BUCKET = rf"{_BUCKETS}/(?P<bucket>[^/]+)"
_OBJECT = rf"{_BUCKET}/o/(?P<name>[^/]+)"
_TO_OBJECT = r"(?P<to_bucket>[^/]+)/o/(?P<to_name>[^/]+)"
_XML_BUCKET = r"/(?!(?:storage|upload|download|resumable|batch|b|projects)/)(?P<bucket>[^/]+)(?:/.*)?"
_XML_OBJECT = _XML_BUCKET.replace("(?:/.*)?", "/(?P<name>.+)")


def _method(name: str, verbs: str, path: str, *, is_xml: bool = False) -> Method:
    return Method(name=name, verbs=frozenset(verbs.split()), path=re.compile(path), is_xml=is_xml)


METHODS = (
    _method("objects.insert", "POST PUT DELETE", r"(?:/resumable)?/upload/storage/v1/b/(?P<bucket>[^/]+)/o"),
    _method("objects.get", "GET", _OBJECT),
    _method("objects.download", "GET", rf"/download{_OBJECT}"),
    _method("objects.patch", "PATCH", _OBJECT),
    _method("objects.update", "PUT", _OBJECT),
    _method("objects.delete", "DELETE", _OBJECT),
    _method("objects.list", "GET", rf"{_BUCKET}/o"),
    _method("objects.compose", "POST", rf"{_OBJECT}/compose"),
    _method("objects.copy", "POST", rf"{_OBJECT}/copyTo/b/{_TO_OBJECT}"),
    _method("objects.rewrite", "POST", rf"{_OBJECT}/rewriteTo/b/{_TO_OBJECT}"),
    _method("objects.move", "POST", rf"{_OBJECT}/moveTo/o/(?P<to_name>[^/]+)"),
    _method("buckets.get", "GET", _BUCKET),
    _method("buckets.patch", "PATCH", _BUCKET),
    _method("buckets.update", "PUT", _BUCKET),
    _method("buckets.delete", "DELETE", _BUCKET),
    _method("buckets.insert", "POST", _BUCKETS),
    _method("buckets.list", "GET", _BUCKETS),
    _method("batch", "POST", r"/batch(?:/storage/v1)?"),
    # The path of the XML API, as in an object's public URL.
    _method("objects.download", "GET HEAD", _XML_OBJECT, is_xml=True),
    _method(PARTS, "POST PUT DELETE", _XML_OBJECT, is_xml=True),
)
NAMES = frozenset(method.name for method in METHODS)
# Paths of Google's service below a bucket, an object or a project: the last group names the resource.
_UNSERVED_PATHS = (
    ("objects", re.compile(rf"{_OBJECT}/([a-zA-Z]+).*")),
    ("objects", re.compile(rf"{_BUCKET}/o/(watch|bulkRestore)")),
    ("buckets", re.compile(rf"{_BUCKET}/([a-zA-Z]+).*")),
    ("projects", re.compile(r"(?:/storage/v1)?/projects/(?P<project>[^/]+)/([a-zA-Z]+).*")),
)
# gcsfs makes each bucket with these two. They leave all rights with the callers of the project, as here.
_DEFAULT_RIGHTS = {"predefinedAcl": "projectPrivate", "predefinedDefaultObjectAcl": "bucketOwnerFullControl"}
_REFUSED_HEADERS = {
    "x-goog-if-generation-match": "XML API",
    "x-goog-if-metageneration-match": "XML API",
    **dict.fromkeys(("x-goog-upload-protocol", "x-goog-upload-command"), "X-Goog-Upload-Protocol"),
}
# The conditions that only a download has.
_OF_DOWNLOADS = {
    name.lower(): f"{name} outside of a download"
    for name in ("If-Modified-Since", "If-Unmodified-Since", "If-Range")
}
# These name the caller or the request, or are read elsewhere. All other headers of Google's
# say what to do, so that none of them is ignored.
_NEUTRAL_HEADERS = re.compile(
    r"x-goog-(api-client|api-key|authuser|custom-audit-.*|(copy-source-)?encryption-(algorithm|key|key-sha256)|hash"
    r"|gcs-idempotency-token|request-params|request-reason|user-project)"
)
# What only an upload with the XML API has: the settings of its object.
_OF_XML_UPLOADS = re.compile(r"x-goog-(custom-time|meta-.+|resumable|storage-class)")
_OF_SIGNED_URLS = SIGNATURE | RESPONSE_HEADERS.keys()
_CHOICES = {"projection": ("full", "noAcl"), "alt": ("json", "media")}


@lru_cache(maxsize=256)
def route(verb: str, path: str) -> Route:
    """Return what a request with this HTTP method and path addresses."""
    for method in METHODS:
        match = method.path.fullmatch(path) if verb in method.verbs else None
        if match:
            parts = {part: unquote(text) for part, text in match.groupdict().items()}
            return Route(method=method.name, is_xml=method.is_xml, **parts)
    return Route(method="unknown", name=path)


def no_method(verb: str, path: str) -> StorageError:
    """Return the error for a request that `route` does not know: 501 for a method of Google's, else 404."""
    for kind, pattern in _UNSERVED_PATHS:
        match = pattern.fullmatch(path)
        if match and f"{kind}.{match[match.lastindex or 0]}" in UNSERVED:
            return unserved(f"{kind}.{match[match.lastindex or 0]}")
    if re.fullmatch(_XML_BUCKET, path):
        return unserved("XML API")
    return not_found(f"No such method here: {verb} {path}")


def check_parameters(route: Route, query: Mapping[str, str]) -> None:
    """Refuse parameters that no method takes.

    Raises:
        StorageError: 501, a parameter is not served; 400, its value is none of those allowed.
    """
    taken = PARAMETERS if route.method == PARTS else TAKEN
    for name in query.keys() - (taken | _OF_SIGNED_URLS if route.is_xml else taken):
        if name.lower().startswith("x-goog-") or name in ("GoogleAccessId", "Signature", "Expires"):
            raise unserved("X-Goog-Signature outside of the XML API")
        is_default = route.method == "buckets.insert" and query[name] == _DEFAULT_RIGHTS.get(name)
        asks_nothing = name in UNSERVED and query[name] in ("", "false")
        if not (is_default or asks_nothing):
            raise unserved(name)
    for name, allowed in _CHOICES.items():
        if query.get(name, allowed[0]) not in allowed:
            message = f"Invalid string value: '{query[name]}'. Allowed values: [{', '.join(allowed)}]"
            raise invalid(message, name)


def reads_content(method: str, query: Mapping[str, str]) -> bool:
    """Return whether a request asks for the content of an object."""
    return method == "objects.download" or (method == "objects.get" and query.get("alt") == "media")


def check_headers(route: Route, query: Mapping[str, str], headers: Mapping[str, str]) -> None:
    """Refuse the headers that ask for something that is not served.

    Raises:
        StorageError: 501, it names the header.
    """
    refused = _REFUSED_HEADERS if reads_content(route.method, query) else _REFUSED_HEADERS | _OF_DOWNLOADS
    for header in refused.keys() & headers.keys():
        raise unserved(refused[header])
    writes_xml = route.is_xml and route.method in (PARTS, "objects.insert")
    for header in headers:
        is_served = _NEUTRAL_HEADERS.fullmatch(header) or (writes_xml and _OF_XML_UPLOADS.fullmatch(header))
        if header.startswith("x-goog-") and not is_served:
            raise unserved(f"Header.{header}")
