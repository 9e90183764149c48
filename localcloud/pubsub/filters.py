"""The filter of a subscription: which messages it receives, by their attributes.

Sources: https://cloud.google.com/pubsub/docs/subscription-message-filter, and Google's test server for Go
(`pubsub/pstest`). The official emulator stores a filter and delivers every message.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from localcloud.grpc_server import invalid

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Filter = Callable[[Mapping[str, str]], bool]

MAX_FILTER_BYTES = 256
_TOKEN = re.compile(r'\s*(?:("(?:[^"\\]|\\.)*")|([A-Za-z_][A-Za-z0-9_-]*)|(!=|[=:.(),-]))')
_ESCAPE = re.compile(r"\\(?:x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|([0-3][0-7]{2})|(.))", re.DOTALL)
_CONTROLS = {"n": "\n", "r": "\r", "t": "\t"}
_KEYWORDS = frozenset({"AND", "OR", "NOT"})


def parse_filter(text: str) -> Filter | None:
    """Return a function that decides by a message's attributes; None for an empty filter.

    Raises:
        Refused: INVALID_ARGUMENT, the filter is malformed or too long.
    """
    if not text:
        return None
    if len(text.encode()) > MAX_FILTER_BYTES:
        raise invalid(f"Invalid filter: it has more than {MAX_FILTER_BYTES} bytes (filter={text})")
    return _Parser(text).parse()


class _Parser:
    """Parse by recursive descent. AND and OR at one level need parentheses, as in production."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = self._split()

    def _split(self) -> list[str]:
        tokens, at, text = [], 0, self._text.rstrip()
        while at < len(text):
            match = _TOKEN.match(text, at)
            if match is None:
                raise self._malformed(text[at:])
            tokens.append(match[match.lastindex or 0])
            at = match.end()
        return tokens

    def _malformed(self, near: str) -> Exception:
        return invalid(f"Invalid filter: it is malformed at {near[:40]!r} (filter={self._text})")

    def parse(self) -> Filter:
        found = self._expression()
        if self._tokens:
            raise self._malformed(self._tokens[0])
        return found

    def _next(self, *expected: str) -> str:
        if not self._tokens:
            raise self._malformed("the end")
        if expected and self._tokens[0] not in expected:
            raise self._malformed(self._tokens[0])
        return self._tokens.pop(0)

    def _accepts(self, *tokens: str) -> bool:
        if self._tokens and self._tokens[0] in tokens:
            self._tokens.pop(0)
            return True
        return False

    def _expression(self) -> Filter:
        terms = [self._term()]
        word = self._tokens[0] if self._tokens and self._tokens[0] in ("AND", "OR") else None
        while word and self._accepts(word):
            terms.append(self._term())
        if word is None:
            return terms[0]
        combine = all if word == "AND" else any
        return lambda attributes: combine(term(attributes) for term in terms)

    def _term(self) -> Filter:
        if self._accepts("NOT", "-"):
            inner = self._simple()
            return lambda attributes: not inner(attributes)
        return self._simple()

    def _simple(self) -> Filter:
        if self._accepts("("):
            inner = self._expression()
            self._next(")")
            return inner
        if self._next("attributes", "hasPrefix") == "hasPrefix":
            return self._prefix()
        if self._next(".", ":") == ":":
            present = self._key()
            return lambda attributes: present in attributes
        key, operator, value = self._key(), self._next("=", "!="), self._string()
        if operator == "=":
            return lambda attributes: key in attributes and attributes[key] == value
        return lambda attributes: key not in attributes or attributes[key] != value

    def _prefix(self) -> Filter:
        self._next("(")
        self._next("attributes")
        self._next(".")
        key = self._key()
        self._next(",")
        prefix = self._string()
        self._next(")")
        return lambda attributes: key in attributes and attributes[key].startswith(prefix)

    def _key(self) -> str:
        token = self._next()
        if token.startswith('"'):
            return _unquoted(token)
        if token in _KEYWORDS or not re.match(r"[A-Za-z_]", token):
            raise self._malformed(token)
        return token

    def _string(self) -> str:
        token = self._next()
        if not token.startswith('"'):
            raise self._malformed(token)
        return _unquoted(token)


def _unquoted(token: str) -> str:
    return _ESCAPE.sub(_character, token[1:-1])


def _character(escape: re.Match[str]) -> str:
    hexadecimal, octal, other = escape[1] or escape[2], escape[3], escape[4]
    if hexadecimal:
        return chr(int(hexadecimal, 16))
    return chr(int(octal, 8)) if octal else _CONTROLS.get(other, other)
