"""The demo: everything on one machine, from published messages to a gallery of charts."""

from __future__ import annotations
