"""Read the results of Firestore queries page by page, without decoding what is not used."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

from google.api_core import exceptions as google_errors
from google.cloud.firestore_v1.types import StructuredQuery

from worker_chart_export.backends.errors import READ_RETRY, READ_TIMEOUT_SECONDS, backend_errors
from worker_chart_export.backends.firestore import LazySnapshot
from worker_chart_export.backends.firestore_values import LazyFields
from worker_chart_export.errors import IndexMissing

if TYPE_CHECKING:
    from collections.abc import Iterator

#: A page ends when its documents have more bytes. One document has at most 1 MiB.
MAX_PAGE_BYTES = 4 * 1024 * 1024
#: How many levels of maps are decoded only where they are used: down to the inputs of a run's steps.
DEPTH = 4


class FoundDocument(NamedTuple):
    """A document that a query found.

    Attributes:
        path: Its path in the database, e.g. `flow_runs/r1`.
        snapshot: The document. `fields` is never None.
    """

    path: str
    snapshot: LazySnapshot


def read_pages(
    client: Any, query: Any, *, order_by: str, direction: str, page_size: int
) -> Iterator[list[FoundDocument]]:
    """Yield the documents that a query finds, in pages that are not empty. Two pages are in memory at most.

    A list of runs holds many thousand steps, and shows few fields of each. So this function uses the same
    private parts of Google's client as `firestore.read_documents`.

    Args:
        client: A Firestore client.
        query: A query on a root collection or a collection group, without order, limit and cursor.
        order_by: The field to order by. Documents without it are not found.
        direction: `ASCENDING` or `DESCENDING`.
        page_size: The most documents of a page.

    Raises:
        IndexMissing: The index of the query is missing.
        BackendUnavailable: Firestore is unavailable.
        BackendRefused: Firestore refuses.
    """
    query = query.order_by(order_by, direction=direction).order_by("__name__", direction=direction)
    wire = StructuredQuery.pb(query.limit(page_size)._to_protobuf())  # noqa: SLF001 - see above
    answers, is_last = _read_page(client, wire, page_size)
    if answers:
        yield [_found(client, answer) for answer in answers]
    if is_last:
        return
    # A caller that uses more than one page mostly uses all of them, so the next one is read meanwhile.
    with ThreadPoolExecutor(1, thread_name_prefix="pages") as reader:
        coming = reader.submit(_read_page, client, _after(wire, answers[-1]), page_size)
        while not is_last:
            answers, is_last = coming.result()
            if not is_last:
                coming = reader.submit(_read_page, client, _after(wire, answers[-1]), page_size)
            if answers:
                yield [_found(client, answer) for answer in answers]


def _after(query: Any, answer: Any) -> Any:
    """Let the query begin after the document of this answer."""
    document = type(answer).pb(answer).document
    query.start_at.Clear()
    query.start_at.values.add().CopyFrom(document.fields[query.order_by[0].field.field_path])
    query.start_at.values.add().reference_value = document.name
    return query


def _read_page(client: Any, wire: Any, page_size: int) -> tuple[list[Any], bool]:
    """Return the answers that hold the documents of a page, and whether it is the last page."""
    found, size = [], 0
    with backend_errors("firestore"):
        try:
            answers = client._firestore_api.run_query(  # noqa: SLF001 - see above
                request={
                    "parent": f"{client._database_string}/documents",  # noqa: SLF001
                    "structured_query": StructuredQuery.wrap(wire),
                },
                metadata=client._rpc_metadata,  # noqa: SLF001
                retry=READ_RETRY,
                timeout=READ_TIMEOUT_SECONDS,
            )
            for answer in answers:
                document = type(answer).pb(answer).document
                if not document.name:
                    continue
                found.append(answer)
                size += document.ByteSize()
                if size > MAX_PAGE_BYTES:
                    answers.cancel()
                    return found, False
        except google_errors.FailedPrecondition as error:
            raise IndexMissing(str(error.message)) from error
    return found, len(found) < page_size


def _found(client: Any, answer: Any) -> FoundDocument:
    document = type(answer).pb(answer).document
    snapshot = LazySnapshot(
        fields=LazyFields(document.fields, client, depth=DEPTH),
        update_time=answer.document.update_time,
        read_time=answer.read_time,
    )
    return FoundDocument(document.name.partition("/documents/")[2], snapshot)
