"""Names of variables that are nearly those of settings."""

from __future__ import annotations

import pytest

from daemon.settings import Settings, misspelt_settings

FOREIGN = (
    *(
        "PATH",
        "HOME",
        "HOSTNAME",
        "USER",
        "LANG",
        "PORT",
        "HOST",
        "ENVIRONMENT",
        "ENVS",
        "PYTHONPATH",
        "K_SERVICE",
    ),
    *("GCLOUD_PROJECT", "GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_CLOUD_QUOTA_PROJECT", "GRPC_VERBOSITY"),
    *("KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT", "HEALTH_SERVICE_PORT", "HEALTH_PORT_8080_TCP"),
    *(
        "OTEL_LOGS_EXPORTER",
        "OTEL_METRICS_EXPORTER",
        "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
        "OTEL_SERVICE_NAME",
    ),
    *(
        "HTTPS_PROXY",
        "NO_PROXY",
        "NOTIFY_SOCKET",
        "WATCHDOG_USEC",
        "SPANNER_EMULATOR_HOST",
        "DATASTORE_EMULATOR_HOST",
        "FIRESTORE_HOST",
    ),
)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("WORKER_CONCURENCY", "WORKER_CONCURRENCY"),
        ("WORKER-CONCURRENCY", "WORKER_CONCURRENCY"),
        ("LOGLEVEL", "LOG_LEVEL"),
        ("charts_buckets", "CHARTS_BUCKET"),
        ("CHART_API_MODE", "CHARTS_API_MODE"),
        ("STEP_TIMEOUT", "STEP_TIMEOUT_SECONDS"),
        ("CHART_IMG_ACOUNTS_JSON", "CHART_IMG_ACCOUNTS_JSON"),
        ("CHARTS_MAX_PNG", "CHARTS_MAX_PNG_BYTES"),
        ("CHARTS_MODE", "CHARTS_API_MODE"),
        ("GOOGLE_PROJECT", "GOOGLE_CLOUD_PROJECT"),
        ("FIRESTORE_EMULATOR_HOSTS", "FIRESTORE_EMULATOR_HOST"),
    ],
)
def test_a_near_name_is_found(name, meant):
    """A name with a wrong letter, or without its unit, is named with the setting that was probably meant."""
    (text,) = misspelt_settings({name: "s3cret"})
    assert text == f"{name!r} is not a setting and has no effect; did you mean {meant}?"


@pytest.mark.parametrize("setting", [name for name in Settings.model_fields if not name.startswith("otel_")])
def test_a_lost_letter_is_found_in_every_setting(setting):
    """One lost letter is found in each setting, except in names too short to be compared."""
    name = setting.upper()
    is_short = name in {"ENV", "TDA_ENV"}
    assert bool(misspelt_settings({name[:3] + name[4:]: "x"})) is not is_short


def test_settings_and_foreign_variables_are_no_finding():
    """Settings in any case and the variables of other programs are not warned about."""
    assert misspelt_settings(dict.fromkeys(Settings.model_fields, "x")) == []
    assert misspelt_settings({name.upper(): "x" for name in Settings.model_fields}) == []
    assert misspelt_settings(dict.fromkeys(FOREIGN, "x")) == []
