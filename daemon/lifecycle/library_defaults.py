"""Defaults of the libraries that must be set before they are imported."""

from __future__ import annotations

import importlib
import os
import sys
import warnings

from daemon.lifecycle.proxies import set_proxies

#: What the variables were that `set_library_defaults` has changed.
_given: dict[str, str | None] = {}


def given_environment() -> dict[str, str]:
    """Return the environment as it was before `set_library_defaults`, for other programs."""
    return {name: value for name, value in {**os.environ, **_given}.items() if value is not None}


def set_library_defaults(*, is_daemon: bool = False) -> None:
    """Set the defaults. Every entry point calls this before it imports one of the libraries.

    Args:
        is_daemon: The process is a daemon, whose output is nothing but JSON unless its format is `console`.
    """
    before = dict(os.environ)
    # gRPC would write lines of its own to stderr.
    if is_daemon and os.environ.get("LOG_FORMAT", "json") != "console":
        os.environ["GRPC_VERBOSITY"] = "NONE"
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    # The storage client would read the metadata of the bucket, which needs a permission that the worker's
    # account may not have.
    os.environ.setdefault("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "true")
    set_proxies()
    if is_daemon:
        # For tracebacks that a daemon never prints: a tenth of its start, and 4 MiB.
        _import_without("rich", "structlog")
        # For texts whose encoding a server does not name; requests takes them for UTF-8 then. 3 MiB.
        _import_without("charset_normalizer", "requests")
    after = dict(os.environ)
    changed = {name for name in before | after if before.get(name) != after.get(name)}
    _given.update({name: before.get(name) for name in changed})


def _import_without(unwanted: str, library: str) -> None:
    """Import a library as if a package that it can do without were not installed."""
    if unwanted in sys.modules:
        return
    sys.modules[unwanted] = None  # type: ignore[assignment] # an import of it raises ImportError
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # requests warns that the package is absent
            importlib.import_module(library)
    finally:
        del sys.modules[unwanted]
