"""The embedded Cloud Storage."""

from __future__ import annotations

from localcloud.storage.server import StorageService

__all__ = ["StorageService"]
