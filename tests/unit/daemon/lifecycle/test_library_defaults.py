"""What the daemon sets before its libraries are imported."""

from __future__ import annotations

import subprocess
import sys


def test_a_daemon_loads_no_package_that_it_can_do_without():
    """Logs are there without rich, HTTP without guesses of encodings; whoever needs them later gets them."""
    script = (
        "from daemon.lifecycle.library_defaults import set_library_defaults\n"
        "set_library_defaults(is_daemon=True)\n"
        "import sys, daemon.main\n"
        "print({'rich', 'pygments', 'charset_normalizer'} & set(sys.modules))\n"
        "import requests, rich, charset_normalizer\n"
        "answer = requests.Response()\n"
        "answer._content = 'Grüße'.encode()\n"
        "print(rich.__name__, charset_normalizer.__name__, answer.text)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["set()", "rich", "charset_normalizer", "Grüße"]
    assert done.stderr == ""
