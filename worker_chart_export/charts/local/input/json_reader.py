"""Read a large JSON document value by value, with memory for one small part of it at a time.

`json.loads` makes an object of Python for each value: 16 MiB of `[[],[],...]` become 430 MiB.
"""

from __future__ import annotations

import codecs
import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

#: The longest value that is read as a whole, in characters.
MAX_VALUE_CHARS = 64 * 1024
#: How many bytes are decoded at a time.
_BLOCK_BYTES = 64 * 1024
#: An error so near to the end of what is decoded may come from a value that was cut there.
_CUT_CHARS = 16
_SPACE = re.compile(r"[ \t\n\r]*")
_decode_value = json.JSONDecoder().raw_decode


class JsonReader:
    """A position in a JSON document, which moves forward only.

    Args:
        raw: The document, in UTF-8, UTF-16 or UTF-32.
    """

    def __init__(self, raw: bytes) -> None:
        self._raw = memoryview(raw)
        self._decoder = codecs.getincrementaldecoder(json.detect_encoding(raw))("surrogatepass")
        self._decoded_bytes = 0
        self._is_decoded = False
        self._text = ""
        self._at = 0
        self._dropped_chars = 0

    def peek(self) -> str:
        """Skip white space and return the next character, or an empty text at the end.

        Raises:
            ValueError: The text can't be decoded.
        """
        while True:
            following = self._text[self._at : self._at + 1]
            if following > " ":
                return following
            if match := _SPACE.match(self._text, self._at):
                self._at = match.end()
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._read_block():
                return ""

    def take(self, expected: str) -> bool:
        """Go past `expected`, one character, if it is next. Return whether it was."""
        if self.peek() != expected:
            return False
        self._at += 1
        return True

    def value(self) -> Any:
        """Read the next value.

        Raises:
            ValueError: It is not JSON, or longer than `MAX_VALUE_CHARS`.
            RecursionError: It is nested too deeply.
        """
        self.peek()
        while not self._is_decoded and len(self._text) - self._at < MAX_VALUE_CHARS:
            self._read_block()
        try:
            found, self._at = _decode_value(self._text, self._at)
        except json.JSONDecodeError as error:
            is_cut = error.pos > len(self._text) - _CUT_CHARS or error.msg.startswith("Unterminated")
            if is_cut and not self._is_decoded:
                raise self._error(f"a value has more than {MAX_VALUE_CHARS:,} characters") from None
            raise self._error(error.msg, at=error.pos) from None
        return found

    def items(self) -> Iterator[None]:
        """Go through an array. Each item must be read before the next iteration.

        Raises:
            ValueError: It is no array.
        """
        self._expect("[")
        if self.take("]"):
            return
        yield
        while self.take(","):
            yield
        self._expect("]", "','")

    def members(self) -> Iterator[str]:
        """Go through an object's keys. Each member's value must be read before the next iteration.

        Raises:
            ValueError: It is no object.
        """
        self._expect("{")
        if self.take("}"):
            return
        while True:
            if self.peek() != '"':
                raise self._error("Expecting property name enclosed in double quotes")
            key: str = self.value()
            self._expect(":")
            yield key
            if not self.take(","):
                break
        self._expect("}", "','")

    def end(self) -> None:
        """Check that nothing follows.

        Raises:
            ValueError: Something follows.
        """
        if self.peek():
            raise self._error("Extra data")

    def _expect(self, character: str, shown: str = "") -> None:
        if not self.take(character):
            raise self._error(f"Expecting {shown or repr(character)} delimiter")

    def _error(self, reason: str, *, at: int | None = None) -> ValueError:
        position = self._dropped_chars + (self._at if at is None else at)
        return ValueError(f"{reason} (character {position:,})")

    def _read_block(self) -> bool:
        """Decode another block, and drop what has been read. Return False at the end."""
        if self._is_decoded:
            return False
        block = self._raw[self._decoded_bytes : self._decoded_bytes + _BLOCK_BYTES]
        self._decoded_bytes += len(block)
        self._is_decoded = self._decoded_bytes == len(self._raw)
        self._dropped_chars += self._at
        self._text = self._text[self._at :] + self._decoder.decode(block, self._is_decoded)
        self._at = 0
        return True
