"""Calls of Firestore, Cloud Storage and HTTP services, and their errors."""

from __future__ import annotations
