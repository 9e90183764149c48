"""The settings: one model for each kind, read from environment variables and validated.

Every default is defined only in these models. A message that names a default reads it from the model:
`Settings.model_fields["drain_seconds"].default`.
"""

from __future__ import annotations

from daemon.settings.base import PROJECT, Environment, FirestoreSettings, ProjectSettings, SettingsError
from daemon.settings.daemon import PUBSUB_ID, LogFormat, LogLevel, PubsubSettings, Settings
from daemon.settings.export import (
    BucketSettings,
    ChartSettings,
    ChartsFallback,
    ChartsWhenExhausted,
    ExportSettings,
    LeaseSettings,
)
from daemon.settings.loading import effective_settings, load_settings
from daemon.settings.spelling import misspelt_settings
from worker_chart_export.charts.modes import ChartsApiMode

__all__ = [
    "PROJECT",
    "PUBSUB_ID",
    "BucketSettings",
    "ChartSettings",
    "ChartsApiMode",
    "ChartsFallback",
    "ChartsWhenExhausted",
    "Environment",
    "ExportSettings",
    "FirestoreSettings",
    "LeaseSettings",
    "LogFormat",
    "LogLevel",
    "ProjectSettings",
    "PubsubSettings",
    "Settings",
    "SettingsError",
    "effective_settings",
    "load_settings",
    "misspelt_settings",
]
