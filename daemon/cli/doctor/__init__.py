"""What `doctor` finds: a file for each backend; verdicts are pure and apart from what collects the facts."""

from __future__ import annotations
