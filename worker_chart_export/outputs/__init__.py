"""The outputs of a step in Cloud Storage: its charts and its manifest."""

from __future__ import annotations
