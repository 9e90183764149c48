"""Defaults of the libraries that must be set before they are imported."""

from __future__ import annotations

import os
import sys

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
        _import_structlog_without_rich()
    after = dict(os.environ)
    changed = {name for name in before | after if before.get(name) != after.get(name)}
    _given.update({name: before.get(name) for name in changed})


def _import_structlog_without_rich() -> None:
    """Import structlog as if rich were not installed.

    It would import rich and pygments, for tracebacks that the daemon never prints: a tenth of the time until
    the daemon has started, and 4 MiB of memory.
    """
    if "rich" in sys.modules:
        return
    sys.modules["rich"] = None  # type: ignore[assignment] # an import of it raises ImportError
    try:
        import structlog  # noqa: F401, PLC0415 - see above
    finally:
        del sys.modules["rich"]
