"""`templates push | list | get | diff | delete | validate | render` on the embedded Firestore."""

from __future__ import annotations

import gzip
import json
import struct

import pytest

from daemon.cli.demo.resources import sample_templates
from tests.support.charts.local_chart_samples import raw_candles
from tests.support.cloud.resources import SECRET_KEY
from tests.support.process.commands import run_command
from worker_chart_export.timing import rfc3339

SAMPLE = sample_templates()[2]
ACCOUNTS = json.dumps(
    [
        {"id": "free", "apiKey": SECRET_KEY, "plan": "BASIC"},
        {"id": "tiny", "apiKey": f"another-{SECRET_KEY}", "maxParameters": 1},
    ]
)


@pytest.fixture
def environment(deployment):
    """Return the variables that the commands need."""
    return variables(deployment)


def variables(deployment):
    """Return the project and the database."""
    names = ("GOOGLE_CLOUD_PROJECT", "FIRESTORE_EMULATOR_HOST")
    return {name: deployment.environment[name] for name in names}


@pytest.fixture
def file(tmp_path):
    """Write a template into a file."""

    def write(name="own.json", **changes):
        path = tmp_path / name
        path.write_text(json.dumps({**SAMPLE, "id": "own", **changes}))
        return str(path)

    return write


def test_push_stores_what_steps_then_find(deployment, environment, file):
    """`push` creates, keeps or changes a template, says what changed, and the document equals the file."""
    old = json.dumps(SAMPLE["description"])
    for changes, texts in (
        ({}, ["created    own"]),
        ({}, ["unchanged  own"]),
        ({"description": "new"}, ["changed    own", f'           description: {old} -> "new"']),
    ):
        done = run_command("templates", "push", file(**changes), environment=environment)
        assert (done.returncode, done.stdout.splitlines()) == (0, texts), done.stderr
        assert done.stderr.count("operator_action") == (texts != ["unchanged  own"])
    stored = deployment.documents.document("chart_templates/own").get().to_dict()
    assert stored == {**SAMPLE, "id": "own", "description": "new"}


def test_get_prints_what_push_takes(deployment, environment, tmp_path):
    """`get` prints the template as JSON, and its version as manifests name it."""
    done = run_command("templates", "get", SAMPLE["id"], environment=environment)
    assert (done.returncode, json.loads(done.stdout)) == (0, SAMPLE)
    changed_at = deployment.documents.document(f"chart_templates/{SAMPLE['id']}").get().update_time
    assert done.stderr == f"version: {rfc3339(changed_at)}\n"
    path = tmp_path / "got.json"
    path.write_text(done.stdout)
    pushed = run_command("templates", "push", str(path), environment=environment)
    assert pushed.stdout == f"unchanged  {SAMPLE['id']}\n"


def test_diff_shows_what_push_would_change(deployment, environment, file):
    """`diff` names each field that differs, changes nothing, and ends with 1 if there is a difference."""
    missing = run_command("templates", "diff", file(), environment=environment)
    assert (missing.returncode, missing.stdout) == (1, "created    own\n")
    run_command("templates", "push", file(), environment=environment)
    assert run_command("templates", "diff", file(), environment=environment).returncode == 0
    request = {**SAMPLE["request"], "studies": [], "theme": "light"}
    done = run_command(
        "templates", "diff", file(request=request), "--output", "json", environment=environment
    )
    (found,) = json.loads(done.stdout)
    assert (done.returncode, found["id"], found["change"]) == (1, "own", "changed")
    paths = {change["path"]: change for change in found["changes"]}
    assert paths["request.theme"]["file"] == "light"
    assert paths["request.studies[0]"] == {
        "path": "request.studies[0]",
        "stored": SAMPLE["request"]["studies"][0],
    }
    stored = deployment.documents.document("chart_templates/own").get().to_dict()
    assert stored == {**SAMPLE, "id": "own"}


def test_delete_asks_first_and_says_who_did_it(deployment, environment):
    """Without a terminal `delete` needs `--yes`; then it logs who deleted what."""
    refused = run_command("templates", "delete", SAMPLE["id"], environment=environment)
    reference = deployment.documents.document(f"chart_templates/{SAMPLE['id']}")
    assert (refused.returncode, reference.get().exists) == (2, True)
    done = run_command(
        "templates", "delete", SAMPLE["id"], "--yes", environment={**environment, "LOG_FORMAT": "json"}
    )
    assert (done.returncode, done.stdout) == (0, f"deleted    {SAMPLE['id']}\n")
    assert not reference.get().exists
    line = json.loads(done.stderr.splitlines()[-1])
    assert (line["event"], line["command"]) == ("operator_action", "templates delete")
    assert line["chartTemplateId"] == SAMPLE["id"]


def test_delete_deletes_none_when_one_is_not_stored(deployment, environment):
    """A misspelt id deletes nothing."""
    done = run_command("templates", "delete", SAMPLE["id"], "absent", "--yes", environment=environment)
    assert done.returncode == 1
    assert "error: not stored: absent (" in done.stderr
    assert deployment.documents.document(f"chart_templates/{SAMPLE['id']}").get().exists


@pytest.mark.parametrize("command", ["get", "delete"])
def test_an_id_that_no_template_can_have_is_refused(command):
    """It is never used to build a path."""
    assert run_command("templates", command, "a/b").returncode == 2


def test_push_stores_nothing_when_one_is_refused(deployment, environment, file):
    """`push` stores no template when one is refused."""
    good, bad = file("good.json"), file("bad.json", id="bad", request={"studys": []})
    done = run_command("templates", "push", good, bad, environment=environment)
    assert done.returncode == 1
    assert "request.studys: unknown key" in done.stdout
    assert not deployment.documents.document("chart_templates/own").get().exists


def test_push_accepts_unknown_keys_with_an_option(deployment, environment, file):
    """With an option `push` accepts unknown keys, because the API may support new ones."""
    path = file(request={"newThing": 1})
    done = run_command("templates", "push", path, "--allow-unknown-keys", environment=environment)
    assert done.returncode == 0, done.stdout
    assert deployment.documents.document("chart_templates/own").get().get("request") == {"newThing": 1}


def test_list_shows_what_each_stored_template_draws(environment):
    """`list` shows what each stored template draws, as text and as JSON."""
    shown = run_command("templates", "list", environment=environment)
    assert shown.returncode == 0
    assert SAMPLE["id"] in shown.stdout
    assert SAMPLE["request"]["studies"][0]["name"] in shown.stdout
    listed = json.loads(run_command("templates", "list", "--output", "json", environment=environment).stdout)
    assert [entry["id"] for entry in listed] == [sample["id"] for sample in sample_templates()]


def test_validate_shows_which_account_can_make_which_stored_template(environment):
    """`validate` shows which account can make each template, without keys, bucket or subscription."""
    done = run_command(
        "templates", "validate", environment={**environment, "CHART_IMG_ACCOUNTS_JSON": ACCOUNTS}
    )
    assert done.returncode == 0, done.stdout
    assert "account free: fits" in done.stdout
    assert "account tiny: 2 studies and drawings, its plan allows 1" in done.stdout
    assert "5 of 5 templates are good" in done.stdout
    assert SECRET_KEY not in done.stdout + done.stderr


def test_validate_of_files_needs_no_cloud(file):
    """`validate` of files needs no cloud, for a check before a commit."""
    good, bad = file(), file("bad.json", request={"format": "jpeg"})
    done = run_command("templates", "validate", good, bad)
    assert done.returncode == 1
    assert "request.format: expected png, because a step stores PNG files, got 'jpeg'" in done.stdout
    verdicts = json.loads(run_command("templates", "validate", good, bad, "--output", "json").stdout)
    assert [(verdict["id"], verdict["good"]) for verdict in verdicts] == [("own", True), ("own", False)]


@pytest.mark.parametrize("stored", [True, False])
def test_render_draws_a_stored_template_or_a_file(environment, file, tmp_path, stored):
    """`render` draws a stored template or a file as a PNG of the template's size."""
    output = tmp_path / "chart.png"
    template = SAMPLE["id"] if stored else file()
    done = run_command(
        "templates",
        "render",
        template,
        "--output",
        str(output),
        environment=environment if stored else None,
    )
    assert done.returncode == 0, done.stderr
    assert struct.unpack(">II", output.read_bytes()[16:24]) == (800, 600)
    assert f"{output.stat().st_size} bytes" in done.stdout


def test_render_makes_a_jpeg_when_the_template_asks_for_one(file, tmp_path):
    """Only `render` makes JPEG files; a step stores PNG files."""
    output = tmp_path / "chart.jpg"
    done = run_command("templates", "render", file(request={"format": "jpeg"}), "--output", str(output))
    assert done.returncode == 0, done.stderr
    assert output.read_bytes().startswith(b"\xff\xd8\xff")


def test_the_documented_studies_and_drawings_are_listed():
    """`list --studies` needs no cloud, and shows each with its inputs."""
    done = run_command("templates", "list", "--studies")
    assert done.returncode == 0, done.stderr
    assert (
        "Bollinger Bands  (over the price)\n    in_0: length, a whole number from 1 to 10000" in done.stdout
    )
    rows = json.loads(run_command("templates", "list", "--studies", "--output", "json").stdout)
    assert {kind: sum(row["kind"] == kind for row in rows) for kind in ("study", "drawing")} == {
        "study": 92,
        "drawing": 15,
    }


def test_render_writes_the_numbers_of_the_chart(file, tmp_path):
    """`--values` writes JSON into a file, or alone to standard output."""
    output, numbers = tmp_path / "chart.png", tmp_path / "chart.json"
    path = file(request={"studies": [{"name": "Relative Strength Index"}]})
    done = run_command("templates", "render", path, "--output", str(output), "--values", str(numbers))
    assert (done.returncode, done.stdout.count("\n")) == (0, 1), done.stderr
    piped = run_command("templates", "render", path, "--output", str(output), "--values", "-")
    assert json.loads(piped.stdout) == json.loads(numbers.read_text())
    assert f"{output.stat().st_size} bytes" in piped.stderr
    found = json.loads(piped.stdout)
    assert (found["symbol"], found["timeframe"], found["bars"][-1]) == ("IBM", "1d", "2013-03-01T00:00:00Z")
    (study,) = found["studies"]
    assert study["input"] == {"length": 14, "smoothingLine": "SMA", "smoothingLength": 14}
    assert len(study["plots"]["Plot"]) == len(found["bars"])
    wrong = run_command("templates", "render", path, "--output", str(output), "--values", "/no/such/x.json")
    assert (wrong.returncode, "--values: can't write /no/such/x.json" in wrong.stderr) == (2, True)


def test_render_reads_a_gzip_with_an_exchange(file, tmp_path):
    """`render` reads the symbol and the timeframe of a gzip too."""
    document = {**json.loads(raw_candles("IBM_1w"))}
    document["metadata"]["symbol"] = "NYSE:IBM"
    candles = tmp_path / "candles.json.gz"
    candles.write_bytes(gzip.compress(json.dumps(document).encode()))
    output = ("--output", str(tmp_path / "chart.png"), "--values", "-", "--candles", str(candles))
    done = run_command("templates", "render", file(), *output)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["symbol"], found["timeframe"]) == ("NYSE:IBM", "1w")
    named = run_command("templates", "render", file(), *output, "--symbol", "IBM")
    assert json.loads(named.stdout)["symbol"] == "IBM"
    candles.write_bytes(candles.read_bytes()[:-9])
    broken = run_command("templates", "render", file(), *output)
    assert (broken.returncode, "not the gzip that it starts as" in broken.stderr) == (1, True)


def test_render_reports_what_can_not_be_drawn(file, tmp_path):
    """`render` reports what can't be drawn, such as an unknown study, and writes no file."""
    output = tmp_path / "chart.png"
    path = file(request={"studies": [{"name": "No Such Study"}]})
    done = run_command("templates", "render", path, "--output", str(output))
    assert done.returncode == 1
    assert "No Such Study" in done.stderr
    assert not output.exists()


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (
            ["render", "no-such-template", "--output", "x.png"],
            2,
            "is neither a file here nor stored",
        ),
        (["render", "no-such.json", "--output", "x.png"], 2, "expected a readable file"),
        (["validate", "no-such.json"], 2, "no-such.json"),
        (["push"], 2, "FILE"),
    ],
)
def test_bad_arguments_are_exit_2(environment, arguments, code, text):
    """Bad arguments are named with exit code 2."""
    done = run_command("templates", *arguments, environment=environment)
    assert done.returncode == code
    assert text in done.stderr


@pytest.mark.official
def test_push_get_diff_and_delete_on_the_official_emulator(official_deployment, file):
    """What is stored comes back equal, and a guarded delete deletes it."""

    def templates(*arguments):
        done = run_command("templates", *arguments, environment=variables(official_deployment))
        return done.returncode, done.stdout

    path = file()
    assert templates("push", path) == (0, "created    own\n")
    code, stored = templates("get", "own")
    assert (code, json.loads(stored)) == (0, {**SAMPLE, "id": "own"})
    assert templates("diff", path) == (0, "unchanged  own\n")
    assert templates("diff", file(description="new"))[0] == 1
    assert templates("delete", "own", "--yes") == (0, "deleted    own\n")
    assert templates("get", "own") == (1, "")
