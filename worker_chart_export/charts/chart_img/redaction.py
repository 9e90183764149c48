"""Keys kept out of words: servers and libraries quote what they refuse, in more than one spelling. Pure."""

from __future__ import annotations

import html
import json
import re
from urllib.parse import quote

REDACTED = "(key)"


def redacted(words: str, key: str) -> str:
    """`words` without the key: as it is, escaped for JSON, HTML or a URL, in any case, broken over lines."""
    spellings = {key, json.dumps(key)[1:-1], html.escape(key), quote(key), quote(key, safe="")}
    longest_first = sorted(spellings, key=len, reverse=True)
    broken = (r"\s*".join(map(re.escape, spelling)) for spelling in longest_first)
    return re.sub("|".join(broken), REDACTED, words, flags=re.IGNORECASE)
