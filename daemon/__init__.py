"""The process around the domain: settings, the Pub/Sub stream, message handling, shutdown, commands."""

from __future__ import annotations

import os

# Read by the libraries when they are imported, so this is the one place early enough.
# gRPC's core writes its own lines to stderr, where only our JSON lines may be.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
# The storage client would ask for the bucket's metadata behind our back, which an account that may only
# touch objects is not allowed to see.
os.environ.setdefault("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "true")
