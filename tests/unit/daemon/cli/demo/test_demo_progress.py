"""The progress view of the demo: the lines that it shows of the daemon's log."""

from __future__ import annotations

from daemon.cli.demo.progress import ProgressView


def test_a_line_without_an_event_is_shown_like_any_other():
    """A JSON line that the daemon's log did not write has no event, and is shown all the same."""
    view = ProgressView([])
    view.on_event({"message": "from a library"})
    view.on_end(1)
    assert "from a library" in view.describe_end()
