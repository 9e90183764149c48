"""Firestore: documents, and conditional commits."""

from __future__ import annotations
