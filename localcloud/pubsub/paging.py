"""Pages of a list."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence


def page(request: Any, field: str, items: Sequence[Any]) -> dict[str, Any]:
    """Return the fields of a list's response: one page, and the token of the next one.

    Args:
        request: A raw request with `page_size` (0 = all) and `page_token`.
        field: The response's field for the items.
        items: Full names, or raw messages with a `name`; sorted by it.
    """
    found = [item for item in items if name_of(item) >= request.page_token]
    size = request.page_size if request.page_size > 0 else len(found)
    rest = found[size : size + 1]
    return {field: found[:size], "next_page_token": name_of(rest[0]) if rest else ""}


def name_of(item: Any) -> str:
    """Return the name of an item."""
    return item if isinstance(item, str) else str(item.name)
