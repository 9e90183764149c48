"""The emulators that the environment names; Google's clients use them in place of the real services."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Emulators:
    """The address of each emulator, or None for the real service."""

    pubsub: str | None
    firestore: str | None
    storage: str | None

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Self:
        """Read the variables that Google's clients read."""
        return cls(
            pubsub=environment.get("PUBSUB_EMULATOR_HOST") or None,
            firestore=environment.get("FIRESTORE_EMULATOR_HOST") or None,
            storage=environment.get("STORAGE_EMULATOR_HOST") or None,
        )

    @property
    def named(self) -> dict[str, str]:
        """The addresses of the emulators, by service."""
        places = {"pubsub": self.pubsub, "firestore": self.firestore, "storage": self.storage}
        return {name: place for name, place in places.items() if place}

    @property
    def are_all(self) -> bool:
        """True if no real service is used."""
        return None not in (self.pubsub, self.firestore, self.storage)
