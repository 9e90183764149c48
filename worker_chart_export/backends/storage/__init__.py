"""Cloud Storage: the session, and calls with retries."""

from __future__ import annotations
