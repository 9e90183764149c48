"""The help of all commands: valid examples, and no cut text on a narrow terminal."""

from __future__ import annotations

import json
import resource
import shlex
import subprocess
import sys
from importlib.metadata import version

import pytest
from typer import BadParameter
from typer.main import get_command
from typer.testing import CliRunner

from daemon.cli.app import app
from daemon.cli.lazy import COMMANDS, load_command
from daemon.cli.output import examples

PROGRAM = "worker-chart-export"
#: The commands of the contract.
EVERYBODYS = {"demo", "daemon", "emulators", "run-local", "publish", "status", "templates", "healthcheck"}
MAX_COMPLETION_CHARS = 45
#: Slow to import. Only what a command runs needs them. (typer itself loads pydantic and parts of rich.)
HEAVY = {
    "aiohttp",
    "asyncio",
    "cryptography",
    "daemon.composition",
    "daemon.main",
    "daemon.settings",
    "google",
    "grpc",
    "httpx",
    "jinja2",
    "localcloud",
    "numpy",
    "opentelemetry",
    "PIL",
    "prometheus_client",
    "proto",
    "requests",
    "rich.live",
    "rich.progress",
    "structlog",
    "urllib3",
}
#: Shows the help of the commands in its arguments, and prints what each loaded of the modules in `HEAVY`.
SHOW_HELP = """
import io, json, sys
from contextlib import redirect_stdout, suppress
from daemon.cli.app import main
commands, heavy = json.loads(sys.argv[1])
found = {}
for words in commands:
    sys.argv = ["worker-chart-export", *words, "--help"]
    with suppress(SystemExit), redirect_stdout(io.StringIO()):
        main()
    if loaded := set(heavy) & set(sys.modules):
        found[" ".join(words)] = sorted(loaded)
        heavy = set(heavy) - loaded
print(json.dumps(found))
"""
#: Processor time of the help of a command: twice what it takes on a slow machine.
HELP_SECONDS = 0.8
#: The parser's error. Typer has no name for it.
USAGE_ERROR = BadParameter.__mro__[1]


def _all_commands():
    """Return every command and sub-command by its words."""
    found = {}
    for name in COMMANDS:
        command = load_command(name)
        found[(name,)] = command
        found |= {(name, sub): below for sub, below in getattr(command, "commands", {}).items()}
    return found


ALL = _all_commands()


def _help(text, width=80, option="--help"):
    done = CliRunner().invoke(app, [*text, option], env={"COLUMNS": str(width)}, prog_name=PROGRAM)
    assert done.exit_code == 0, done.output
    return done.output


def _examples(text):
    lines = [line.strip() for line in (ALL[text].epilog or "").split("\n\n")]
    assert lines[0] == "Examples:"
    return lines[1:]


def test_every_command_is_there():
    """Every module of a command is a command."""
    assert set(COMMANDS) >= EVERYBODYS
    assert set(get_command(app).commands) == set(COMMANDS)


@pytest.mark.parametrize("text", [(), *ALL], ids=" ".join)
def test_help_fits_eighty_columns_and_nothing_is_cut(text):
    """Help fits eighty columns, and names of options and variables are not cut."""
    shown = _help(text)
    assert _help(text, option="-h") == shown
    assert "…" not in shown
    assert max(len(line) for line in shown.splitlines()) <= 80
    if text:
        names = [name for parameter in ALL[text].params for name in parameter.opts if name.startswith("--")]
        assert all(f"{name} " in shown for name in names)


@pytest.mark.parametrize("text", ALL, ids=" ".join)
def test_help_shows_examples_that_parse(text, tmp_path, monkeypatch):
    """Help shows examples that parse, each on its own line."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HEALTH_PORT", raising=False)
    shown = _help(text, width=200)
    examples = _examples(text)
    assert examples
    for example in examples:
        assert any(line.strip() == example for line in shown.splitlines())
        _parse(example, tmp_path)


def _parse(example, folder):
    """Parse the example with the command's own parser, without running it; its files exist."""
    program, *arguments = shlex.split(example.partition(" > ")[0])
    assert program == PROGRAM
    for name in (argument for argument in arguments if argument.endswith(".json")):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    text = tuple(arguments[:2]) if tuple(arguments[:2]) in ALL else tuple(arguments[:1])
    context = ALL[text].make_context(" ".join(text), arguments[len(text) :])
    assert context.args == []


@pytest.mark.parametrize(
    "example",
    ["other status run", f"{PROGRAM} status", f"{PROGRAM} status run --no-such", f"{PROGRAM} publish"],
)
def test_an_example_that_does_not_parse_is_found(example, tmp_path):
    """An example with another program, a missing argument or an unknown option fails."""
    with pytest.raises((AssertionError, USAGE_ERROR)):
        _parse(example, tmp_path)


def test_completion_descriptions_are_not_cut():
    """The description of a command is not cut in shell completion."""
    assert [name for name, text in COMMANDS.items() if len(text) > MAX_COMPLETION_CHARS] == []


def test_each_example_has_its_own_line():
    """An empty line separates examples in help texts."""
    assert examples("a", "b --c") == f"Examples:\n\n{PROGRAM} a\n\n{PROGRAM} b --c"


@pytest.mark.parametrize("option", ["-V", "--version"])
def test_the_version_has_a_short_option(option):
    """The version is printed for `-V` too."""
    assert CliRunner().invoke(app, [option]).output == f"{PROGRAM} {version(PROGRAM)}\n"


def test_a_mistyped_command_is_answered_with_the_right_one():
    """A mistyped command gets a suggestion, although no module of a command is loaded."""
    done = CliRunner().invoke(app, ["statsu", "run"])
    assert done.exit_code == 2
    assert "status" in done.output


def test_no_help_loads_what_only_a_run_needs():
    """The help of each command and sub-command is shown without Google's clients and the embedded cloud."""
    arguments = json.dumps([[(), *ALL], sorted(HEAVY)])
    done = subprocess.run(
        [sys.executable, "-c", SHOW_HELP, arguments], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout.splitlines()[-1]) == {}


def test_help_takes_little_time():
    """The help of a sub-command takes little processor time, of which the fastest of three tries counts."""
    script = "import sys; from daemon.cli.__main__ import main; main()"
    times = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [sys.executable, "-c", script, "templates", "push", "--help"], capture_output=True, check=True
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(times) < HELP_SECONDS


def test_a_command_searches_for_no_garbage_when_it_ends():
    """What a run has imported is not searched at the end of its process: that would take a quarter second."""
    script = (
        "import atexit, gc, sys\n"
        "atexit.register(lambda: print(len(gc.get_objects()), gc.get_freeze_count()))\n"
        "from daemon.cli.__main__ import main\nmain()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "status", "20251215-102530_IBM_k3f7a"],
        env={},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "GOOGLE_CLOUD_PROJECT" in done.stderr
    searched, frozen = map(int, done.stdout.split())
    assert searched < 1000
    assert frozen > 50_000
