"""The floor over the worker's own HTTP connections: what the worker takes beyond it is its own doing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from google.cloud import firestore

from benchmarks.floor import PATH, Floor, bucket_of, connections_of, key_of, serve
from daemon.composition import storage_client
from worker_chart_export.connections import open_connections

if TYPE_CHECKING:
    from collections.abc import Mapping


def _lean(environment: Mapping[str, str]) -> Floor:
    project, connections = environment["GOOGLE_CLOUD_PROJECT"], connections_of(environment)
    base_url = environment["CHART_IMG_BASE_URL"]
    charts = open_connections(base_url, kept=connections)
    headers = {"x-api-key": key_of(environment), "content-type": "application/json"}

    def post(body: dict[str, Any]) -> bytes:
        answer = charts.urlopen("POST", base_url + PATH, body=json.dumps(body).encode(), headers=headers)
        return bytes(answer.data)

    return Floor(
        documents=firestore.Client(project=project),
        bucket=storage_client(project, connections=connections).bucket(bucket_of(environment)),
        post=post,
        connections=connections,
    )


if __name__ == "__main__":
    serve(_lean)
