"""Decode the values of Firestore documents, also those that Google's client can't decode.

Its client refuses a reference into another database and every type that is newer than the client, and with it
the whole document. Other services may store such values beside the fields that a worker needs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from google.cloud.firestore_v1._helpers import decode_value

MAX_SHOWN_CHARS = 200
MISSING = object()
#: A vector has the fields `__type__` and `value`; the other types have fewer. Most maps have more.
MAX_SPECIAL_FIELDS = 2
#: Values of these types are the same in Python. Google's client needs four times as long for them.
PLAIN = frozenset({"string_value", "integer_value", "boolean_value", "double_value"})


@dataclass(frozen=True, slots=True, repr=False)
class Undecodable:
    """Stands for a value that can't be decoded. It equals no value that a worker expects.

    Attributes:
        kind: Its type in Firestore's protocol, e.g. `reference_value`, or `unknown type`.
        shown: What is known of its content, for messages.
    """

    kind: str
    shown: str = ""

    def __repr__(self) -> str:
        return f"<{self.kind}{self.shown and ' '}{self.shown}>"


def decoded(value: Any, client: Any) -> Any:
    """Decode a `Value` of the wire format. What can't be decoded in it becomes an `Undecodable`.

    Args:
        value: The value.
        client: The client that read it.
    """
    kind = value.WhichOneof("value_type")
    if kind in PLAIN:
        return getattr(value, kind)
    try:
        return decode_value(value, client)
    except Exception:  # noqa: BLE001 - the client's errors for such values have no common type
        return _decoded_apart(value, kind, client)


def _decoded_apart(value: Any, kind: str | None, client: Any) -> Any:
    """Decode each part of a value that can't be decoded as a whole."""
    if kind == "map_value" and not is_special(value):
        return {name: decoded(item, client) for name, item in value.map_value.fields.items()}
    if kind == "array_value":
        return [decoded(item, client) for item in value.array_value.values]
    if kind is None:
        return Undecodable("unknown type")
    shown = value.reference_value if kind == "reference_value" else ""
    return Undecodable(kind, shown[:MAX_SHOWN_CHARS])


def is_special(value: Any) -> bool:
    """Return whether a map on the wire stands for another type: vectors and the like have names with `__`."""
    fields = value.map_value.fields
    return len(fields) <= MAX_SPECIAL_FIELDS and any(name.startswith("__") for name in fields)


class LazyFields(Mapping[str, Any]):
    """The fields of a document, each decoded at its first use. Nested maps are lazy too.

    Args:
        values: Field name -> `Value` of the wire format. Never changed.
        client: The client that read them.
        depth: How many levels of maps are lazy. Three reach the fields of a run's step.
    """

    __slots__ = ("_client", "_decoded", "_depth", "_values")

    def __init__(self, values: Any, client: Any, *, depth: int = 3) -> None:
        self._values = values
        self._client = client
        self._depth = depth
        self._decoded: dict[object, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name in self._decoded:
            return self._decoded[name]
        if (found := self.get(name, MISSING)) is MISSING:
            raise KeyError(name)
        return found

    def get(self, name: object, default: Any = None) -> Any:
        """Return a field, or the default when there is none."""
        if name in self._decoded:
            return self._decoded[name]
        try:
            value = self._values.get(name)  # unlike `[name]` it adds no entry to a map of the wire format
        except (TypeError, UnicodeEncodeError):  # what is no UTF-8 text is no field's name
            return default
        if value is None:
            return default
        kind, field = value.WhichOneof("value_type"), None
        if kind in PLAIN:
            field = getattr(value, kind)
        elif kind == "map_value" and self._depth > 1 and not is_special(value):
            field = LazyFields(value.map_value.fields, self._client, depth=self._depth - 1)
        else:
            field = decoded(value, self._client)
        self._decoded[name] = field
        return field

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, name: object) -> bool:
        return self.get(name, MISSING) is not MISSING

    def __repr__(self) -> str:
        return repr(dict(self))

    def to_dict(self) -> dict[str, Any]:
        """Decode everything. Nested maps are plain ones."""
        return {name: decoded(value, self._client) for name, value in self._values.items()}
