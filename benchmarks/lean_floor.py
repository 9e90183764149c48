"""The floor over the worker's own HTTP connections: the difference to it is the worker's own cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.cloud import firestore

from benchmarks.floor import Floor, bucket_of, http_connections, provider_of, serve
from daemon.clients import storage_client
from daemon.lifecycle.library_defaults import set_library_defaults
from worker_chart_export.backends.connections import open_connections

if TYPE_CHECKING:
    from collections.abc import Mapping

OK = 200


def _lean(environment: Mapping[str, str]) -> Floor:
    project, connections = environment["GOOGLE_CLOUD_PROJECT"], http_connections(environment)
    url, headers = provider_of(environment)
    provider = open_connections(url, kept=connections)

    def ask(body: bytes) -> bytes:
        answer = provider.urlopen("POST", url, body=body, headers=headers)
        if answer.status != OK:
            raise RuntimeError(f"the provider answers {answer.status}")
        return bytes(answer.data)

    return Floor(
        documents=firestore.Client(project=project),
        bucket=storage_client(project, connections=connections).bucket(bucket_of(environment)),
        ask=ask,
        connections=connections,
    )


if __name__ == "__main__":
    set_library_defaults()
    serve(_lean)
