"""What layout and drawing are made of: marks, texts, colours, themes."""

from __future__ import annotations
