"""The settings, from the environment; every error at once, each naming its variable.

A field's name in lower case is its variable's name; its description is what the error says was expected.
"""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, SettingsConfigDict

from daemon.chart_img_accounts import ACCOUNTS_EXPECTED, parse_accounts, read_accounts_file
from worker_chart_export.errors import shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic_core import ErrorDetails

PROJECT = re.compile(r"[a-z0-9][a-z0-9.:-]{0,127}")
PUBSUB_ID = re.compile(r"[A-Za-z][A-Za-z0-9._~+%-]{2,254}")
BUCKET = re.compile(r"gs://(?P<name>[a-z0-9][a-z0-9._-]{1,220}[a-z0-9])")
#: Never shown, not even when wrong.
SECRETS = frozenset({"chart_img_accounts_json"})


class ChartsApiMode(StrEnum):
    """Where charts come from."""

    REAL = "real"
    MOCK = "mock"
    LOCAL = "local"


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


class SettingsError(Exception):
    """The settings are wrong; `problems` has one sentence for each that is."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def _seconds(default: float, least: float, most: float) -> Any:
    return Field(default, ge=least, le=most, description=f"seconds from {least:g} to {most:g}")


def _count(default: int, least: int, most: int) -> Any:
    return Field(default, ge=least, le=most, description=f"a whole number from {least} to {most}")


class _Environment(BaseSettings):
    model_config = SettingsConfigDict(
        env_ignore_empty=True, frozen=True, extra="ignore", validate_default=True
    )

    google_cloud_project: Annotated[str, Field(description="a Google Cloud project id")]

    @field_validator("google_cloud_project")
    @classmethod
    def _check_project(cls, value: str) -> str:
        return _matching(PROJECT, value)


class PubsubSettings(_Environment):
    """What is needed to reach the subscription."""

    pubsub_subscription: Annotated[
        str, Field(description="a subscription id or projects/<project>/subscriptions/<id>")
    ]
    quarantine_topic: Annotated[
        str | None, Field(description="a topic id or projects/<project>/topics/<id>")
    ] = None

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
            _matching(PROJECT, project)
            _matching(PUBSUB_ID, name)
            return value
        return None if value is None else _matching(PUBSUB_ID, value)


class ExportSettings(_Environment):
    """What is needed to export a step. Fields checked against others stand below those."""

    firestore_db: Annotated[str, Field(description="a Firestore database id", min_length=1)] = "(default)"
    charts_bucket: Annotated[str, Field(description="gs://<bucket name>")]
    charts_api_mode: Annotated[ChartsApiMode, Field(description="real, mock or local")] = ChartsApiMode.REAL
    charts_fixtures_dir: Annotated[
        Path | None, Field(description="an existing folder; required with CHARTS_API_MODE=mock")
    ] = None
    chart_img_accounts_file: Annotated[
        Path | None, Field(description=f"a readable file holding {ACCOUNTS_EXPECTED}")
    ] = None
    chart_img_accounts_json: Annotated[
        SecretStr | None, Field(description=f"{ACCOUNTS_EXPECTED}; required with CHARTS_API_MODE=real")
    ] = None
    chart_img_base_url: Annotated[
        str, Field(pattern=r"^https?://[^\s/]+/?$", description="http(s)://host[:port]")
    ] = "https://api.chart-img.com"
    charts_default_timezone: Annotated[str, Field(description="an IANA time zone, e.g. Europe/Berlin")] = (
        "Etc/UTC"
    )
    charts_max_png_bytes: int = _count(262144, 1024, 16 * 1024 * 1024)
    worker_concurrency: int = _count(8, 1, 256)
    request_concurrency: int = _count(4, 1, 64)
    step_timeout_seconds: float = _seconds(300, 1, 86400)
    lease_seconds: float = _seconds(120, 2, 3600)
    clock_skew_seconds: float = _seconds(5, 0, 300)
    max_attempts: int = _count(5, 1, 100)
    unleased_grace_seconds: float = _seconds(3600, 0, 604800)
    template_cache_seconds: float = _seconds(60, 0, 86400)

    @property
    def bucket_name(self) -> str:
        """The charts bucket's name without `gs://`."""
        return self.charts_bucket.removeprefix("gs://")

    @property
    def first_account(self) -> tuple[str, str]:
        """Id and key of the first Chart-IMG account.

        Raises:
            SettingsError: There is none.
        """
        if self.chart_img_accounts_json is None:
            raise SettingsError(["CHART_IMG_ACCOUNTS_JSON: expected an account, got nothing"])
        return parse_accounts(self.chart_img_accounts_json.get_secret_value())[0]

    @field_validator("charts_bucket")
    @classmethod
    def _check_bucket(cls, value: str) -> str:
        return _matching(BUCKET, value)

    @field_validator("chart_img_base_url")
    @classmethod
    def _check_base_url(cls, value: str) -> str:
        try:
            host_is_there = bool(urlsplit(value).hostname) and urlsplit(value).port != 0
        except ValueError as error:  # a port or an IPv6 address that is none
            raise _refused() from error
        if not host_is_there:
            raise _refused()
        return value

    @field_validator("charts_default_timezone")
    @classmethod
    def _check_timezone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ValueError, OSError, KeyError) as error:  # an unknown zone is a KeyError
            raise _refused() from error
        return value

    @field_validator("charts_fixtures_dir")
    @classmethod
    def _check_fixtures(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        needed = info.data.get("charts_api_mode") is ChartsApiMode.MOCK
        if (value is None and needed) or (value is not None and not value.is_dir()):
            raise _refused()
        return value

    @field_validator("chart_img_accounts_file")
    @classmethod
    def _check_accounts_file(cls, value: Path | None) -> Path | None:
        if value is not None:
            parse_accounts(read_accounts_file(value))
        return value

    @field_validator("chart_img_accounts_json")
    @classmethod
    def _check_accounts(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        """The variable, else the file's content; both are checked alike."""
        if value is not None:
            parse_accounts(value.get_secret_value())
            return value
        if "chart_img_accounts_file" not in info.data:
            return None  # it is wrong itself, and that is said already
        file = info.data["chart_img_accounts_file"]
        if file is None and info.data.get("charts_api_mode") is ChartsApiMode.REAL:
            raise _refused()
        return None if file is None else SecretStr(read_accounts_file(file))


class Settings(ExportSettings, PubsubSettings):
    """Everything the daemon is told from outside."""

    not_ready_grace_seconds: float = _seconds(600, 0, 604800)
    drain_seconds: float = _seconds(25, 1, 3600)
    rescue_interval_seconds: float = _seconds(60, 1, 86400)
    stream_idle_seconds: float = _seconds(600, 1, 86400)
    ack_extension_seconds: int = _count(60, 10, 600)
    health_host: Annotated[str, Field(description="an address to listen on", min_length=1)] = "127.0.0.1"
    health_port: int = _count(8080, 0, 65535)
    log_level: Annotated[LogLevel, Field(description=", ".join(LogLevel))] = LogLevel.INFO
    log_format: Annotated[LogFormat, Field(description="json or console")] = LogFormat.JSON

    @property
    def max_lease_seconds(self) -> float:
        """How long the Pub/Sub client keeps a message leased: longer than any step can take."""
        return self.step_timeout_seconds + self.drain_seconds + 60

    @field_validator("log_level", mode="before")
    @classmethod
    def _upper_case(cls, value: Any) -> Any:
        return value.upper() if isinstance(value, str) else value


S = TypeVar("S", bound=_Environment)


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


def _sentence(kind: type[_Environment], problem: ErrorDetails) -> str:
    name = str(problem["loc"][0])
    expected = kind.model_fields[name].description
    missing = problem["type"] == "missing" or problem["input"] is None
    got = "nothing" if missing else "(hidden)" if name in SECRETS else shown(str(problem["input"]))
    required = "; required" if problem["type"] == "missing" else ""
    return f"{name.upper()}: expected {expected}{required}, got {got}"


def _matching(pattern: re.Pattern[str], value: str) -> str:
    if pattern.fullmatch(value) is None:
        raise _refused()
    return value


def _refused() -> PydanticCustomError:
    """The field's description says what was expected."""
    return PydanticCustomError("refused", "not as expected")


def _full_path(project: str, kind: str, name: str) -> str:
    return name if name.startswith("projects/") else f"projects/{project}/{kind}/{name}"
