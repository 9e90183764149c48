"""The methods of the JSON API: their paths, and the parameters that they take."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import unquote

from localcloud.storage.errors import StorageError, invalid, not_found, unserved
from localcloud.storage.unserved import UNSERVED

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    """A method of the JSON API.

    Attributes:
        name: As it is counted.
        verbs: The HTTP methods.
        path: A regular expression. Names may hold encoded slashes, so it matches the path as sent.
        parameters: What it takes besides the parameters of all methods.
    """

    name: str
    verbs: frozenset[str]
    path: re.Pattern[str]
    parameters: frozenset[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Route:
    """What a request addresses.

    Attributes:
        method: The method's name; `unknown` for none.
        bucket: The bucket's name.
        name: The object's name, or the path of an unknown method.
        to_bucket: The bucket to copy to.
        to_name: The object to copy to.
    """

    method: str
    bucket: str = ""
    name: str = ""
    to_bucket: str = ""
    to_name: str = ""


# These identify or format a request. Nothing here depends on who calls.
_COMMON = frozenset(
    {"alt", "fields", "prettyPrint", "key", "quotaUser", "userIp", "access_token", "oauth_token"}
)
_KINDS = ("GenerationMatch", "GenerationNotMatch", "MetagenerationMatch", "MetagenerationNotMatch")
_IF = frozenset(f"if{kind}" for kind in _KINDS)
_IF_META = frozenset({"ifMetagenerationMatch", "ifMetagenerationNotMatch"})
_IF_SOURCE = frozenset(f"ifSource{kind}" for kind in _KINDS)
_SOURCE = _IF | _IF_SOURCE | {"sourceGeneration", "projection"}
_OF_OBJECT = _IF | {"generation"}
_LIST = {"prefix", "pageToken", "maxResults", "projection"}
_LIST_OBJECTS = {"delimiter", "startOffset", "endOffset", "matchGlob", "versions", "includeTrailingDelimiter"}

# Clients of an emulator may leave out `/storage/v1`, as the one for Node does.
_BUCKETS = r"(?:/storage/v1)?/b"
_BUCKET = rf"{_BUCKETS}/(?P<bucket>[^/]+)"
_OBJECT = rf"{_BUCKET}/o/(?P<name>[^/]+)"
_TO_OBJECT = r"(?P<to_bucket>[^/]+)/o/(?P<to_name>[^/]+)"
_XML_OBJECT = r"/(?!(?:storage|upload|download|resumable|batch|b)/)(?P<bucket>[^/]+)/(?P<name>.+)"


def _method(name: str, verbs: str, path: str, parameters: frozenset[str] | set[str] = frozenset()) -> Method:
    return Method(
        name=name,
        verbs=frozenset(verbs.split()),
        path=re.compile(path),
        parameters=frozenset(parameters) | _COMMON,
    )


METHODS = (
    _method(
        "objects.insert",
        "POST PUT DELETE",
        r"(?:/resumable)?/upload/storage/v1/b/(?P<bucket>[^/]+)/o",
        _IF | {"uploadType", "upload_id", "name", "contentEncoding", "projection"},
    ),
    _method("objects.get", "GET", _OBJECT, _OF_OBJECT | {"projection"}),
    _method("objects.download", "GET", rf"/download{_OBJECT}", _OF_OBJECT | {"projection"}),
    _method("objects.patch", "PATCH", _OBJECT, _OF_OBJECT | {"projection"}),
    _method("objects.update", "PUT", _OBJECT, _OF_OBJECT | {"projection"}),
    _method("objects.delete", "DELETE", _OBJECT, _OF_OBJECT),
    _method("objects.list", "GET", rf"{_BUCKET}/o", _LIST | _LIST_OBJECTS),
    _method("objects.compose", "POST", rf"{_OBJECT}/compose", _IF),
    _method("objects.copy", "POST", rf"{_OBJECT}/copyTo/b/{_TO_OBJECT}", _SOURCE),
    _method("objects.rewrite", "POST", rf"{_OBJECT}/rewriteTo/b/{_TO_OBJECT}", _SOURCE | {"rewriteToken"}),
    _method("objects.move", "POST", rf"{_OBJECT}/moveTo/o/(?P<to_name>[^/]+)", _SOURCE),
    _method("buckets.get", "GET", _BUCKET, _IF_META | {"projection"}),
    _method("buckets.patch", "PATCH", _BUCKET, _IF_META | {"projection"}),
    _method("buckets.update", "PUT", _BUCKET, _IF_META | {"projection"}),
    _method("buckets.delete", "DELETE", _BUCKET, _IF_META),
    _method("buckets.insert", "POST", _BUCKETS, {"project", "projection"}),
    _method("buckets.list", "GET", _BUCKETS, _LIST | {"project"}),
    _method("batch", "POST", r"/batch(?:/storage/v1)?"),
    # The path of the XML API, as in an object's public URL.
    _method("objects.download", "GET HEAD", _XML_OBJECT, _OF_OBJECT | {"projection"}),
)
_BY_NAME = {method.name: method for method in METHODS}
NAMES = frozenset(_BY_NAME)
# Paths of Google's service below a bucket, an object or a project: the last group names the resource.
_UNSERVED_PATHS = (
    ("objects", re.compile(rf"{_OBJECT}/([a-zA-Z]+).*")),
    ("objects", re.compile(rf"{_BUCKET}/o/(watch|bulkRestore)")),
    ("buckets", re.compile(rf"{_BUCKET}/([a-zA-Z]+).*")),
    ("projects", re.compile(r"(?:/storage/v1)?/projects/(?P<project>[^/]+)/([a-zA-Z]+).*")),
)
# Google's service ignores it too: the client for Node passes an option of its own on to the server.
_IGNORED = {"force"}
# gcsfs always sends these two. Here as there, they leave all rights with the callers of the project.
_SAME_AS_NONE = {"predefinedAcl": "projectPrivate", "predefinedDefaultObjectAcl": "bucketOwnerFullControl"}
_CHOICES = {"projection": ("full", "noAcl"), "alt": ("json", "media")}


@lru_cache(maxsize=256)
def route(verb: str, path: str) -> Route:
    """Return what a request with this HTTP method and path addresses."""
    for method in METHODS:
        match = method.path.fullmatch(path) if verb in method.verbs else None
        if match:
            parts = {part: unquote(text) for part, text in match.groupdict().items()}
            return Route(method=method.name, **parts)
    return Route(method="unknown", name=path)


def no_method(verb: str, path: str) -> StorageError:
    """Return the error for a request that `route` does not know: 501 for a method of Google's, else 404."""
    for kind, pattern in _UNSERVED_PATHS:
        match = pattern.fullmatch(path)
        if match and f"{kind}.{match[match.lastindex or 0]}" in UNSERVED:
            return unserved(f"{kind}.{match[match.lastindex or 0]}")
    if re.fullmatch(_XML_OBJECT, path) or (verb == "PUT" and path.count("/") == 1):
        return unserved("XML API")
    return not_found(f"No such method here: {verb} {path}")


def check_parameters(method: str, query: Mapping[str, str]) -> None:
    """Refuse parameters that a method does not take.

    Raises:
        StorageError: 501, a parameter is not served; 400, its value is none of those allowed.
    """
    for name in query.keys() - _BY_NAME[method].parameters - _IGNORED:
        if name.lower().startswith("x-goog-") or name in ("GoogleAccessId", "Signature", "Expires"):
            raise unserved("X-Goog-Signature")
        is_harmless = query[name] in ("", "false", _SAME_AS_NONE.get(name))
        if not (name in UNSERVED and is_harmless):
            raise unserved(name)
    for name, allowed in _CHOICES.items():
        if query.get(name, allowed[0]) not in allowed:
            message = f"Invalid string value: '{query[name]}'. Allowed values: [{', '.join(allowed)}]"
            raise invalid(message, name)


def check_headers(headers: Mapping[str, str]) -> None:
    """Refuse the headers for the caller's own encryption keys, and the conditions of the XML API.

    Raises:
        StorageError: 501, it names the header.
    """
    for name in ("X-Goog-Encryption-Key", "X-Goog-Copy-Source-Encryption-Key"):
        if name.lower() in headers:
            raise unserved(name)
    if any(name.startswith("x-goog-if-") for name in headers):
        raise unserved("XML API")
