"""The settings, from the environment; every error at once, each naming its variable.

A field's name in lower case is its variable's name; its description is what the error says was expected.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from pydantic import Field, ValidationError, ValidationInfo, field_validator

from daemon.settings.accounts import AccountsRefused
from daemon.settings.base import (
    PROJECT,
    Environment,
    FirestoreSettings,
    ProjectSettings,
    SettingsError,
    count,
    matching,
    seconds,
)
from daemon.settings.export import (
    BucketSettings,
    ChartsApiMode,
    ChartSettings,
    ChartsFallback,
    ExportSettings,
)
from daemon.settings.tracing import TRACING_SECRETS, TracingSwitch
from worker_chart_export.errors import shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic_core import ErrorDetails

__all__ = [
    "PROJECT",
    "PUBSUB_ID",
    "BucketSettings",
    "ChartSettings",
    "ChartsApiMode",
    "ChartsFallback",
    "ExportSettings",
    "FirestoreSettings",
    "LogFormat",
    "LogLevel",
    "PubsubSettings",
    "Settings",
    "SettingsError",
    "effective_settings",
    "load_settings",
]

PUBSUB_ID = re.compile(r"[A-Za-z][A-Za-z0-9._~+%-]{2,254}")
#: Never shown, not even when wrong.
SECRETS = TRACING_SECRETS | {"chart_img_accounts_json"}


class LogFormat(StrEnum):
    """How log lines look."""

    JSON = "json"
    CONSOLE = "console"


class LogLevel(StrEnum):
    """The least severe lines that are written."""

    DEBUG = "DEBUG"
    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"
    CRITICAL = "CRITICAL"


class PubsubSettings(ProjectSettings):
    """What is needed to reach the subscription."""

    pubsub_subscription: Annotated[
        str, Field(description="a subscription id or projects/<project>/subscriptions/<id>")
    ]
    """The subscription that the daemon pulls."""
    quarantine_topic: Annotated[
        str | None, Field(description="a topic id or projects/<project>/topics/<id>")
    ] = None
    """The topic for rejected messages. Without it a rejected message goes to the dead-letter topic, or is
    logged in full.
    """

    @property
    def subscription_path(self) -> str:
        """The subscription's full path."""
        return _full_path(self.google_cloud_project, "subscriptions", self.pubsub_subscription)

    @property
    def quarantine_topic_path(self) -> str | None:
        """The quarantine topic's full path, if there is one."""
        topic = self.quarantine_topic
        return None if topic is None else _full_path(self.google_cloud_project, "topics", topic)

    @field_validator("pubsub_subscription", "quarantine_topic")
    @classmethod
    def _check_pubsub_name(cls, value: str | None, info: ValidationInfo) -> str | None:
        kind = "topics" if info.field_name == "quarantine_topic" else "subscriptions"
        if value is not None and value.startswith("projects/"):
            project, _, name = value.removeprefix("projects/").partition(f"/{kind}/")
            matching(PROJECT, project)
            matching(PUBSUB_ID, name)
            return value
        return None if value is None else matching(PUBSUB_ID, value)


class Settings(TracingSwitch, ExportSettings, PubsubSettings):
    """Everything the daemon is told from outside."""

    not_ready_grace_seconds: float = seconds(600, 0, 604800)
    """How long a message may wait for its step to become READY, counted from its publish time. After that it
    is rejected.
    """
    drain_seconds: float = seconds(25, 1, 3600)
    """How long the process may take from the first stop signal to its end."""
    rescue_interval_seconds: float = seconds(60, 1, 86400)
    """How often the daemon searches for expired leases. The actual pause varies around this value."""
    stream_idle_seconds: float = seconds(600, 1, 86400)
    """A stream that delivers no message for this long is closed and opened again."""
    ack_extension_seconds: int = count(60, 10, 600)
    """The length of one extension of a message's ack deadline."""
    health_host: Annotated[str, Field(description="an address to listen on", min_length=1)] = "127.0.0.1"
    """The address of the health server, which serves `/livez`, `/readyz`, `/metrics` and the live page."""
    health_port: int = count(8080, 0, 65535)
    """The port of the health server. 0 takes a free port."""
    log_level: Annotated[LogLevel, Field(description=", ".join(LogLevel))] = LogLevel.INFO
    """The lowest level of log lines that are written."""
    log_format: Annotated[LogFormat, Field(description="json or console")] = LogFormat.JSON
    """`json` for Google Cloud Logging, or `console` for people."""

    @property
    def max_lease_seconds(self) -> float:
        """How long the Pub/Sub client keeps a message leased: longer than any step can take."""
        return self.step_timeout_seconds + self.drain_seconds + 60

    @field_validator("log_level", mode="before")
    @classmethod
    def _upper_case(cls, value: Any) -> Any:
        return value.upper() if isinstance(value, str) else value


S = TypeVar("S", bound=Environment)


def load_settings(kind: type[S], **overrides: Any) -> S:
    """Read the settings of one kind from the environment; `overrides` (by field name) win over it.

    Raises:
        SettingsError: Lists every setting that is wrong.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        return kind(**given)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        raise SettingsError([_sentence(kind, problem) for problem in problems]) from None


def effective_settings(settings: Settings) -> Mapping[str, str]:
    """Variable -> value as text, secrets hidden."""
    shown_values = {name: getattr(settings, name) for name in Settings.model_fields}
    return {
        name.upper(): "(hidden)" if name in SECRETS and value is not None else _as_text(value)
        for name, value in shown_values.items()
    }


def _as_text(value: object) -> str:
    return "" if value is None else str(value)


def _sentence(kind: type[Environment], problem: ErrorDetails) -> str:
    name = str(problem["loc"][0])
    refused_accounts = problem.get("ctx", {}).get("error")
    if isinstance(refused_accounts, AccountsRefused):
        return f"{name.upper()}: {refused_accounts}"
    expected = kind.model_fields[name].description
    missing = problem["type"] == "missing" or problem["input"] is None
    got = "nothing" if missing else _harmless(name, str(problem["input"]))
    required = "; required" if problem["type"] == "missing" else ""
    return f"{name.upper()}: expected {expected}{required}, got {got}"


def _harmless(name: str, given: str) -> str:
    """What was given, unless a secret may be in it, on purpose or by mistake."""
    pasted = name == "chart_img_accounts_file" and not set(given).isdisjoint('[]{}"')
    # A password, or a key in a query; an unfinished URL too.
    url = name.endswith(("_url", "_endpoint")) and not set(given).isdisjoint("@?#")
    return "(hidden)" if name in SECRETS or pasted or url else shown(given)


def _full_path(project: str, kind: str, name: str) -> str:
    return name if name.startswith("projects/") else f"projects/{project}/{kind}/{name}"
