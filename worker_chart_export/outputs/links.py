"""Links that open objects in a browser. Pure."""

from __future__ import annotations

from urllib.parse import quote

#: Google's address for people who are signed in.
GOOGLE = "https://storage.cloud.google.com"


def browser_url(uri: str, *, emulator: str | None) -> str | None:
    """Return the link for a `gs://bucket/object`; None for anything else.

    Args:
        uri: The object's URI.
        emulator: The address of the storage emulator, if there is one.
    """
    bucket, slash, name = uri.removeprefix("gs://").partition("/")
    if not uri.startswith("gs://") or not slash or not bucket or not name:
        return None
    if emulator is None:
        return f"{GOOGLE}/{_quoted(bucket)}/{_quoted(name)}"
    base = emulator if "://" in emulator else f"http://{emulator}"
    return (
        f"{base.rstrip('/')}/storage/v1/b/{_quoted(bucket)}/o/{_quoted(name).replace('/', '%2F')}?alt=media"
    )


def _quoted(text: str) -> str:
    return quote(text, errors="replace")
