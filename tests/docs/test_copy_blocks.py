"""The shell blocks of the documents can be pasted into sh, bash and zsh."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.support.copy_blocks import COMMANDS, all_blocks

BLOCKS = all_blocks()
SHELL_BLOCKS = [block for block in BLOCKS if block.is_for_a_shell]


def test_there_are_blocks():
    """The blocks are found, also those inside of lists."""
    assert {block.page for block in SHELL_BLOCKS} >= {"README.md", "docs/operations.md", "systemd/README.md"}
    assert any("emulators --with-demo-data -- sh" in block.text for block in SHELL_BLOCKS)


def test_every_block_of_commands_says_so():
    """A block of commands has the fence `sh`; without it the checks below would skip it."""
    assert [str(block) for block in BLOCKS if not block.language and COMMANDS.search(block.text)] == []


@pytest.mark.parametrize(
    ("characters", "why"),
    [
        ("#", "zsh takes no comments on its command line"),
        ("'", "an apostrophe of a text opens a quote"),
        ("!", "bash and zsh look for an old command"),
        ("`", "a command in a command"),
    ],
)
def test_no_character_that_a_command_line_takes_differently(characters, why):
    """No block holds a character that means something else when it is typed."""
    assert [str(block) for block in SHELL_BLOCKS if characters in block.text] == [], why


@pytest.mark.parametrize("shell", ["dash", "bash", "zsh"])
def test_every_block_parses(shell, tmp_path):
    """Each shell that is here can parse each block."""
    program = shutil.which(shell)
    if program is None and shell == "zsh":
        pytest.skip("there is no zsh")
    refused = {}
    for number, block in enumerate(SHELL_BLOCKS):
        file = tmp_path / f"{number}.sh"
        file.write_text(block.text, encoding="utf-8")
        done = subprocess.run([program or shell, "-n", file], capture_output=True, text=True, check=False)
        if done.returncode or done.stderr:
            refused[str(block)] = done.stderr
    assert refused == {}
