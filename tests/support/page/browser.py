"""Headless Chromium over its DevTools protocol through a pipe, without a driver.

https://chromedevtools.github.io/devtools-protocol/
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

NAMES = ("chromium", "chromium-browser", "google-chrome")
ANSWER_TIMEOUT_SECONDS = 30.0
LOOK_SECONDS = 0.05
#: Parts of the window that nobody sees: they take three times as long to start as the page itself.
WITHOUT = "--disable-features=WebUIOmniboxPopup,WebUIOmniboxAimPopup"
#: Debian's package starts the browser by a shell script, and a shell can put any pipe on descriptors 3 and 4.
START = 'exec "$@" 3<&"$IN" 4>&"$OUT"'


class ChromiumMissing(Exception):
    """Chromium is not installed."""


def chromium_command() -> str:
    """Return the path of Chromium.

    Raises:
        ChromiumMissing: It is not installed.
    """
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        raise ChromiumMissing(f"None of {', '.join(NAMES)} was found. Install Debian's package chromium.")
    return found


class Chromium:
    """A browser process.

    Args:
        profile: The folder of its files.
    """

    def __init__(self, profile: Path) -> None:
        to_browser, self._write = os.pipe()
        self._read, from_browser = os.pipe()
        self._log = (profile / "chromium.log").open("wb")
        flags = (
            *("--headless", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync", WITHOUT),
            *("--hide-scrollbars", "--disable-dev-shm-usage", f"--user-data-dir={profile}", "--lang=en-GB"),
        )
        self._process = subprocess.Popen(
            ["/bin/bash", "-c", START, "bash", chromium_command(), *flags],
            env={**os.environ, "IN": str(to_browser), "OUT": str(from_browser), "TZ": "Etc/UTC"},
            pass_fds=(to_browser, from_browser),
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,  # all its processes end with it
        )
        os.close(to_browser)
        os.close(from_browser)
        self._changed = threading.Condition()
        self._numbers = itertools.count(1)
        self._answers: dict[int, dict[str, Any]] = {}
        self._told: list[dict[str, Any]] = []
        self._is_over = False
        self._reader = threading.Thread(target=self._listen, daemon=True)
        self._reader.start()

    def close(self) -> None:
        """End the browser."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(10)
        self._reader.join(10)
        os.close(self._write)
        os.close(self._read)
        self._log.close()

    def ask(self, method: str, *, session: str | None = None, **params: Any) -> dict[str, Any]:
        """Send a command and return its result; raise AssertionError with the browser's refusal."""
        number = next(self._numbers)
        command = {"id": number, "method": method, "params": params}
        content = json.dumps(command | ({"sessionId": session} if session else {})).encode() + b"\0"
        while content:
            content = content[os.write(self._write, content) :]
        with self._changed:
            self._changed.wait_for(lambda: number in self._answers or self._is_over, ANSWER_TIMEOUT_SECONDS)
            answer = self._answers.pop(number, {"error": "no answer"})
        assert "error" not in answer, f"{method}: {answer['error']}"
        result: dict[str, Any] = answer["result"]
        return result

    def events_of(self, session: str, *methods: str) -> list[dict[str, Any]]:
        """Return the events of a tab so far."""
        with self._changed:
            return [
                event
                for event in self._told
                if event.get("sessionId") == session and event["method"] in methods
            ]

    @contextlib.contextmanager
    def tab(self, *, width: int = 1280, height: int = 900, dark: bool = False) -> Iterator[Tab]:
        """Open a tab in its own profile, and close it afterwards."""
        context = self.ask("Target.createBrowserContext")["browserContextId"]
        target = self.ask("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        tab = Tab(self, session, context)
        tab.watch()
        tab.look_like(width=width, height=height, dark=dark)
        try:
            yield tab
        finally:
            self.ask("Target.disposeBrowserContext", browserContextId=context)

    def _listen(self) -> None:
        rest = b""
        while chunk := os.read(self._read, 2**16):
            *messages, rest = (rest + chunk).split(b"\0")
            with self._changed:
                for message in map(json.loads, messages):
                    if "id" in message:
                        self._answers[message["id"]] = message
                    else:
                        self._told.append(message)
                self._changed.notify_all()
        with self._changed:
            self._is_over = True
            self._changed.notify_all()


class Tab:
    """One tab."""

    def __init__(self, browser: Chromium, session: str, context: str) -> None:
        self._browser = browser
        self._session = session
        self._context = context

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command to the tab."""
        return self._browser.ask(method, session=self._session, **params)

    def watch(self) -> None:
        """Start to record its events."""
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.ask(f"{domain}.enable")

    def look_like(self, *, width: int, height: int, dark: bool) -> None:
        """Set a screen of this size in CSS pixels."""
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 500,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])

    def allow_clipboard(self) -> None:
        """Let its pages write and read the clipboard, as a person with the focus on them may."""
        permissions = ["clipboardReadWrite", "clipboardSanitizedWrite"]
        self._browser.ask("Browser.grantPermissions", permissions=permissions, browserContextId=self._context)
        self.ask("Emulation.setFocusEmulationEnabled", enabled=True)

    def open(self, url: str) -> None:
        """Load a page."""
        self.ask("Page.navigate", url=url)
        self.wait_for("document.readyState === 'complete' && location.href !== 'about:blank'")

    def run(self, script: str) -> Any:
        """Return the value of an expression, or of the promise that it returns."""
        result = self.ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def wait_for(self, condition: str, *, timeout_seconds: float = 20.0) -> None:
        """Wait until an expression is true; fail with the page's text on a timeout."""
        deadline = time.monotonic() + timeout_seconds
        while not self.run(f"Boolean({condition})"):
            assert time.monotonic() < deadline, (
                f"never: {condition}; shown: {self.run('document.body.innerText')}"
            )
            threading.Event().wait(LOOK_SECONDS)

    def text(self, selector: str) -> str:
        """Return the text of an element."""
        return str(self.run(f"document.querySelector({json.dumps(selector)}).innerText"))

    def press(self, key: str) -> None:
        """Press a key: `Tab`, `Enter`."""
        codes = {"Tab": 9, "Enter": 13}
        text = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            self.ask(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                code=key,
                windowsVirtualKeyCode=codes[key],
                **(text if kind == "keyDown" else {}),
            )

    def complaints(self) -> list[str]:
        """Return the errors and warnings of the console, from the page's script and the browser."""
        events = self._browser.events_of(
            self._session, "Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"
        )
        return [json.dumps(event["params"]) for event in events]

    def requests(self) -> list[str]:
        """Return the requested URLs."""
        events = self._browser.events_of(self._session, "Network.requestWillBeSent")
        return [str(event["params"]["request"]["url"]) for event in events]

    def picture(self, *, height: int | None = None) -> bytes:
        """Return a PNG of the screen; with a height, of the page's top part."""
        size = self.ask("Page.getLayoutMetrics")["cssLayoutViewport"]
        clip = {"x": 0, "y": 0, "width": size["clientWidth"], "height": height or size["clientHeight"]}
        shot = self.ask(
            "Page.captureScreenshot", format="png", clip={**clip, "scale": 1}, captureBeyondViewport=True
        )
        return base64.b64decode(shot["data"])


@pytest.fixture(scope="session")
def chromium() -> Iterator[Chromium]:
    """Return the session's browser; without Chromium tests fail in CI and are skipped elsewhere."""
    try:
        chromium_command()
    except ChromiumMissing as missing:
        if os.environ.get("CI"):
            pytest.fail(str(missing), pytrace=False)
        pytest.skip(str(missing))
    with started_chromium() as browser:
        yield browser


@contextlib.contextmanager
def started_chromium() -> Iterator[Chromium]:
    """Run a browser until the block ends."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = Chromium(Path(profile))
        try:
            yield browser
        finally:
            browser.close()
