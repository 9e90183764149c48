"""The Chart-IMG accounts in the settings: checked as a whole, and never quoted."""

from __future__ import annotations

import json
import os
import re
import traceback

import pytest

from daemon.settings import Settings, SettingsError, effective_settings, load_settings

KEY = "s3cret-key-123"
ACCOUNTS = json.dumps([{"id": "acc-1", "apiKey": KEY}, {"id": "acc-2", "apiKey": "other"}])
ONE = {"id": "a", "apiKey": KEY}
GOOD = {
    "GOOGLE_CLOUD_PROJECT": "demo-project",
    "PUBSUB_SUBSCRIPTION": "charts-sub",
    "CHARTS_BUCKET": "gs://charts-demo",
    "CHARTS_API_MODE": "real",
}


@pytest.fixture
def load(monkeypatch):
    """Load the settings from a good environment with changes."""

    def loaded(**changes):
        for name in Settings.model_fields:
            monkeypatch.delenv(name.upper(), raising=False)
        for name, value in (GOOD | changes).items():
            monkeypatch.setenv(name, value)
        return load_settings(Settings)

    return loaded


def _problems(load, **changes):
    with pytest.raises(SettingsError) as caught:
        load(**changes)
    return caught.value.problems


def _account(**fields):
    return json.dumps([{"id": "a", "apiKey": KEY} | fields])


class TestGood:
    """Accepted accounts."""

    def test_they_come_in_order_of_priority(self, load):
        """Accounts are in order of priority, with the contract's defaults."""
        first, second = load(CHART_IMG_ACCOUNTS_JSON=ACCOUNTS).accounts
        assert (first.id, second.id, first.api_key.get_secret_value()) == ("acc-1", "acc-2", KEY)
        assert (first.daily_limit, first.rate_per_second, first.burst) == (44, 1.0, 3)
        assert (first.plan, first.max_parameters) == (None, None)

    def test_a_byte_order_mark(self, load, tmp_path):
        """A byte order mark of a Windows program is skipped, in the variable and in the file."""
        file = tmp_path / "accounts.json"
        file.write_text(ACCOUNTS, encoding="utf-8-sig")
        assert len(load(CHART_IMG_ACCOUNTS_FILE=str(file)).accounts) == 2
        assert len(load(CHART_IMG_ACCOUNTS_JSON=f"\ufeff{ACCOUNTS}").accounts) == 2

    def test_all_fields(self, load):
        """All fields of an account are read."""
        fields = {"dailyLimit": 500, "ratePerSecond": 0.5, "burst": 15, "plan": "PRO", "maxParameters": 5}
        (account,) = load(CHART_IMG_ACCOUNTS_JSON=_account(**fields)).accounts
        dumped = account.model_dump(exclude={"api_key"})
        assert list(dumped.values()) == ["a", *fields.values()]

    def test_whole_numbers_may_be_doubles(self, load):
        """Whole numbers may be written as 44.0."""
        fields = {"dailyLimit": 500.0, "burst": 15.0, "maxParameters": 5.0}
        (account,) = load(CHART_IMG_ACCOUNTS_JSON=_account(**fields)).accounts
        assert repr([account.daily_limit, account.burst, account.max_parameters]) == "[500, 15, 5]"

    def test_accounts_of_a_file(self, load, tmp_path):
        """Accounts are read from a file when the variable is not set."""
        file = tmp_path / "accounts.json"
        file.write_text(ACCOUNTS)
        settings = load(CHART_IMG_ACCOUNTS_FILE=str(file))
        assert [account.id for account in settings.accounts] == ["acc-1", "acc-2"]

    def test_the_variable_wins_over_the_file(self, load, tmp_path):
        """The variable replaces the file."""
        file = tmp_path / "accounts.json"
        file.write_text('[{"id": "file", "apiKey": "k"}]')
        settings = load(CHART_IMG_ACCOUNTS_FILE=str(file), CHART_IMG_ACCOUNTS_JSON=ACCOUNTS)
        assert settings.accounts[0].id == "acc-1"

    def test_without_any_there_are_none(self, load):
        """Without accounts the list is empty, for modes that need none."""
        with pytest.raises(SettingsError, match=r"^CHART_IMG_ACCOUNTS_JSON: expected an account"):
            _ = load(CHARTS_API_MODE="local").accounts


#: Values that are no list of accounts, and how the message describes each.
NO_ACCOUNTS = {
    KEY: "text that is not JSON (line 1 column 1)",
    f'[{{"id": "a", "apiKey": "{KEY}",}}]': f"text that is not JSON (line 1 column {27 + len(KEY)})",
    f'{{"id": "a", "apiKey": "{KEY}"}}': "JSON that is not an array",
    "null": "JSON that is not an array",
    "[]": "an empty array",
    "[" * 100_000: "text that is not JSON (line 1 column 202)",
}
BAD_ACCOUNTS = [
    f'[{{"apiKey": "{KEY}"}}]',
    '[{"id": "a"}]',
    f'[{{"id": "a", "apiKey": ["{KEY}"]}}]',
    f'[{{"id": "a", "apiKey": "{KEY}é"}}]',
    f'[{{"id": "a", "apiKey": "{KEY}"}}, "x"]',
    f'[{{"id": "a", "apiKey": "{KEY}"}}, {{"id": "a", "apiKey": "other"}}]',
    *[_account(id=value) for value in ("", 7, "a/b", ".", "..", "__a__", "a\n", "x" * 129)],
    *[_account(apiKey=value) for value in ("", f"{KEY}\n", f"{KEY} {KEY}", None)],
    *[_account(dailyLimit=value) for value in (0, 0.0, -1, 1.5, "44", "44.0", None, True, [44.0])],
    *[_account(ratePerSecond=value) for value in (0, -1, "fast", "2", True, 1001, None)],
    *[_account(burst=value) for value in (0, -1, 1.5, 10001.0, "3", True, None)],
    *[_account(plan=value) for value in ("FREE", "basic", 3)],
    *[_account(maxParameters=value) for value in (0, 0.0, -1, 2.5, "3", True)],
]


class TestBad:
    """Refused accounts: the message has the variable and what was expected, never the value."""

    @pytest.mark.parametrize(("accounts", "got"), NO_ACCOUNTS.items(), ids=range(len(NO_ACCOUNTS)))
    @pytest.mark.parametrize("mode", ["real", "local"])
    def test_a_value_that_is_no_list_is_not_quoted(self, load, accounts, got, mode):
        """A value that is no list of accounts is refused in every mode and not quoted."""
        (problem,) = _problems(load, CHARTS_API_MODE=mode, CHART_IMG_ACCOUNTS_JSON=accounts)
        assert problem.startswith("CHART_IMG_ACCOUNTS_JSON: expected a JSON array of")
        assert problem.endswith(f", got {got}")
        assert KEY not in problem

    @pytest.mark.parametrize("accounts", BAD_ACCOUNTS, ids=range(len(BAD_ACCOUNTS)))
    @pytest.mark.parametrize("mode", ["real", "local"])
    def test_a_wrong_account_is_reported_by_its_place_and_not_quoted(self, load, accounts, mode):
        """A wrong account is reported by index and known field and not quoted."""
        (problem,) = _problems(load, CHARTS_API_MODE=mode, CHART_IMG_ACCOUNTS_JSON=accounts)
        assert re.match(r"CHART_IMG_ACCOUNTS_JSON: \[[01]\](\.[a-zA-Z]+)?: expected ", problem)
        assert KEY not in problem

    @pytest.mark.parametrize(
        ("accounts", "text"),
        [
            (
                [ONE, ONE | {"id": "b", "apiKey": "k2", "plan": "GOLD"}],
                "[1].plan: expected one of BASIC, PRO,",
            ),
            ([ONE, {"id": "b"}], "[1].apiKey: expected a text of printable ASCII"),
            ([ONE, {"id": 7, "apiKey": "k2", "burst": 0}], "[1].id: expected 1-128 characters without"),
            ([ONE | {"burst": "3"}], "[0].burst: expected a whole number from 1 to 10000"),
            ([ONE | {"ratePerSecond": True}], "[0].ratePerSecond: expected a number above 0, at most 1000"),
            ([ONE, 5], "[1]: expected an object of id, apiKey, dailyLimit"),
            ([{KEY: "a"} | ONE], "[0]: expected an object of id, apiKey, dailyLimit"),
            (
                [ONE, {"id": "b"}],
                "[1].apiKey: expected a text of printable ASCII without spaces, got nothing",
            ),
            ([ONE | {"dailylimit": 3}], "[0].dailylimit: no such field; did you mean dailyLimit?"),
            ([ONE | {"rate_per_second": 3}], "[0].rate_per_second: no such field; did you mean ratePer"),
            ([ONE, ONE | {"apiKey": "k2"}], "[1].id: expected an id that no other account has"),
            ([ONE, ONE | {"id": "b"}], "[1].apiKey: expected a key that no other account has"),
            ([ONE, {"id": f"x{KEY}", "apiKey": "k2"}], "[1].id: expected an id that holds no key"),
            ([{"id": "k", "apiKey": "k"}], "[0].id: expected an id that holds no key"),
        ],
    )
    def test_the_message_names_the_account_the_field_and_what_was_expected(self, load, accounts, text):
        """The message has the account, the field and what was expected."""
        (problem,) = _problems(load, CHART_IMG_ACCOUNTS_JSON=json.dumps(accounts))
        assert problem.startswith(f"CHART_IMG_ACCOUNTS_JSON: {text}")
        assert KEY not in problem

    def test_all_errors_are_reported_at_once(self, load):
        """All errors of the variable are in one line."""
        accounts = [ONE | {"burst": 0, "plan": "GOLD"}, ONE | {"dailyLimit": 0}]
        (problem,) = _problems(load, CHART_IMG_ACCOUNTS_JSON=json.dumps(accounts))
        assert [part.split(":")[0] for part in problem.split("; ")] == [
            *("CHART_IMG_ACCOUNTS_JSON", "[0].plan", "[1].dailyLimit")
        ]

    @pytest.mark.parametrize("name", ["apikey", "api_key", "APIKEY", "apiKeys"])
    def test_a_misspelt_key_field_is_named(self, load, name):
        """The field that holds the key is missing, and the misspelt one is named."""
        (problem,) = _problems(load, CHART_IMG_ACCOUNTS_JSON=json.dumps([{"id": "a", name: KEY}]))
        assert "[0].apiKey: expected a text of printable ASCII without spaces, got nothing" in problem
        assert f"[0].{name}: no such field; did you mean apiKey?" in problem
        assert KEY not in problem

    def test_a_short_key_may_be_part_of_an_id(self, load):
        """A short key that is part of an id by chance, as `k` in `backup`, is accepted."""
        accounts = json.dumps([{"id": "backup", "apiKey": "k"}])
        assert load(CHART_IMG_ACCOUNTS_JSON=accounts).accounts[0].id == "backup"

    @pytest.mark.parametrize(
        "accounts",
        [*NO_ACCOUNTS, *BAD_ACCOUNTS, "\udcff"],
        ids=range(len(NO_ACCOUNTS) + len(BAD_ACCOUNTS) + 1),
    )
    def test_a_file_of_wrong_accounts_is_named_not_quoted(self, load, tmp_path, accounts):
        """A file with wrong accounts is reported once by its variable and not quoted."""
        file = tmp_path / "accounts.json"
        file.write_text(accounts, errors="surrogateescape")
        (problem,) = _problems(load, CHART_IMG_ACCOUNTS_FILE=str(file))
        assert re.match(r"CHART_IMG_ACCOUNTS_FILE: (\[|expected a readable file holding)", problem)
        assert (
            problem.endswith(f" ({NO_ACCOUNTS.get(accounts, 'a file that is not UTF-8')})") or "[" in problem
        )
        assert KEY not in problem

    def test_a_file_that_cant_be_read_is_described(self, load, tmp_path):
        """The message says why the file can't be read."""
        large = tmp_path / "large"
        large.write_bytes(b" " * (2**20 + 1))
        for file, reason in (
            (tmp_path, "a folder or a device"),
            (tmp_path / "absent", "no such file"),
            (tmp_path / ("x" * 300), "File name too long"),
            (large, "more than 1048576 bytes"),
        ):
            (problem,) = _problems(load, CHART_IMG_ACCOUNTS_FILE=str(file))
            assert problem.endswith(f" ({reason})")

    def test_a_pipe_is_refused_without_being_read(self, load, tmp_path):
        """A pipe or a device as accounts file is refused without being read."""
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        for file in (pipe, "/dev/zero"):
            (problem,) = _problems(load, CHART_IMG_ACCOUNTS_FILE=str(file))
            assert problem.startswith("CHART_IMG_ACCOUNTS_FILE: expected a readable file")

    def test_the_error_s_trace_holds_no_key(self, load):
        """The error's trace and its causes hold no key."""
        with pytest.raises(SettingsError) as caught:
            load(CHART_IMG_ACCOUNTS_JSON=_account(id=7))
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__
        assert KEY not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("name", ["ENV", "TDA_ENV"])
@pytest.mark.parametrize("value", ["production", "Production", " prod ", "PROD\n"])
def test_record_is_refused_in_production_in_any_spelling(load, tmp_path, name, value):
    """`record` mode is refused in production, however the name is written."""
    given = {"CHARTS_FIXTURES_DIR": str(tmp_path), "CHART_IMG_ACCOUNTS_JSON": ACCOUNTS, name: value}
    (problem,) = _problems(load, CHARTS_API_MODE="record", **given)
    assert problem.startswith("CHARTS_API_MODE: expected real, local, mock or (but not where ENV or")


def test_shown_settings_hide_the_accounts(load, tmp_path):
    """Accounts are hidden in `daemon --check`, repr and str, from any source."""
    file = tmp_path / "accounts.json"
    file.write_text(ACCOUNTS)
    for given in ({"CHART_IMG_ACCOUNTS_JSON": ACCOUNTS}, {"CHART_IMG_ACCOUNTS_FILE": str(file)}):
        settings = load(**given)
        shown = effective_settings(settings)
        assert shown["CHART_IMG_ACCOUNTS_JSON"] == "(hidden)"
        assert KEY not in f"{shown} {settings!r} {settings} {settings.accounts} {settings.accounts[0]}"
        assert KEY not in f"{settings.model_dump()} {settings.model_dump_json()}"
