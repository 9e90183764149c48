"""The orchestrator's access to Firestore. It goes straight to the embedded store, where no fault applies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.cloud.firestore_v1._helpers import decode_dict
from google.cloud.firestore_v1.types import CommitRequest

from localcloud.firestore.limits import document_size
from localcloud.firestore.messages import to_instant

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from google.cloud.firestore import Client, WriteBatch

    from localcloud.firestore import FirestoreService

LEASES = "chart_export_leases"


class Documents:
    """Runs, leases and templates.

    Args:
        client: A client of the Firestore that the daemons use.
        embedded: That Firestore, when it is the embedded one.

    Attributes:
        own_commits: The instants (microseconds since 1970) of this object's commits.
    """

    def __init__(self, client: Client, embedded: FirestoreService | None) -> None:
        self._client = client
        self._embedded = embedded
        self.own_commits: set[int] = set()

    def write(self, change: Callable[[WriteBatch], Any]) -> None:
        """Commit the writes that `change` adds to a batch."""
        batch = self._client.batch()
        change(batch)
        if self._embedded is None:
            batch.commit()
            return
        request = CommitRequest(database=self._client._database_string, writes=batch._write_pbs)
        response = self._embedded._commit(CommitRequest.pb(request))
        self.own_commits.add(to_instant(response.commit_time))

    def size(self, run_id: str) -> int:
        """Return the size of a run as the embedded Firestore counts it, in bytes."""
        assert self._embedded is not None
        name = self.run(run_id)._document_path
        _, found = self._embedded.database(self._client._database_string).read([name])
        return document_size(found[name])

    def run(self, run_id: str) -> Any:
        """Return the reference of a run."""
        return self._client.document(f"flow_runs/{run_id}")

    def lease(self, run_id: str, step_id: str) -> Any:
        """Return the reference of a step's lease."""
        return self.run(run_id).collection(LEASES).document(step_id)

    def runs(self, run_ids: Iterable[str]) -> dict[str, dict[str, Any] | None]:
        """Return the current runs by id; None = the run does not exist."""
        references = [self.run(run_id) for run_id in run_ids]
        if self._embedded is None:
            return {snapshot.id: snapshot.to_dict() for snapshot in self._client.get_all(references)}
        names = [reference._document_path for reference in references]
        _, found = self._embedded.database(self._client._database_string).read(names)
        return {name.rpartition("/")[2]: self._decoded(document) for name, document in found.items()}

    def leases(self) -> dict[str, dict[str, Any]]:
        """Return all leases by path."""
        if self._embedded is None:
            found = self._client.collection_group(LEASES).get()
            return {snapshot.reference.path: snapshot.to_dict() for snapshot in found}
        database = self._embedded.database(self._client._database_string)
        collections = [path for path in database.collections() if path.endswith(f"/{LEASES}")]
        _, documents = database.documents_in(collections)
        return {
            document.name.partition("/documents/")[2]: self._decoded(document) or {} for document in documents
        }

    def _decoded(self, document: Any) -> dict[str, Any] | None:
        return None if document is None else decode_dict(document.fields, self._client)
