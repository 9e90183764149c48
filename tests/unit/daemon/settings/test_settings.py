"""The settings: every error at once, each with its variable, and secrets never shown."""

from __future__ import annotations

import json
import re

import pytest

from daemon.settings import (
    ChartsApiMode,
    LogFormat,
    PubsubSettings,
    Settings,
    SettingsError,
    effective_settings,
    load_settings,
)

KEY = "s3cret-key-123"
ACCOUNTS = json.dumps([{"id": "acc-1", "apiKey": KEY}, {"id": "acc-2", "apiKey": "other"}])
GOOD = {
    "GOOGLE_CLOUD_PROJECT": "demo-project",
    "PUBSUB_SUBSCRIPTION": "charts-sub",
    "CHARTS_BUCKET": "gs://charts-demo",
    "CHARTS_API_MODE": "local",
}
NAMES = [name.upper() for name in Settings.model_fields]


@pytest.fixture
def load(monkeypatch):
    """Load the settings from a good environment with changes; None removes a variable."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)

    def loaded(kind=Settings, **changes):
        for name, value in (GOOD | changes).items():
            if value is None:
                monkeypatch.delenv(name, raising=False)
            else:
                monkeypatch.setenv(name, value)
        return load_settings(kind)

    return loaded


def _problems(load, **changes):
    with pytest.raises(SettingsError) as caught:
        load(**changes)
    assert str(caught.value) == "\n".join(caught.value.problems)
    return caught.value.problems


def test_the_defaults_are_the_contract_s(load):
    """The defaults are those of section 11 of the contract."""
    settings = load()
    values = {name: str(getattr(settings, name)) for name in Settings.model_fields}
    assert values == values | {
        "firestore_db": "(default)",
        "chart_img_base_url": "https://api.chart-img.com",
        "charts_default_timezone": "Etc/UTC",
        "charts_max_png_bytes": "262144",
        "worker_concurrency": "8",
        "request_concurrency": "4",
        "step_timeout_seconds": "300.0",
        "not_ready_grace_seconds": "600.0",
        "drain_seconds": "25.0",
        "ack_extension_seconds": "60",
        "quarantine_topic": "None",
        "template_cache_seconds": "60.0",
        "health_host": "127.0.0.1",
        "health_port": "8080",
        "log_level": "INFO",
        "log_format": "json",
    }
    assert Settings.model_fields["charts_api_mode"].default is ChartsApiMode.REAL


@pytest.mark.parametrize("name", ["GOOGLE_CLOUD_PROJECT", "PUBSUB_SUBSCRIPTION", "CHARTS_BUCKET"])
@pytest.mark.parametrize("value", [None, ""])
def test_a_required_variable_that_is_missing_is_named(load, name, value):
    """A missing or empty required variable is named."""
    (problem,) = _problems(load, **{name: value})
    assert problem.startswith(f"{name}: expected ")
    assert problem.endswith("; required, got nothing")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GOOGLE_CLOUD_PROJECT", "Not A Project"),
        ("PUBSUB_SUBSCRIPTION", "ab"),
        ("PUBSUB_SUBSCRIPTION", "1abc"),
        ("PUBSUB_SUBSCRIPTION", "projects/p/topics/abc"),
        ("PUBSUB_SUBSCRIPTION", "projects/p/subscriptions/"),
        ("PUBSUB_SUBSCRIPTION", "projects/p/subscriptions/a/b"),
        ("QUARANTINE_TOPIC", "a b c"),
        ("QUARANTINE_TOPIC", "projects/p/subscriptions/abc"),
        ("QUARANTINE_SUBSCRIPTION", "projects/p/topics/abc"),
        ("CHARTS_BUCKET", "charts-demo"),
        ("CHARTS_BUCKET", "gs://"),
        ("CHARTS_BUCKET", "gs://charts-demo/folder"),
        ("CHARTS_BUCKET", "gs://Charts"),
        ("CHARTS_API_MODE", "REAL"),
        ("CHARTS_API_MODE", "fake"),
        ("CHARTS_FIXTURES_DIR", "/no/such/folder"),
        ("CHART_IMG_BASE_URL", "api.chart-img.com"),
        ("CHART_IMG_BASE_URL", "ftp://api.chart-img.com"),
        ("CHART_IMG_BASE_URL", "https://api.chart-img.com/v2"),
        ("CHART_IMG_BASE_URL", "http://host:port"),
        ("CHART_IMG_BASE_URL", "http://host:99999"),
        ("CHART_IMG_BASE_URL", "http://[::1"),
        ("CHART_IMG_BASE_URL", "http://:80"),
        ("CHARTS_DEFAULT_TIMEZONE", "Mars/Olympus"),
        ("CHARTS_DEFAULT_TIMEZONE", "../../etc/passwd"),
        ("CHARTS_DEFAULT_TIMEZONE", "Europe"),
        ("CHARTS_MAX_PNG_BYTES", "1023"),
        ("CHARTS_MAX_PNG_BYTES", "much"),
        ("WORKER_CONCURRENCY", "0"),
        ("WORKER_CONCURRENCY", "257"),
        ("WORKER_CONCURRENCY", "1.5"),
        ("REQUEST_CONCURRENCY", "-1"),
        ("STEP_TIMEOUT_SECONDS", "0"),
        ("STEP_TIMEOUT_SECONDS", "nan"),
        ("STEP_TIMEOUT_SECONDS", "inf"),
        ("STEP_TIMEOUT_SECONDS", "5m"),
        ("NOT_READY_GRACE_SECONDS", "-1"),
        ("DRAIN_SECONDS", "0"),
        ("ACK_EXTENSION_SECONDS", "9"),
        ("ACK_EXTENSION_SECONDS", "601"),
        ("TEMPLATE_CACHE_SECONDS", "-0.1"),
        ("HEALTH_PORT", "65536"),
        ("HEALTH_PORT", "http"),
        ("LOG_LEVEL", "LOUD"),
        ("LOG_FORMAT", "xml"),
        ("CHART_IMG_ACCOUNTS_FILE", "/no/such/file"),
        ("CHART_IMG_ACCOUNTS_FILE", "/etc"),
        ("CHART_IMG_ACCOUNTS_FILE", "/proc/self/mem"),  # an existing file that can't be read
    ],
)
def test_a_wrong_value_is_one_sentence_naming_its_variable(load, name, value):
    """A wrong value is reported in one sentence with its variable, the expected and the actual value."""
    (problem,) = _problems(load, **{name: value})
    assert problem.startswith(f"{name}: expected ")
    reason = r" \(.+\)" if name == "CHART_IMG_ACCOUNTS_FILE" else ""
    assert re.search(f", got {re.escape(repr(value))}{reason}$", problem)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CHART_IMG_BASE_URL", "https://user:password@host"),
        ("CHART_IMG_ACCOUNTS_FILE", '[{"id": "a", "apiKey": "password"}]'),
    ],
)
def test_a_secret_in_the_wrong_place_is_not_quoted(load, name, value):
    """A secret that was pasted into another variable is not quoted."""
    (problem,) = _problems(load, **{name: value})
    assert problem.startswith(f"{name}: expected ")
    assert ", got (hidden)" in problem
    assert "password" not in problem


def test_all_wrong_settings_are_reported_at_once(load):
    """All errors are reported at once."""
    problems = _problems(
        load, GOOGLE_CLOUD_PROJECT=None, CHARTS_BUCKET="x", WORKER_CONCURRENCY="0", LOG_LEVEL="LOUD"
    )
    named = {problem.partition(":")[0] for problem in problems}
    assert named == {"GOOGLE_CLOUD_PROJECT", "CHARTS_BUCKET", "WORKER_CONCURRENCY", "LOG_LEVEL"}


@pytest.mark.parametrize(
    ("name", "value", "path"),
    [
        ("PUBSUB_SUBSCRIPTION", "charts-sub", "projects/demo-project/subscriptions/charts-sub"),
        ("PUBSUB_SUBSCRIPTION", "projects/other/subscriptions/abc", "projects/other/subscriptions/abc"),
    ],
)
def test_a_subscription_is_an_id_or_a_path(load, name, value, path):
    """A subscription may be an id of the project or a path."""
    assert load(**{name: value}).subscription_path == path


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (None, None),
        ("bad", "projects/demo-project/topics/bad"),
        ("projects/o/topics/bad", "projects/o/topics/bad"),
    ],
)
def test_a_quarantine_topic_is_an_id_a_path_or_none(load, value, path):
    """A quarantine topic may be an id, a path or missing."""
    assert load(QUARANTINE_TOPIC=value).quarantine_topic_path == path


@pytest.mark.parametrize(
    ("topic", "subscription", "path"),
    [
        (None, None, None),
        ("bad", None, "projects/demo-project/subscriptions/bad"),
        ("projects/o/topics/bad", None, "projects/demo-project/subscriptions/bad"),
        ("bad", "read-me", "projects/demo-project/subscriptions/read-me"),
        (None, "projects/o/subscriptions/read-me", "projects/o/subscriptions/read-me"),
    ],
)
def test_the_quarantine_subscription_has_the_topic_s_id_by_default(load, topic, subscription, path):
    """The subscription of the quarantine is named, or has the id of the topic."""
    loaded = load(QUARANTINE_TOPIC=topic, QUARANTINE_SUBSCRIPTION=subscription)
    assert loaded.quarantine_subscription_path == path


def test_the_bucket_s_name_is_without_its_scheme(load):
    """The bucket's name has no scheme, as the client needs it."""
    assert load().bucket_name == "charts-demo"


def test_a_message_is_leased_longer_than_a_step_can_take(load):
    """A message is leased for the step's time, the drain and a minute."""
    settings = load(STEP_TIMEOUT_SECONDS="100", DRAIN_SECONDS="10")
    assert settings.max_lease_seconds == settings.lease_terms.max_work_seconds == 170


@pytest.mark.parametrize("level", ["debug", "Warning", "CRITICAL"])
def test_the_log_level_s_case_does_not_matter(load, level):
    """The log level is case-insensitive."""
    assert load(LOG_LEVEL=level).log_level == level.upper()


def test_the_log_format(load):
    """The log format may be set to `console`."""
    assert load(LOG_FORMAT="console").log_format is LogFormat.CONSOLE


def test_overrides_win_over_the_environment(load, monkeypatch):
    """Overrides replace the environment; None is no override."""
    load()
    monkeypatch.setenv("WORKER_CONCURRENCY", "3")
    settings = load_settings(Settings, worker_concurrency=5, request_concurrency=None)
    assert (settings.worker_concurrency, settings.request_concurrency) == (5, 4)


def test_a_command_needs_only_its_own_settings(load):
    """A command loads only the settings that it needs: `publish` needs no bucket."""
    assert load(PubsubSettings, CHARTS_BUCKET=None, CHARTS_API_MODE=None).pubsub_subscription == "charts-sub"


class TestModes:
    """The settings that each mode needs."""

    def test_mock_needs_fixtures(self, load):
        """`mock` mode without fixtures is refused by the variable's name."""
        (problem,) = _problems(load, CHARTS_API_MODE="mock")
        assert problem.startswith(
            "CHARTS_FIXTURES_DIR: expected an existing folder; required with CHARTS_API_MODE=mock"
        )

    def test_a_folder_whose_name_is_too_long_is_refused(self, load, tmp_path):
        """A folder that can't even be looked for is a wrong setting, not an internal error."""
        (problem,) = _problems(load, CHARTS_FIXTURES_DIR=str(tmp_path / ("x" * 300)))
        assert problem.startswith("CHARTS_FIXTURES_DIR: expected an existing folder")

    def test_mock_accepts_a_folder(self, load, tmp_path):
        """`mock` mode accepts an existing folder."""
        assert load(CHARTS_API_MODE="mock", CHARTS_FIXTURES_DIR=str(tmp_path)).charts_fixtures_dir == tmp_path

    @pytest.mark.parametrize("mode", ["real", "record", None])
    def test_some_modes_need_accounts(self, load, tmp_path, mode):
        """`real` mode, the default, and `record` mode need accounts."""
        (problem,) = _problems(load, CHARTS_API_MODE=mode, CHARTS_FIXTURES_DIR=str(tmp_path))
        assert problem.startswith("CHART_IMG_ACCOUNTS_JSON: expected a JSON array")

    def test_record_needs_fixtures_too(self, load):
        """`record` mode needs a folder for fixtures."""
        (problem,) = _problems(load, CHARTS_API_MODE="record", CHART_IMG_ACCOUNTS_JSON=ACCOUNTS)
        assert problem.startswith("CHARTS_FIXTURES_DIR: expected an existing folder; required with")

    @pytest.mark.parametrize("name", ["ENV", "TDA_ENV"])
    @pytest.mark.parametrize("value", ["prod", "PROD"])
    def test_record_is_refused_in_production(self, load, tmp_path, name, value):
        """Only `record` mode is refused in production."""
        given = {"CHARTS_FIXTURES_DIR": str(tmp_path), "CHART_IMG_ACCOUNTS_JSON": ACCOUNTS, name: value}
        (problem,) = _problems(load, CHARTS_API_MODE="record", **given)
        assert problem.startswith("CHARTS_API_MODE: expected real, local, mock or (but not where ENV or")
        for mode in ("real", "mock", "local"):
            assert load(CHARTS_API_MODE=mode, **given).charts_api_mode == mode

    @pytest.mark.parametrize("value", ["dev", "staging", ""])
    def test_record_is_accepted_elsewhere(self, load, tmp_path, value):
        """`record` mode is accepted outside production."""
        given = {"CHARTS_FIXTURES_DIR": str(tmp_path), "CHART_IMG_ACCOUNTS_JSON": ACCOUNTS}
        assert load(CHARTS_API_MODE="record", ENV=value, TDA_ENV=value, **given).charts_api_mode == "record"

    def test_the_fallback_is_none_or_local(self, load):
        """The fallback is `none`, the default, or `local`."""
        assert load().charts_fallback == "none"
        assert load(CHARTS_FALLBACK="local").charts_fallback == "local"
        (problem,) = _problems(load, CHARTS_FALLBACK="mock")
        assert problem == "CHARTS_FALLBACK: expected none or local, got 'mock'"


class TestShown:
    """The output of `daemon --check`."""

    def test_every_setting_is_shown(self, load):
        """Every setting is shown as text, an unset one as empty."""
        shown = effective_settings(load())
        assert set(shown) == set(NAMES)
        assert (shown["QUARANTINE_TOPIC"], shown["WORKER_CONCURRENCY"], shown["CHARTS_API_MODE"]) == (
            "",
            "8",
            "local",
        )
