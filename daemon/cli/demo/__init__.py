"""The demo: the whole main job on one machine, from published messages to a gallery of charts."""

from __future__ import annotations
