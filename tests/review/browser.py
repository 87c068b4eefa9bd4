"""A real Chromium, driven over the WebDriver protocol (https://www.w3.org/TR/webdriver2/) by its own driver.

Only what a person at the keyboard can do, and looks at the page.
"""

import base64
import json
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

DRIVER = shutil.which("chromedriver")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None,
    reason="Debian's packages chromium and chromium-driver are not here: no page can be tried in a real browser",
)
KEYS = {"Enter": "\ue007", "Escape": "\ue00c", "Tab": "\ue004", "Control": "\ue009", "End": "\ue010", "Down": "\ue015"}
_WAIT_SECONDS = 20.0


class Browser:
    """One window of a session."""

    def __init__(self, session: str) -> None:
        self._session = session

    def open(self, address: str) -> None:
        self._tell("url", {"url": address})

    def press(self, *keys: str) -> None:
        """Keys by their characters or names, one after the other; `Control+Enter` is held together."""
        actions = []
        for key in keys:
            names = [KEYS.get(name, name) for name in (key.split("+") if len(key) > 1 else [key])]
            actions += [{"type": "keyDown", "value": name} for name in names]
            actions += [{"type": "keyUp", "value": name} for name in reversed(names)]
        self._tell("actions", {"actions": [{"type": "key", "id": "keyboard", "actions": actions}]})

    def type(self, text: str) -> None:
        self.press(*text)

    def run(self, script: str) -> Any:
        return self._tell("execute/sync", {"script": script, "args": []})

    def text(self, selector: str) -> str:
        return str(self.run(f"return document.querySelector({json.dumps(selector)})?.innerText ?? ''"))

    def wait(self, what: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + _WAIT_SECONDS
        while not (found := what()):
            assert time.monotonic() < deadline, f"{self.text('#status')!r}, {self.text('#away')!r}"
            time.sleep(0.02)
        return found

    def wait_for(self, selector: str, pattern: str) -> str:
        return str(self.wait(lambda: re.search(pattern, self.text(selector)) and self.text(selector)))

    def windows(self) -> list[str]:
        return list(self._ask("window/handles"))

    def new_window(self) -> str:
        return str(self._tell("window/new", {"type": "tab"})["handle"])

    def switch(self, window: str) -> None:
        self._tell("window", {"handle": window})

    def close_window(self) -> None:
        request(f"{self._session}/window", method="DELETE")

    def picture(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self._ask("screenshot")))

    def set_media(self, scheme: str) -> None:
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self._tell("goog/cdp/execute", {"cmd": "Emulation.setEmulatedMedia", "params": {"features": features}})

    def _tell(self, what: str, content: Any) -> Any:
        return request(f"{self._session}/{what}", content)

    def _ask(self, what: str) -> Any:
        return request(f"{self._session}/{what}")


@contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """Start it; the driver and the browser end with this."""
    with subprocess.Popen([str(DRIVER), "--port=0"], stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None
        try:
            found = next(match for line in driver.stdout if (match := re.search(r"successfully on port (\d+)", line)))
            address = f"http://127.0.0.1:{found[1]}/session"
            arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1100,900"]
            arguments.append(f"--user-data-dir={profile}")
            options = {"binary": CHROMIUM, "args": arguments}
            session = request(address, {"capabilities": {"alwaysMatch": {"goog:chromeOptions": options}}})["sessionId"]
            try:
                yield Browser(f"{address}/{session}")
            finally:
                request(f"{address}/{session}", method="DELETE")
        finally:
            driver.terminate()


def request(address: str, content: Any = None, method: str | None = None) -> Any:
    body = None if content is None else json.dumps(content).encode()
    asked = urllib.request.Request(address, body, {"Content-Type": "application/json"}, method=method)
    try:
        with urllib.request.urlopen(asked, timeout=60) as answer:
            return json.load(answer)["value"]
    except urllib.error.HTTPError as error:
        raise AssertionError(json.load(error)["value"]["message"]) from None
