"""The errors of the JSON API."""

from __future__ import annotations

from http import HTTPStatus

from localcloud.http_server import Response, json_response
from localcloud.storage.unserved import UNSERVED
from localcloud.unserved import refusal


class StorageError(Exception):
    """A request refused with an HTTP status and one of Google's reasons.

    Attributes:
        status: The HTTP status.
        reason: Google's word for the kind of error, e.g. `conditionNotMet`.
        message: What is wrong.
        location: The parameter, the field or the header that is wrong; empty for none.
    """

    def __init__(self, status: int, reason: str, message: str, location: str = "") -> None:
        """Store the parts of the error."""
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message
        self.location = location

    def response(self) -> Response:
        """Return the error in Google's JSON format. Status 304 has no body."""
        if self.status == HTTPStatus.NOT_MODIFIED:
            return Response(status=self.status)
        detail = {"message": self.message, "domain": "global", "reason": self.reason}
        if self.location:
            kind = "header" if "-" in self.location else "parameter"
            detail |= {"locationType": kind, "location": self.location}
        error = {"code": self.status, "message": self.message, "errors": [detail]}
        return json_response({"error": error}, self.status)


def unserved(name: str) -> StorageError:
    """Return the refusal of what the embedded cloud does not serve. It names what to use instead."""
    return StorageError(HTTPStatus.NOT_IMPLEMENTED, "notImplemented", refusal(name, UNSERVED), name)


def invalid(message: str, location: str = "") -> StorageError:
    """Return the refusal of a malformed request."""
    return StorageError(HTTPStatus.BAD_REQUEST, "invalid", message, location)


def required(name: str) -> StorageError:
    """Return the refusal of a request that lacks a parameter or a field."""
    return StorageError(HTTPStatus.BAD_REQUEST, "required", f"Required parameter: {name}", name)


def conflict(message: str) -> StorageError:
    """Return the refusal of a request that the state of the bucket does not allow."""
    return StorageError(HTTPStatus.CONFLICT, "conflict", message)


def not_found(message: str) -> StorageError:
    """Return the error for a missing bucket, object, upload or method."""
    return StorageError(HTTPStatus.NOT_FOUND, "notFound", message)
