"""The settings of the export itself: what a step needs, whoever works it."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pydantic import Field, SecretStr, ValidationInfo, field_validator

from daemon.settings.accounts import (
    ACCOUNTS_EXPECTED,
    AccountSettings,
    parse_accounts,
    read_accounts_file,
)
from daemon.settings.base import (
    Environment,
    FirestoreSettings,
    ProjectSettings,
    SettingsError,
    count,
    matching,
    refused,
    seconds,
)

#: What production may be called, in any case.
PRODUCTION = frozenset({"prod", "production"})
BUCKET = re.compile(r"gs://(?P<name>[a-z0-9][a-z0-9._-]{1,220}[a-z0-9])")


class ChartsApiMode(StrEnum):
    """Where charts come from."""

    REAL = "real"
    RECORD = "record"
    MOCK = "mock"
    LOCAL = "local"


class ChartsFallback(StrEnum):
    """Where charts come from when no account is left."""

    NONE = "none"
    LOCAL = "local"


class ChartSettings(Environment):
    """Where charts come from. Fields checked against others stand below those."""

    env: Annotated[str, Field(description="the name of the environment")] = ""
    tda_env: Annotated[str, Field(description="the name of the environment")] = ""
    charts_api_mode: Annotated[
        ChartsApiMode, Field(description="real, local, mock or (but not where ENV or TDA_ENV is prod) record")
    ] = ChartsApiMode.REAL
    charts_fallback: Annotated[ChartsFallback, Field(description="none or local")] = ChartsFallback.NONE
    charts_fixtures_dir: Annotated[
        Path | None, Field(description="an existing folder; required with CHARTS_API_MODE=mock or record")
    ] = None
    chart_img_accounts_file: Annotated[
        Path | None, Field(description=f"a readable file holding {ACCOUNTS_EXPECTED}")
    ] = None
    chart_img_accounts_json: Annotated[
        SecretStr | None,
        Field(description=f"{ACCOUNTS_EXPECTED}; required with CHARTS_API_MODE=real or record"),
    ] = None
    chart_img_base_url: Annotated[
        str, Field(pattern=r"^https?://[^\s/]+/?$", description="http(s)://host[:port]")
    ] = "https://api.chart-img.com"

    @property
    def accounts(self) -> list[AccountSettings]:
        """The Chart-IMG accounts, in order of priority.

        Raises:
            SettingsError: There are none.
        """
        if self.chart_img_accounts_json is None:
            raise SettingsError(["CHART_IMG_ACCOUNTS_JSON: expected an account, got nothing"])
        return parse_accounts(self.chart_img_accounts_json.get_secret_value())

    @field_validator("chart_img_base_url")
    @classmethod
    def _check_base_url(cls, value: str) -> str:
        try:
            url = urlsplit(value)
            is_good = bool(url.hostname) and url.port != 0 and "@" not in url.netloc
        except ValueError as error:  # a port or an IPv6 address that is none
            raise refused() from error
        if not is_good:
            raise refused()
        return value

    @field_validator("charts_api_mode")
    @classmethod
    def _check_mode(cls, value: ChartsApiMode, info: ValidationInfo) -> ChartsApiMode:
        """Recording in production would put real answers where tests look for made ones."""
        names = {str(info.data.get(name, "")).strip().lower() for name in ("env", "tda_env")}
        if value is ChartsApiMode.RECORD and not names.isdisjoint(PRODUCTION):
            raise refused()
        return value

    @field_validator("charts_fixtures_dir")
    @classmethod
    def _check_fixtures(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        needed = info.data.get("charts_api_mode") in (ChartsApiMode.MOCK, ChartsApiMode.RECORD)
        if (value is None and needed) or (value is not None and not value.is_dir()):
            raise refused()
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
        if file is None and info.data.get("charts_api_mode") in (ChartsApiMode.REAL, ChartsApiMode.RECORD):
            raise refused()
        return None if file is None else SecretStr(read_accounts_file(file))


class BucketSettings(ProjectSettings):
    """What is needed to reach the charts."""

    charts_bucket: Annotated[str, Field(description="gs://<bucket name>")]

    @property
    def bucket_name(self) -> str:
        """The charts bucket's name without `gs://`."""
        return self.charts_bucket.removeprefix("gs://")

    @field_validator("charts_bucket")
    @classmethod
    def _check_bucket(cls, value: str) -> str:
        return matching(BUCKET, value)


class ExportSettings(ChartSettings, BucketSettings, FirestoreSettings):
    """What is needed to export a step."""

    charts_default_timezone: Annotated[str, Field(description="an IANA time zone, e.g. Europe/Berlin")] = (
        "Etc/UTC"
    )
    charts_max_png_bytes: int = count(262144, 1024, 16 * 1024 * 1024)
    worker_concurrency: int = count(8, 1, 256)
    request_concurrency: int = count(4, 1, 64)
    step_timeout_seconds: float = seconds(300, 1, 86400)
    lease_seconds: float = seconds(120, 2, 3600)
    clock_skew_seconds: float = seconds(5, 0, 300)
    max_attempts: int = count(5, 1, 100)
    unleased_grace_seconds: float = seconds(3600, 0, 604800)
    template_cache_seconds: float = seconds(60, 0, 86400)

    @field_validator("charts_default_timezone")
    @classmethod
    def _check_timezone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ValueError, OSError, KeyError) as error:  # an unknown zone is a KeyError
            raise refused() from error
        return value
