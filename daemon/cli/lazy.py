"""Commands whose modules are imported only when they are needed.

Google's clients take a second to import. Health probes and shell completion don't need them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command, get_group

from daemon.lifecycle.interpreter import long_lived
from worker_chart_export.errors import shown

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Command -> its text in the overview and in shell completion, which shows at most 45 characters. The module
#: in `daemon.cli.commands` has the same name, with `_` for `-`.
COMMANDS = {
    "demo": "Make charts here, without any cloud.",
    "daemon": "Run the daemon, or check its settings.",
    "emulators": "Start embedded Pub/Sub, Firestore, Storage.",
    "stage": "Make topic, bucket, runs on the emulators.",
    "run-local": "Export one step of a flow run from a file.",
    "publish": "Send the message that starts a run or step.",
    "status": "Show a run's steps, charts and errors.",
    "runs": "List the runs.",
    "steps": "List the chart steps of all runs.",
    "leases": "List who holds which step, over all runs.",
    "workers": "List the daemons, and who paused them.",
    "pause": "Pause all daemons: no new step starts.",
    "resume": "End the pause of all daemons.",
    "quarantine": "Read, replay, drop rejected messages.",
    "retry": "Make FAILED steps READY again.",
    "release": "End the lease of a step now.",
    "templates": "Push, list, validate, render templates.",
    "accounts": "Show the quota of accounts, or change it.",
    "doctor": "Check settings, permissions and backends.",
    "healthcheck": "Check that the daemon here is alive.",
}

#: Settings of a command's context; the commands below inherit them.
HELP_OPTIONS: dict[str, Any] = {"help_option_names": ["-h", "--help"]}


class LazyCommands(TyperGroup):
    """A group that holds a `LazyCommand` for each entry of `COMMANDS`."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = {name: LazyCommand(name=name, help=text) for name, text in COMMANDS.items()}

    def invoke(self, ctx: Any) -> Any:
        """Run the command. Say in plain words which argument is wrong: typer quotes those of pydantic."""
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            if (problems := getattr(error.__cause__, "errors", None)) is not None:
                error.message = _plain_words(problems()[0])
            raise


def _plain_words(problem: Mapping[str, Any]) -> str:
    words = str(problem["msg"]).removeprefix("Value error, ").partition(", unable to ")[0]
    if not words.startswith("Input should be "):
        return words
    return f"expected {words.removeprefix('Input should be ')}, got {shown(problem['input'])}"


class LazyCommand(TyperCommand):
    """A command that loads the real one when it is called or completed."""

    def make_context(self, info_name: Any, args: Any, parent: Any = None, **extra: Any) -> Any:
        """Make the context of the real command."""
        return load_command(str(self.name)).make_context(info_name, args, parent=parent, **extra)


def load_command(name: str) -> Any:
    """Import the module of the command, and return the command."""
    with long_lived():
        module = import_module(f"daemon.cli.commands.{name.replace('-', '_')}")
    if hasattr(module, "app"):
        return get_group(module.app)
    single = typer.Typer(add_completion=False)
    single.command(name=name, epilog=module.EXAMPLES, cls=getattr(module, "CLASS", None))(module.command)
    return get_command(single)
