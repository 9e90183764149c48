"""The embedded Firestore."""

from __future__ import annotations

from localcloud.firestore.service import FirestoreService

__all__ = ["FirestoreService"]
