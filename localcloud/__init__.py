"""Pub/Sub, Firestore, Cloud Storage and Chart-IMG, embedded."""

from __future__ import annotations
