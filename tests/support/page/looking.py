"""What tests look for on the page in a browser."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.support.page.browser import Tab
    from tests.support.process.daemons import DaemonUnderTest


def page_of(daemon: DaemonUnderTest) -> str:
    """Return the address of a daemon's page."""
    return f"http://127.0.0.1:{daemon.named('daemon_started')[-1]['healthPort']}"


def own_requests_only(tab: Tab, url: str) -> bool:
    """Return whether the page requested no other host."""
    return all(asked.startswith((f"{url}/", "data:")) for asked in tab.requests())


def overflow(tab: Tab) -> int:
    """Return how many pixels the page is wider than the screen."""
    return int(tab.run("document.documentElement.scrollWidth - document.documentElement.clientWidth"))


def wait_while_looking(tab: Tab, condition: str) -> None:
    """Wait for what the page shows next. A tab that becomes visible polls at once."""
    tab.run("document.dispatchEvent(new Event('visibilitychange'))")
    tab.wait_for(condition)
