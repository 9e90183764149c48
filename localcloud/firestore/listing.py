"""List a database by pages: documents of a collection, collections of a document, partitions of a query."""

from __future__ import annotations

import base64
import binascii
import re
from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError

from localcloud.firestore import messages
from localcloud.firestore.field_paths import NAME, lookup, parse, project
from localcloud.firestore.messages import Query
from localcloud.firestore.queries import run, selector_of
from localcloud.firestore.values import path_key
from localcloud.grpc_server import invalid

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from localcloud.firestore.views import View

_DEFAULT_PAGE_SIZE = 300
_ORDER = re.compile(r"\s*((?:`(?:[^`\\]|\\.)*`|[^\s,`])+)(?:\s+(asc|desc))?\s*(?:,|$)", re.IGNORECASE)
_NAME_ORDER = "__name__"


def list_documents(view: View, request: Any) -> Any:
    """Return a page of a collection as a raw `ListDocumentsResponse`, on request with missing documents.

    A missing document does not exist, but others below it do. A page token is the cursor behind a page.

    Raises:
        Refused: INVALID_ARGUMENT, a malformed order, mask, size or token.
    """
    if request.show_missing and request.order_by:
        raise invalid("cannot specify an order when show_missing is true")
    size = _page_size(request.page_size, "Page size must be nonnegative.") or _DEFAULT_PAGE_SIZE
    paths = [parse(text) for text in request.mask.field_paths] if request.HasField("mask") else None
    query = Query(from_=[{"collection_id": request.collection_id}], order_by=_orders(request.order_by))
    _, documents = view.documents_of(request.parent, query)
    if request.show_missing:
        documents += _missing(view, f"{request.parent}/{request.collection_id}", documents)
    if request.page_token:
        query.start_at.MergeFrom(_cursor(request.page_token))
    found = run(query, documents)
    response = messages.ListDocumentsResponse()
    for document in found[:size]:
        response.documents.append(document if paths is None else _masked(document, paths))
    if len(found) > size:
        response.next_page_token = _token(_cursor_behind(found[size - 1], query).SerializeToString())
    return response


def list_collection_ids(view: View, request: Any) -> dict[str, Any]:
    """Return a page of the collections directly below a document, by id.

    Raises:
        Refused: INVALID_ARGUMENT, a malformed size or token.
    """
    size = _page_size(request.page_size, "page_size must be greater than or equal to zero.")
    ids = sorted(view.database.children(request.parent, view.at))
    page, token = _page_of(ids, size, request.page_token, key=str)
    return {"collection_ids": page, "next_page_token": token}


def partition(view: View, request: Any) -> Any:
    """Return cursors that split a collection group into parts of about equal size, in the order of names.

    Raises:
        Refused: INVALID_ARGUMENT, no collection group ordered by name, or a malformed count, size or token.
    """
    query = request.structured_query
    _, all_descendants = selector_of(query)
    plain = Query(from_=query.from_, order_by=_orders(_NAME_ORDER))
    if query != plain or not all_descendants:
        raise invalid("PartitionQuery takes a collection group in the order of __name__.")
    if request.partition_count <= 0:
        raise invalid("partition_count must be greater than zero.")
    _, documents = view.run(request.parent, query)
    names = [document.name for document in documents]
    parts = min(request.partition_count + 1, len(names))
    splits = [names[len(names) * part // parts] for part in range(1, parts)]
    size = _page_size(request.page_size, "page_size must be greater than or equal to zero.")
    page, token = _page_of(splits, size, request.page_token, key=path_key)
    cursors = [{"values": [{"reference_value": name}], "before": True} for name in page]
    return {"partitions": cursors, "next_page_token": token}


def _page_size(size: int, message: str) -> int:
    if size < 0:
        raise invalid(message)
    return size


def _page_of(
    names: Sequence[str], size: int, token: str, *, key: Callable[[str], Any]
) -> tuple[Sequence[str], str]:
    """Return a page of sorted names, and the next token. Size 0 = all; a token is the last name of a page."""
    if token:
        last = _bytes_of(token).decode(errors="replace")
        names = [name for name in names if key(name) > key(last)]
    more = 0 < size < len(names)
    page = names[:size] if more else names
    return page, _token(page[-1].encode()) if more else ""


def _token(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode()


def _bytes_of(token: str) -> bytes:
    try:
        return base64.b64decode(token, altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        raise invalid("invalid page token") from None


def _cursor(token: str) -> Any:
    try:
        return messages.Cursor.FromString(_bytes_of(token))
    except DecodeError:
        raise invalid("invalid page token") from None


def _cursor_behind(document: Any, query: Any) -> Any:
    cursor = messages.Cursor(before=False)
    for order in query.order_by:
        path = parse(order.field.field_path)
        if path == NAME:
            cursor.values.add(reference_value=document.name)
        else:
            cursor.values.append(lookup(document.fields, path))
    return cursor


def _orders(clause: str) -> list[Any]:
    """Return the raw orders of a clause such as `a desc, b`, the name last in the direction of the others."""
    orders = []
    position = 0
    while position < len(clause):
        match = _ORDER.match(clause, position)
        if match is None:
            raise invalid(f'Invalid order by clause "{clause}".')
        orders.append((match[1], "DESCENDING" if (match[2] or "").lower() == "desc" else "ASCENDING"))
        position = match.end()
    if _NAME_ORDER not in [path for path, _ in orders]:
        orders.append((_NAME_ORDER, orders[-1][1] if orders else "ASCENDING"))
    return [Query.Order(field={"field_path": path}, direction=direction) for path, direction in orders]


def _masked(document: Any, paths: Sequence[tuple[str, ...]]) -> Any:
    return project(document, [path for path in paths if path != NAME])


def _missing(view: View, collection: str, documents: Sequence[Any]) -> list[Any]:
    known = {document.name for document in documents}
    parents = {f"{collection}/{child}" for child in view.database.children(collection, view.at)}
    return [messages.Document(name=name) for name in parents - known]
