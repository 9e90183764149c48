"""What a step writes to Cloud Storage: PNGs and the manifest."""

from __future__ import annotations
