"""Take the pictures of the demo gallery for the docs.

Run `python -m tests.support.page.gallery_pictures IN OUT`. Both pictures show the top of the page: on a wide
screen in light colours and on a phone in dark colours.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

from PIL import Image

from tests.support.page.browser import started_chromium

#: Name -> width and height of the picture, and whether it is dark.
PICTURES = {"gallery-1280.png": (1280, 1560, False), "gallery-390.png": (390, 2080, True)}
ALL_LOADED = (
    "Promise.all([...document.querySelectorAll('figure img')]"
    ".map(image => (image.loading = 'eager', image.decode())))"
)


def main(gallery: Path, docs: Path) -> None:
    """Take both pictures."""
    with started_chromium() as browser:
        for name, (width, height, dark) in PICTURES.items():
            with browser.tab(width=width, dark=dark) as tab:
                tab.open((gallery / "index.html").resolve().as_uri())
                tab.run(f"{ALL_LOADED}.then(() => 0)")
                _save(tab.picture(height=height), docs / name)


def _save(png: bytes, file: Path) -> None:
    """Save with 256 colours: a third of the size, almost without a visible difference."""
    Image.open(io.BytesIO(png)).convert("RGB").quantize(256).save(file, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
