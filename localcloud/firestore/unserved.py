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
