"""The settings of the export: where charts come from, where they go, leases and limits of a step."""

from __future__ import annotations

import re
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pydantic import Field, SecretStr, ValidationInfo, field_validator

from daemon.settings.accounts import (
    ACCOUNTS_EXPECTED,
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
from daemon.settings.cores import available_cores
from worker_chart_export.charts.modes import ChartsApiMode
from worker_chart_export.ledger.lease import LeaseTerms

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker_chart_export.charts.chart_img.accounts import Account

#: The defaults of leases are defined in the domain.
_TERMS = LeaseTerms()
#: The time for the claim and the finalize of a step, beside that for its charts.
LEDGER_RESERVE_SECONDS = 60.0
#: The names of the production environment, in any case.
PRODUCTION = frozenset({"prod", "production"})
BUCKET = re.compile(r"gs://(?P<name>[a-z0-9][a-z0-9._-]{1,220}[a-z0-9])")


class ChartsFallback(StrEnum):
    """The provider that is used when no account is left."""

    NONE = "none"
    LOCAL = "local"


class ChartsWhenExhausted(StrEnum):
    """What happens to charts while no account is left."""

    FAIL = "fail"
    WAIT = "wait"


class ChartSettings(Environment):
    """The settings of chart providers. A field that is checked against others comes after them."""

    env: Annotated[str, Field(description="the name of the environment")] = ""
    """The name of the environment. `prod` and `production` forbid `CHARTS_API_MODE=record`."""
    tda_env: Annotated[str, Field(description="the name of the environment")] = ""
    """The same as `ENV`, under the name that other services use."""
    charts_api_mode: Annotated[
        ChartsApiMode, Field(description="real, local, mock or (but not where ENV or TDA_ENV is prod) record")
    ] = ChartsApiMode.REAL
    """Where charts come from: `real` calls Chart-IMG, `local` draws from price candles, `mock` reads
    fixtures, `record` reads fixtures and buys and saves the missing ones.
    """
    charts_fallback: Annotated[ChartsFallback, Field(description="none or local")] = ChartsFallback.NONE
    """`local` draws a chart with the local renderer when no Chart-IMG account can make it."""
    charts_when_exhausted: Annotated[ChartsWhenExhausted, Field(description="fail or wait")] = (
        ChartsWhenExhausted.FAIL
    )
    """What happens while each Chart-IMG account is used up or refused: charts `fail`, or steps `wait` until
    the day (UTC) ends, a limit is raised or a key is accepted. With `CHARTS_FALLBACK=local` nothing waits.
    """
    charts_fixtures_dir: Annotated[
        Path | None, Field(description="an existing folder; required with CHARTS_API_MODE=mock or record")
    ] = None
    """The folder of fixtures, named `<SYMBOL with : as _>__<timeframe>__<chartTemplateId>.png`."""
    chart_img_accounts_file: Annotated[
        Path | None, Field(description=f"a readable file holding {ACCOUNTS_EXPECTED}")
    ] = None
    """A file with the accounts, in the format of `CHART_IMG_ACCOUNTS_JSON`. Safer than the variable, because
    other processes can see variables.
    """
    chart_img_accounts_json: Annotated[
        SecretStr | None,
        Field(description=f"{ACCOUNTS_EXPECTED}; required with CHARTS_API_MODE=real or record"),
    ] = None
    """The Chart-IMG accounts, in order of priority. If it is set, `CHART_IMG_ACCOUNTS_FILE` is not used."""
    chart_img_base_url: Annotated[
        str, Field(pattern=r"^https?://[^\s/]+/?$", description="http(s)://host[:port]")
    ] = "https://api.chart-img.com"
    """The address of the Chart-IMG API. The key is sent there."""

    @property
    def accounts(self) -> list[Account]:
        """The Chart-IMG accounts, in order of priority.

        Raises:
            SettingsError: No account is set.
        """
        if self.chart_img_accounts_json is None:
            raise SettingsError(["CHART_IMG_ACCOUNTS_JSON: expected an account, got nothing"])
        return parse_accounts(self.chart_img_accounts_json.get_secret_value())

    @property
    def read_accounts_again(self) -> Callable[[], list[Account]] | None:
        """A function that reads the accounts again, as `parse_accounts`; None if they are not in a file."""
        file = self.chart_img_accounts_file
        if file is None or self.accounts_variable != "CHART_IMG_ACCOUNTS_FILE":
            return None
        return lambda: parse_accounts(read_accounts_file(file))

    @property
    def accounts_variable(self) -> str:
        """The name of the variable that gave the accounts, for advice on how to correct them."""
        is_json = "chart_img_accounts_json" in self.model_fields_set
        return "CHART_IMG_ACCOUNTS_JSON" if is_json else "CHART_IMG_ACCOUNTS_FILE"

    @field_validator("chart_img_base_url")
    @classmethod
    def _check_base_url(cls, value: str) -> str:
        try:
            url = urlsplit(value)
            is_good = bool(url.hostname) and url.port != 0 and "@" not in url.netloc
        except ValueError as error:  # an invalid port or IPv6 address
            raise refused() from error
        if not is_good:
            raise refused()
        return value

    @field_validator("charts_api_mode")
    @classmethod
    def _check_mode(cls, value: ChartsApiMode, info: ValidationInfo) -> ChartsApiMode:
        """Refuse to record in production: it would store real answers among the fixtures of tests."""
        names = {str(info.data.get(name, "")).strip().lower() for name in ("env", "tda_env")}
        if value is ChartsApiMode.RECORD and not names.isdisjoint(PRODUCTION):
            raise refused()
        return value

    @field_validator("charts_fixtures_dir")
    @classmethod
    def _check_fixtures(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        needed = info.data.get("charts_api_mode") in (ChartsApiMode.MOCK, ChartsApiMode.RECORD)
        try:
            is_usable = value.is_dir() if value is not None else not needed
        except OSError as error:  # a name that is too long, a folder that may not be searched
            raise refused() from error
        if not is_usable:
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
        """Use the variable, or else the content of the file; both are checked in the same way."""
        if value is not None:
            parse_accounts(value.get_secret_value())
            return value
        if "chart_img_accounts_file" not in info.data:
            return None  # the file setting is wrong, and has its own error
        file = info.data["chart_img_accounts_file"]
        if file is None and info.data.get("charts_api_mode") in (ChartsApiMode.REAL, ChartsApiMode.RECORD):
            raise refused()
        return None if file is None else SecretStr(read_accounts_file(file))


class BucketSettings(ProjectSettings):
    """The settings of the bucket for charts."""

    charts_bucket: Annotated[str, Field(description="gs://<bucket name>")]
    """The bucket for charts and manifests."""

    @property
    def bucket_name(self) -> str:
        """The charts bucket's name without `gs://`."""
        return self.charts_bucket.removeprefix("gs://")

    @field_validator("charts_bucket")
    @classmethod
    def _check_bucket(cls, value: str) -> str:
        return matching(BUCKET, value)


class LeaseSettings(Environment):
    """The settings of leases."""

    lease_seconds: float = seconds(_TERMS.lease_seconds, 2, 3600)
    """How long a lease is valid after its last renewal. It is renewed three times in this time."""
    clock_skew_seconds: float = seconds(_TERMS.clock_skew_seconds, 0, 300)
    """An expired lease may be taken over only after this extra time, unless it was released."""
    max_attempts: int = count(_TERMS.max_attempts, 1, 100)
    """A step fails with `CRASH_LOOP` after this many attempts without a result. Attempts that ended because a
    worker stopped or a backend was unavailable don't count.
    """
    unleased_grace_seconds: float = seconds(_TERMS.unleased_grace_seconds, 0, 604800)
    """How long a step may be RUNNING without a lease before a worker takes it over. 0 means forever."""

    @property
    def lease_terms(self) -> LeaseTerms:
        """The same, as the ledger needs them."""
        return LeaseTerms(
            lease_seconds=self.lease_seconds,
            clock_skew_seconds=self.clock_skew_seconds,
            max_attempts=self.max_attempts,
            unleased_grace_seconds=self.unleased_grace_seconds,
        )


class ExportSettings(LeaseSettings, ChartSettings, BucketSettings, FirestoreSettings):
    """The settings for the export of a step."""

    charts_default_timezone: Annotated[str, Field(description="an IANA time zone, e.g. Europe/Berlin")] = (
        "Etc/UTC"
    )
    """The time zone of the charts."""
    charts_max_png_bytes: int = count(262144, 1024, 16 * 1024 * 1024)
    """A larger chart fails with `CHART_TOO_LARGE`."""
    worker_concurrency: int = count(8, 1, 256)
    """How many messages the daemon handles at the same time. Each has its own thread."""
    request_concurrency: int = count(4, 1, 64)
    """How many charts of one step are made at the same time."""
    render_processes: Annotated[int, Field(ge=0, le=64, description="a whole number from 0 to 64")] = Field(
        default_factory=available_cores, json_schema_extra={"default": "the cores there are"}
    )
    """How many processes draw charts with the local renderer. They are started when they are needed. 0 means
    that the worker draws in its own process: with less memory, on one core, and a crash of a drawing library
    ends the worker.
    """
    step_timeout_seconds: float = seconds(300, 1, 86400)
    """How long the charts of a step may take. Unfinished charts then fail with `STEP_TIMEOUT`, and
    `minImages` decides the status of the step.
    """
    template_cache_seconds: float = seconds(60, 0, 86400)
    """How long a chart template is kept in memory."""

    @property
    def max_lease_seconds(self) -> float:
        """How long the lease of a step is renewed: longer than any step can take."""
        return self.step_timeout_seconds + LEDGER_RESERVE_SECONDS

    @property
    def lease_terms(self) -> LeaseTerms:
        """The settings of leases, as the ledger needs them."""
        return replace(super().lease_terms, max_work_seconds=self.max_lease_seconds)

    @field_validator("charts_default_timezone")
    @classmethod
    def _check_timezone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ValueError, OSError, KeyError) as error:  # an unknown zone is a KeyError
            raise refused() from error
        return value
