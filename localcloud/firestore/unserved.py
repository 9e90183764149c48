"""What the embedded Firestore does not serve, and what to use instead."""

from __future__ import annotations

UNSERVED: dict[str, str] = {
    "CreateDocument": "use Commit with the precondition exists=false",
    "DeleteDocument": "use Commit",
    "ExecutePipeline": "use RunQuery or RunAggregationQuery",
    "GetDocument": "use BatchGetDocuments",
    "UpdateDocument": "use Commit",
    "Write": "use Commit or BatchWrite",
    "ReadWrite.concurrency_mode": "leave it out, all transactions lock what they read",
    "Target.once": "remove the target when it is CURRENT",
    "StructuredQuery.find_nearest": "read the documents and compare their vectors in the client",
    "RunQueryRequest.explain_options": "leave it out, there are no indexes to explain",
    "RunAggregationQueryRequest.explain_options": "leave it out, there are no indexes to explain",
}

_ONLY_LOGGED = "names the request in Google's logs and statistics, which the embedded cloud does not keep"

#: What is accepted although it changes nothing -> why that is no loss.
NEUTRAL: dict[str, str] = {
    "BatchWriteRequest.labels": _ONLY_LOGGED,
    "ListenRequest.labels": _ONLY_LOGGED,
    "RequestOptions": _ONLY_LOGGED,
    "Target.expected_count": "is a hint for resumed targets, which begin anew with RESET here",
}
