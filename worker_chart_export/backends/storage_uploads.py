"""Upload objects to Cloud Storage, each in one request.

`Blob.upload_from_string` of Google's client adds nearly half to the processor time of the request: it opens
three spans, makes an e-mail boundary, and reads all fields of the answer.
"""

from __future__ import annotations

import base64
import json
import secrets
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import google_crc32c
from google.api_core import exceptions as google_errors

from worker_chart_export.backends.storage import call_storage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from worker_chart_export.backends.storage_session import Timeout
    from worker_chart_export.concurrency.cancel_scope import CancelScope
    from worker_chart_export.errors import RequestError

#: objects.insert of the JSON API. Of the answer only the generation is asked for.
URL = "{host}/upload/storage/v1/b/{bucket}/o?uploadType=multipart&fields=generation&ifGenerationMatch="

#: Between the parts of a body. No content holds these random characters.
BOUNDARY = secrets.token_hex(16)


def insert_object(
    bucket: Any,
    name: str,
    content: bytes,
    *,
    content_type: str,
    refusal: type[RequestError],
    scope: CancelScope,
    metadata: Mapping[str, str] | None = None,
    generation: int = 0,
) -> bool:
    """Upload if the object's generation is still `generation` (0 = none). Return whether it was.

    Errors as `call_storage`, without PreconditionFailed.
    """
    fields: dict[str, Any] = {"name": name, "contentType": content_type, "crc32c": checksum_of(content)}
    if metadata:
        fields["metadata"] = dict(metadata)
    body = _multipart(fields, content)
    url, headers = _target(bucket)

    def send(timeout: Timeout) -> None:
        bucket.client._http.upload(f"{url}{generation}", body, headers, timeout=timeout)  # noqa: SLF001

    try:
        call_storage(send, name=f"gs://{bucket.name}/{name}", refusal=refusal, scope=scope)
    except google_errors.PreconditionFailed:
        return False
    return True


@lru_cache(maxsize=16)
def _target(bucket: Any) -> tuple[str, dict[str, str]]:
    """Return the URL of uploads into a bucket, without the generation, and their headers."""
    connection = bucket.client._connection  # noqa: SLF001 - it has no other name
    agent = connection.user_agent
    headers = {
        "content-type": f"multipart/related; boundary={BOUNDARY}",
        "user-agent": agent,
        "x-goog-api-client": agent,
    }
    return URL.format(host=connection.get_api_base_url_for_mtls(), bucket=quote(bucket.name)), headers


def checksum_of(content: bytes) -> str:
    """Return the CRC32C as Cloud Storage writes it: base64 of the big-endian bytes."""
    return base64.b64encode(google_crc32c.value(content).to_bytes(4)).decode()


def _multipart(fields: Mapping[str, Any], content: bytes) -> bytes:
    """Return the body of a `multipart/related` request: the fields of the object, then its content."""
    head = (
        f"--{BOUNDARY}\r\ncontent-type: application/json; charset=UTF-8\r\n\r\n{json.dumps(fields)}\r\n"
        f"--{BOUNDARY}\r\ncontent-type: {fields['contentType']}\r\n\r\n"
    )
    return b"".join((head.encode(), content, f"\r\n--{BOUNDARY}--".encode()))
