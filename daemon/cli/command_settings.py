"""The settings that single commands read: `retry`, `stage` and `status`."""

from __future__ import annotations

from daemon.settings import BucketSettings, FirestoreSettings, PubsubSettings
from daemon.settings.base import seconds


class RetrySettings(FirestoreSettings):
    """The settings of `retry`."""


class RetrySettingsWithBucket(RetrySettings, BucketSettings):
    """The same with --keep-charts."""


class StageSettings(PubsubSettings, BucketSettings, FirestoreSettings):
    """The names of the resources that `stage` makes."""


class StatusSettings(FirestoreSettings):
    """The settings of `status`. The grace period is only shown, so it has no default here."""

    unleased_grace_seconds: float | None = seconds(None, 0, 604800)


class StatusSettingsWithBucket(StatusSettings, BucketSettings):
    """The same where CHARTS_BUCKET is set."""
