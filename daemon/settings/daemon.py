"""The settings of the daemon, and those of Pub/Sub that some commands share with it."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field, ValidationInfo, field_validator

from daemon.settings.base import PROJECT, ProjectSettings, count, matching, seconds
from daemon.settings.export import ExportSettings
from daemon.settings.tracing import TracingSwitch

PUBSUB_ID = re.compile(r"[A-Za-z][A-Za-z0-9._~+%-]{2,254}")


class LogFormat(StrEnum):
    """The format of log lines."""

    JSON = "json"
    CONSOLE = "console"


class LogLevel(StrEnum):
    """The lowest level of log lines that are written."""

    DEBUG = "DEBUG"
    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"
    CRITICAL = "CRITICAL"


class PubsubSettings(ProjectSettings):
    """The settings of the Pub/Sub subscription and the quarantine."""

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
    quarantine_subscription: Annotated[
        str | None, Field(description="a subscription id or projects/<project>/subscriptions/<id>")
    ] = None
    """The subscription of the quarantine topic, for the command `quarantine`. Default: the topic's id."""

    @property
    def subscription_path(self) -> str:
        """The subscription's full path."""
        return self.path_of_subscription(self.pubsub_subscription)

    @property
    def quarantine_topic_path(self) -> str | None:
        """The quarantine topic's full path, if there is one."""
        topic = self.quarantine_topic
        return None if topic is None else _full_path(self.google_cloud_project, "topics", topic)

    @property
    def quarantine_subscription_path(self) -> str | None:
        """The full path of the quarantine's subscription; None without it and without a quarantine topic."""
        name = self.quarantine_subscription or (self.quarantine_topic or "").rpartition("/")[2]
        return self.path_of_subscription(name) if name else None

    def path_of_subscription(self, name: str) -> str:
        """Return the full path of a subscription. An id alone means one of `GOOGLE_CLOUD_PROJECT`."""
        return _full_path(self.google_cloud_project, "subscriptions", name)

    @field_validator("pubsub_subscription", "quarantine_topic", "quarantine_subscription")
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
    """All settings of the daemon."""

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
    """`json` for Google Cloud Logging, or `console` for people: shorter lines, with colours on a terminal.
    `NO_COLOR=1` switches colours off, and `FORCE_COLOR=1` on.
    """

    @property
    def max_lease_seconds(self) -> float:
        """How long the lease of a step and that of its message are renewed: longer than any step can take."""
        return super().max_lease_seconds + self.drain_seconds

    @field_validator("log_level", mode="before")
    @classmethod
    def _upper_case(cls, value: Any) -> Any:
        return value.upper() if isinstance(value, str) else value


def _full_path(project: str, kind: str, name: str) -> str:
    return name if name.startswith("projects/") else f"projects/{project}/{kind}/{name}"
