"""The help of each command has examples, and the JSON output has the names of docs/commands.md."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from daemon.cli.demo.resources import sample_templates
from daemon.cli.lazy import COMMANDS, load_command
from tests.support.process.commands import run_command
from tests.support.process.renderers import wait_until
from worker_chart_export.ledger.lease import LEASES

PAGE = (Path(__file__).parents[2] / "docs/commands.md").read_text(encoding="utf-8")
ERROR = {"code": "CHART_API_FAILED", "message": "Chart-IMG answered 500.", "details": {}}
#: What an operator changes or lists: the help says what each exit code means.
OPERATOR = (
    "runs",
    "steps",
    "leases",
    "workers",
    "pause",
    "resume",
    "retry",
    "release",
    "quarantine",
    "accounts",
)


def test_each_help_has_an_example_of_the_command():
    """Examples call the command itself; those of the operator's commands also say what exit codes mean."""
    for name in COMMANDS:
        command = load_command(name)
        subs = getattr(command, "commands", {})
        for called, one in {name: command, **{f"{name} {sub}": one for sub, one in subs.items()}}.items():
            assert one.epilog.startswith("Examples:"), called
            assert re.search(rf"^worker-chart-export {called}\b", one.epilog, re.MULTILINE), called
            if name in OPERATOR and not hasattr(one, "commands"):
                assert "Exit code" in one.help, called


def _names(after):
    """Return the names in the first table after a text of the page."""
    rest = PAGE.partition(after)[2]
    assert rest, f"the page has no {after!r}"
    rows = re.match(r".*?\n\| name \| meaning \|\n\| --- \| --- \|\n((?:\|[^\n]*\n)+)", rest, re.DOTALL)[1]
    return {name for row in rows.splitlines() for name in re.findall(r"`(\w+)`", row.split("|")[1])}


class Commands:
    """The commands on a deployment that has something to list for each of them."""

    def __init__(self, deployment):
        self.deployment = deployment
        now = datetime.now(UTC)
        failed = {"status": "FAILED", "finishedAt": f"{now:%Y-%m-%dT%H:%M:%SZ}", "error": ERROR}
        self.run_id, (self.failed, self.running) = deployment.put_run(steps=2, **failed)
        running = {
            deployment.documents.field_path("steps", self.running, "status"): "RUNNING",
            "createdAt": f"{now:%Y-%m-%dT%H:%M:%SZ}",
        }
        run = deployment.documents.document(f"flow_runs/{self.run_id}")
        run.update(running)
        lease = {"owner": "vm:1:ab", "token": "t", "attempt": 1, "released": 0, "messageId": "1"}
        times = {"startedAt": now, "acquiredAt": now, "expiresAt": now + timedelta(hours=1)}
        run.collection(LEASES).document(self.running).set(lease | times)
        origin = {
            "reason": "not_ready",
            "sourceMessageId": "1",
            "sourceSubscription": deployment.subscription,
        }
        self.message = deployment.publisher.publish(deployment.quarantine_topic, b"{}", **origin).result(20)

    def rows(self, command, *more, code=0, option="--output"):
        """Return the objects that a command prints."""
        done = run_command(*command.split(), *more, option, "json", environment=self.deployment.settings())
        assert done.returncode == code, done.stderr
        return json.loads(done.stdout)


def _check(commands, tmp_path):
    """Compare the names of all objects with those of the page."""
    file = tmp_path / "own.json"
    file.write_text(json.dumps({**sample_templates()[0], "id": "own"}))
    with commands.deployment.daemon(RESCUE_INTERVAL_SECONDS="600").started() as daemon:
        wait_until(lambda: commands.rows("workers"), "heartbeat of the worker")
        workers = commands.rows("workers")
        assert daemon.terminate() == 0
    found = {
        "**`steps`** lists": commands.rows("steps"),
        "**`leases`** lists": commands.rows("leases"),
        "**`runs`** lists": commands.rows("runs"),
        "**`workers`** lists": workers,
        "**`accounts`** lists": commands.rows("accounts"),
        "**`list`** and **`show`**": commands.rows("quarantine show", commands.message),
        "## Retry": commands.rows("retry", commands.run_id, commands.failed),
        "## Release": commands.rows("release", commands.run_id, commands.running, "--wait", "0s"),
        "**`templates diff FILE...`**": commands.rows("templates diff", str(file), code=1),
    }
    for after, rows in found.items():
        assert rows, after
        assert all(set(row) == _names(after) for row in rows), after
    (listed,) = commands.rows("quarantine list")
    assert set(listed) == _names("**`list`** and **`show`**") - {"attributes", "data", "dataBase64"}


def test_json_output_has_the_documented_names(deployment, tmp_path):
    """Neither more nor fewer, in each object."""
    _check(Commands(deployment), tmp_path)


@pytest.mark.official
def test_json_output_on_the_official_emulators(official_deployment, tmp_path):
    """The same there."""
    _check(Commands(official_deployment), tmp_path)


def _nested(after, name):
    """Return the names in the meaning of a name that stands for an object."""
    row = next(line for line in PAGE.partition(after)[2].splitlines() if line.startswith(f"| `{name}` |"))
    return set(re.findall(r"`(\w+)`", row.split("|")[2]))


def test_the_json_of_other_commands_has_the_documented_names(deployment, tmp_path):
    """Also in the objects within their objects."""
    commands = Commands(deployment)
    status = commands.rows("status", commands.run_id, code=1)  # one of its steps is FAILED
    doctor = commands.rows("doctor")
    run_id, _ = deployment.put_run(charts=1)
    file = tmp_path / "run.json"
    file.write_text(json.dumps(deployment.run(run_id)))
    exported = commands.rows("run-local", "--flow-run-path", str(file), option="--output-summary")
    listed, studies = commands.rows("templates list"), commands.rows("templates list", "--studies")
    found = {
        "**`status RUN_ID --output json`**": [status],
        "Each of its `steps`": status["steps"],
        "**`doctor --output json`**": [doctor],
        "Each of its `checks`": [{"leftOver": None} | check for check in doctor["checks"]],
        "**`templates list --output json`**": listed,
        "**`templates list --studies --output json`**": studies,
        "**`templates validate --output json`**": commands.rows("templates validate"),
        "**`run-local --output-summary json`**": [{"reason": None, "error": None} | exported],
    }
    for after, rows in found.items():
        assert rows, after
        assert all(set(row) == _names(after) for row in rows), after
    steps = {step["stepId"]: step for step in status["steps"]}
    assert set(steps[commands.running]["lease"]) == _nested("Each of its `steps`", "lease") - {"steps"}
    assert set(steps[commands.failed]["error"]) == _nested("Each of its `steps`", "error")
    charts, problem = steps[commands.failed]["charts"], {"code", "message", "details"}
    assert set(charts) == _nested("Each of its `steps`", "charts") - problem
    parameter = next(one for study in studies for one in study["input"].values())
    assert set(parameter) == _nested("**`templates list --studies", "input`, `override")
