"""Sub-commands whose modules are imported once they are chosen.

Google's clients take a second to load. A health probe has no use for them, nor has a press of the tab key.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command, get_group

if TYPE_CHECKING:
    from types import ModuleType

#: Command -> what the overview and a shell's completion say of it, which shows 45 characters at most; its
#: module in this package has the same name.
COMMANDS = {
    "demo": "The whole main job here, with a gallery.",
    "daemon": "Run the daemon, or check its settings.",
    "emulators": "Start embedded Pub/Sub, Firestore, Storage.",
    "run-local": "Work one step of a flow run file here.",
    "publish": "Send the message that has a run worked.",
    "status": "Show a run's steps, charts and errors.",
    "templates": "Push, list, validate, render templates.",
    "doctor": "Check settings, rights and backends.",
    "healthcheck": "Ask whether the daemon here is alive.",
}


class LateCommands(TyperGroup):
    """The group of all `COMMANDS`."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = {name: LateCommand(name=name, help=words) for name, words in COMMANDS.items()}


class LateCommand(TyperCommand):
    """Stands in the overview for a command, and hands over to it as soon as it is called or completed."""

    def make_context(self, info_name: Any, args: Any, parent: Any = None, **extra: Any) -> Any:
        """The context of the real command."""
        return load_command(str(self.name)).make_context(info_name, args, parent=parent, **extra)


def load_command(name: str) -> Any:
    """The real command of that name, its examples one a line."""
    module = import_module(f"daemon.cli.commands.{name.replace('-', '_')}")
    command: Any = get_group(module.app) if hasattr(module, "app") else _single(module)
    for one in (command, *getattr(command, "commands", {}).values()):
        one.epilog = one_a_line(one.epilog)
    return command


def one_a_line(examples: str | None) -> str | None:
    """`Examples: a | b` as help is written, where an empty line breaks the line."""
    if examples is None:
        return None
    return "\n\n".join(["Examples:", *examples.removeprefix("Examples: ").split(" | ")])


def _single(module: ModuleType) -> Any:
    alone = typer.Typer(add_completion=False)
    alone.command(name=module.NAME, epilog=module.EXAMPLES)(module.command)
    return get_command(alone)
