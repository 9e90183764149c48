"""Parse an HTML page: elements with their attributes and text."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

#: Elements without an end tag.
VOID = {"meta", "link", "img", "br", "hr", "input", "wbr"}


@dataclass(slots=True)
class Element:
    """An element. `text` is all the text below it, with white space as in the source."""

    tag: str
    attributes: dict[str, str | None] = field(default_factory=dict)
    text: str = ""
    children: list[Element] = field(default_factory=list)

    def all(self, *tags: str, **attributes: str) -> list[Element]:
        """Return the elements below with these tags and attributes, in order."""
        found = []
        for child in self.children:
            if child.tag in tags and all(child.attributes.get(name) == it for name, it in attributes.items()):
                found.append(child)
            found += child.all(*tags, **attributes)
        return found

    def one(self, tag: str, **attributes: str) -> Element:
        """Return the only such element."""
        (found,) = self.all(tag, **attributes)
        return found

    def everything(self) -> list[Element]:
        """Return every element below."""
        return [found for child in self.children for found in (child, *child.everything())]


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.root = Element("#root")
        self._open = [self.root]

    def handle_starttag(self, tag, attrs):
        element = Element(tag, dict(attrs))
        self._open[-1].children.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_endtag(self, tag):
        assert self._open[-1].tag == tag, f"</{tag}> closes <{self._open[-1].tag}>"
        self._open.pop()

    def handle_data(self, data):
        for element in self._open:
            element.text += data

    def end(self) -> Element:
        assert self._open == [self.root], f"<{self._open[-1].tag}> is never closed"
        return self.root


def read_page(source: str) -> Element:
    """Parse a page; raise AssertionError if its elements are not properly nested."""
    reader = _Reader()
    reader.feed(source)
    reader.close()
    return reader.end()
