"""What all kinds of settings share: where they come from, and how a wrong one is refused."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, SettingsConfigDict

PROJECT = re.compile(r"[a-z0-9][a-z0-9.:-]{0,127}")


class SettingsError(Exception):
    """The settings are wrong; `problems` has one sentence for each that is."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def seconds(default: float | None, least: float, most: float) -> Any:
    """A field for a span of time."""
    return Field(default, ge=least, le=most, description=f"seconds from {least:g} to {most:g}")


def count(default: int, least: int, most: int) -> Any:
    """A field for a whole number."""
    return Field(default, ge=least, le=most, description=f"a whole number from {least} to {most}")


def matching(pattern: re.Pattern[str], value: str) -> str:
    """The value, if the whole of it is as the pattern says."""
    if pattern.fullmatch(value) is None:
        raise refused()
    return value


def refused() -> PydanticCustomError:
    """The field's description says what was expected."""
    return PydanticCustomError("refused", "not as expected")


class Environment(BaseSettings):
    """Settings that are read from the environment."""

    model_config = SettingsConfigDict(
        env_ignore_empty=True, frozen=True, extra="ignore", validate_default=True
    )


class ProjectSettings(Environment):
    """What everything on Google Cloud needs."""

    google_cloud_project: Annotated[str, Field(description="a Google Cloud project id")]
    """The Google Cloud project of the subscription, the database and the bucket."""

    @field_validator("google_cloud_project")
    @classmethod
    def _check_project(cls, value: str) -> str:
        return matching(PROJECT, value)


class FirestoreSettings(ProjectSettings):
    """What is needed to read and write documents."""

    firestore_db: Annotated[str, Field(description="a Firestore database id", min_length=1)] = "(default)"
    """The Firestore database that holds runs, leases, templates and account usage."""
