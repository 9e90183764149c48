"""The settings of tracing: OpenTelemetry's own variables, by their standard names.

The SDK reads most of them by itself. They are checked here, because the SDK would replace a wrong value by
its default. Source: OpenTelemetry's specification, "Environment Variable Specification" and "OTLP Exporter
Configuration".
"""

from __future__ import annotations

import re
from enum import StrEnum
from importlib.util import find_spec
from typing import Annotated
from urllib.parse import unquote, urlsplit

from pydantic import Field, SecretStr, ValidationInfo, field_validator

from daemon.settings.base import Environment, refused

OTLP_PACKAGE = "opentelemetry-exporter-otlp-proto-http"
OTLP_MODULE = "opentelemetry.exporter.otlp.proto.http"
#: The headers of an export may hold a token.
TRACING_SECRETS = frozenset({"otel_exporter_otlp_headers", "otel_exporter_otlp_traces_headers"})
_HEADERS = "name=value pairs, parted by commas, the values percent-encoded"
_URL = "http(s)://host[:port][/path] without user, password, query and fragment"
_PROTOCOL = "http/protobuf: gRPC is not supported"
#: RFC 9110, section 5.6.2.
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
#: The encoded values that the SDK accepts: printable ASCII without `"`, `,`, `;` and backslash.
_RAW_VALUE = re.compile(r"[ !#-+\--:<-\[\]-~]*")
_PRINTABLE = re.compile(r"[ -~]*")
#: The defaults of the SDK.
_QUEUE_SIZE, _BATCH_SIZE = 2048, 512


class TracesExporter(StrEnum):
    """The exporters."""

    NONE = "none"
    OTLP = "otlp"
    CONSOLE = "console"


class TracesSampler(StrEnum):
    """The samplers of the SDK."""

    ALWAYS_ON = "always_on"
    ALWAYS_OFF = "always_off"
    TRACEIDRATIO = "traceidratio"
    PARENTBASED_ALWAYS_ON = "parentbased_always_on"
    PARENTBASED_ALWAYS_OFF = "parentbased_always_off"
    PARENTBASED_TRACEIDRATIO = "parentbased_traceidratio"


class TracingSwitch(Environment):
    """The settings that switch tracing on. The default is off."""

    otel_traces_exporter: Annotated[
        TracesExporter,
        Field(
            description="none, console, or otlp, which needs the package "
            f"{OTLP_PACKAGE} (pip install -r requirements.lock)"
        ),
    ] = TracesExporter.NONE
    """Where spans are sent: `none`, `otlp` (to a collector) or `console` (as log lines). The default of
    OpenTelemetry is `otlp`; here it is `none`.
    """
    otel_sdk_disabled: Annotated[bool, Field(description="true or false")] = False
    """`true` switches tracing off, whatever the other variables say."""

    @property
    def traces_go_to(self) -> TracesExporter:
        """The exporter; `none` if the SDK is switched off."""
        return TracesExporter.NONE if self.otel_sdk_disabled else self.otel_traces_exporter

    @field_validator("otel_traces_exporter")
    @classmethod
    def _check_exporter(cls, value: TracesExporter) -> TracesExporter:
        if value is TracesExporter.OTLP and not _is_installed():
            raise refused()
        return value


class TracingSettings(TracingSwitch):
    """The variables that the SDK and its exporter read once tracing is on. None = the default of the SDK."""

    otel_traces_sampler: Annotated[
        TracesSampler | None, Field(description="one of " + ", ".join(TracesSampler))
    ] = None
    """Which traces are recorded. Default of the SDK: `parentbased_always_on`, which follows the decision of
    the publisher.
    """
    otel_traces_sampler_arg: Annotated[float | None, Field(ge=0, le=1, description="a share from 0 to 1")] = (
        None
    )
    """The share of traces that a `traceidratio` sampler records."""
    otel_exporter_otlp_endpoint: Annotated[str | None, Field(description=_URL)] = None
    """The address of the collector; `/v1/traces` is appended. Default of the SDK: `http://localhost:4318`."""
    otel_exporter_otlp_traces_endpoint: Annotated[str | None, Field(description=_URL)] = None
    """The full address for spans; nothing is appended. It wins over `OTEL_EXPORTER_OTLP_ENDPOINT`."""
    otel_exporter_otlp_protocol: Annotated[
        str | None, Field(pattern="^http/protobuf$", description=_PROTOCOL)
    ] = None
    """The protocol of the exporter."""
    otel_exporter_otlp_traces_protocol: Annotated[
        str | None, Field(pattern="^http/protobuf$", description=_PROTOCOL)
    ] = None
    """The protocol of the exporter for spans."""
    otel_exporter_otlp_headers: Annotated[SecretStr | None, Field(description=_HEADERS)] = None
    """Headers of each export, for example `authorization=Bearer%20TOKEN`. Never shown."""
    otel_exporter_otlp_traces_headers: Annotated[SecretStr | None, Field(description=_HEADERS)] = None
    """Headers of each export of spans. Never shown."""
    otel_exporter_otlp_timeout: Annotated[float | None, Field(gt=0, description="seconds above 0")] = None
    """How long one export may take. Default of the SDK: 10."""
    otel_exporter_otlp_traces_timeout: Annotated[float | None, Field(gt=0, description="seconds above 0")] = (
        None
    )
    """How long one export of spans may take. Default of the SDK: 10."""
    otel_bsp_schedule_delay: Annotated[int | None, Field(ge=1, description="milliseconds from 1")] = None
    """How long spans are collected before an export. Default of the SDK: 5000."""
    otel_bsp_max_export_batch_size: Annotated[
        int | None, Field(ge=1, description="a whole number from 1")
    ] = None
    """How many spans one export holds at most. Default of the SDK: 512."""
    otel_bsp_max_queue_size: Annotated[
        int | None,
        Field(
            description=f"a whole number ({_QUEUE_SIZE} if not set), "
            f"at least OTEL_BSP_MAX_EXPORT_BATCH_SIZE ({_BATCH_SIZE} if not set)"
        ),
    ] = None
    """How many finished spans wait for an export at most. Default of the SDK: 2048."""

    @field_validator("otel_exporter_otlp_endpoint", "otel_exporter_otlp_traces_endpoint")
    @classmethod
    def _check_url(cls, value: str | None) -> str | None:
        if value is not None and not _is_endpoint(value):
            raise refused()
        return value

    @field_validator("otel_exporter_otlp_headers", "otel_exporter_otlp_traces_headers")
    @classmethod
    def _check_headers(cls, value: SecretStr | None) -> SecretStr | None:
        """Refuse a pair that the SDK can't read or send: it would log the pair, and a token with it."""
        pairs = [] if value is None else value.get_secret_value().split(",")
        if not all(_is_header(pair) for pair in pairs if pair.strip()):
            raise refused()
        return value

    @field_validator("otel_bsp_max_queue_size")
    @classmethod
    def _check_queue(cls, value: int | None, info: ValidationInfo) -> int | None:
        """Check that a batch fits into the queue; a wrong batch size has its own error."""
        batch = info.data.get("otel_bsp_max_export_batch_size", 1) or _BATCH_SIZE
        if (_QUEUE_SIZE if value is None else value) < batch:
            raise refused()
        return value


def _is_installed() -> bool:
    try:
        return find_spec(OTLP_MODULE) is not None
    except ModuleNotFoundError:  # a parent package is missing
        return False


def _is_header(pair: str) -> bool:
    name, equals, value = pair.partition("=")
    name = name.strip(" \t")
    return (
        equals == "="
        and all(_TOKEN.fullmatch(text) is not None for text in (name, unquote(name)))
        and _RAW_VALUE.fullmatch(value.strip(" \t")) is not None
        and _PRINTABLE.fullmatch(unquote(value)) is not None
    )


def _is_endpoint(value: str) -> bool:
    """Refuse a query, because it may hold a key and the exporter logs its URL."""
    try:
        url = urlsplit(value)
        is_bare = "@" not in url.netloc and set(value).isdisjoint("?#")
        return is_bare and url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:  # an invalid port or IPv6 address
        return False
