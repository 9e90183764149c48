"""The parts that all settings models share: the base class, kinds of fields, and errors."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic_core import PydanticCustomError

PROJECT = re.compile(r"[a-z0-9][a-z0-9.:-]{0,127}")


class SettingsError(Exception):
    """Some settings are wrong; `problems` has one sentence for each of them."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def seconds(default: float | None, least: float, most: float) -> Any:
    """Define a field for a duration in seconds."""
    return Field(default, ge=least, le=most, description=f"seconds from {least:g} to {most:g}")


def count(default: int, least: int, most: int) -> Any:
    """Define a field for a whole number."""
    return Field(default, ge=least, le=most, description=f"a whole number from {least} to {most}")


def matching(pattern: re.Pattern[str], value: str) -> str:
    """Return the value if all of it matches the pattern, or raise the error of a wrong setting."""
    if pattern.fullmatch(value) is None:
        raise refused()
    return value


def refused() -> PydanticCustomError:
    """Create the error of a wrong setting. It quotes the field's description as the expected value."""
    return PydanticCustomError("refused", "not as expected")


class Environment(BaseModel):
    """Base of all settings that are read from environment variables."""

    # A process uses few of the models, so the check of each is built with its first use.
    model_config = ConfigDict(frozen=True, validate_default=True, defer_build=True)


class ProjectSettings(Environment):
    """The Google Cloud project."""

    google_cloud_project: Annotated[str, Field(description="a Google Cloud project id")]
    """The Google Cloud project of the subscription, the database and the bucket."""

    @field_validator("google_cloud_project")
    @classmethod
    def _check_project(cls, value: str) -> str:
        return matching(PROJECT, value)


class FirestoreSettings(ProjectSettings):
    """The Firestore database."""

    firestore_db: Annotated[str, Field(description="a Firestore database id", min_length=1)] = "(default)"
    """The Firestore database that holds runs, leases, templates and account usage."""
