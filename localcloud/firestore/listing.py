"""Answer ListDocuments and ListCollectionIds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc

from localcloud.firestore import messages
from localcloud.firestore.field_paths import parse, project
from localcloud.firestore.queries import NAME
from localcloud.firestore.values import path_key
from localcloud.grpc_server import Refused

if TYPE_CHECKING:
    from localcloud.firestore.store import Database

_DEFAULT_PAGE_SIZE = 300


def list_documents(database: Database, request: Any) -> Any:
    """List one page of a collection by name, on request with missing documents; the token is the last name.

    Raises:
        Refused: UNIMPLEMENTED, an order other than by name.
    """
    if request.order_by not in ("", "__name__"):
        raise Refused(grpc.StatusCode.UNIMPLEMENTED, "the local cloud lists by name only")
    collection = f"{request.parent}/{request.collection_id}"
    _, documents = database.documents_in([collection])
    if request.show_missing:
        documents += _missing(database, collection, {document.name for document in documents})
    documents.sort(key=lambda document: path_key(document.name))
    if request.page_token:
        after = path_key(request.page_token)
        documents = [document for document in documents if path_key(document.name) > after]
    size = request.page_size or _DEFAULT_PAGE_SIZE
    response = messages.ListDocumentsResponse(documents=[_masked(request, item) for item in documents[:size]])
    if len(documents) > size:
        response.next_page_token = documents[size - 1].name
    return response


def _missing(database: Database, collection: str, known: set[str]) -> list[Any]:
    """Return documents that do not exist but have documents below them."""
    prefix = f"{collection}/"
    parents = {
        prefix + path[len(prefix) :].split("/")[0]
        for path in database.collections()
        if path.startswith(prefix)
    }
    return [messages.Document(name=name) for name in parents - known]


def _masked(request: Any, document: Any) -> Any:
    if not request.HasField("mask"):
        return document
    paths = [parse(text) for text in request.mask.field_paths]
    return project(document, [path for path in paths if path != NAME])


def list_collection_ids(database: Database, request: Any) -> Any:
    """List all collection ids directly below a document or the root, on one page."""
    prefix = f"{request.parent}/"
    ids = {path[len(prefix) :].split("/")[0] for path in database.collections() if path.startswith(prefix)}
    return messages.ListCollectionIdsResponse(collection_ids=sorted(ids))
