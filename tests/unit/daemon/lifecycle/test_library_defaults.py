"""What the daemon sets before its libraries are imported."""

from __future__ import annotations

import subprocess
import sys


def test_a_daemon_loads_no_terminal_library():
    """The log library is there without rich and pygments, and whoever needs rich later gets it."""
    script = (
        "from daemon.lifecycle.library_defaults import set_library_defaults\n"
        "set_library_defaults(is_daemon=True)\n"
        "import sys, daemon.main\n"
        "print({'rich', 'pygments'} & set(sys.modules))\n"
        "import rich\n"
        "print(rich.__name__)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["set()", "rich"]
