"""Remove keys from text: servers and libraries quote what they refuse, in several spellings. Pure."""

from __future__ import annotations

import html
import json
import re
from urllib.parse import quote

REDACTED = "(key)"


def redacted(text: str, key: str) -> str:
    """Replace the key by `(key)`, also in other case, across lines, or escaped for JSON, HTML or a URL."""
    spellings = {key, json.dumps(key)[1:-1], html.escape(key), quote(key), quote(key, safe="")}
    longest_first = sorted(spellings, key=len, reverse=True)
    broken = (r"\s*".join(map(re.escape, spelling)) for spelling in longest_first)
    return re.sub("|".join(broken), REDACTED, text, flags=re.IGNORECASE)
