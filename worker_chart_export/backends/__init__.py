"""The clients of Firestore, Cloud Storage and HTTP, and their errors."""

from __future__ import annotations
