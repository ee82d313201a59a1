"""Chromium without a window, driven over DevTools' pipe: no package is needed, and no port is opened.

with Browser() as browser:
    page = browser.page(800, 600)
    page.open(Path("report.html"))
    print(page.run("document.title"), page.complaints)
"""

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "chrome")
# As little of a browser as possible: nothing asks the network, nothing is kept.
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-default-apps", "--disable-extensions",
    "--disable-dev-shm-usage", "--hide-scrollbars", "--mute-audio", "--remote-debugging-pipe", "about:blank",
)  # fmt: skip
# The browser reads its orders from 3 and answers on 4; first out of each other's way.
_START = """import os, sys
orders, answers = (os.dup(int(word)) for word in sys.argv[1:3])
os.dup2(orders, 3)
os.dup2(answers, 4)
for number in (3, 4):
    os.set_inheritable(number, True)
os.execv(sys.argv[3], sys.argv[3:])"""


def program() -> str | None:
    """The path of a Chromium that is installed; None without one."""
    return next((path for name in PROGRAMS if (path := shutil.which(name))), None)


class Browser:
    """A browser in a new profile of its own, until the end of `with`. Raises TimeoutError where it does not answer."""

    def __init__(self, within_s: float = 60.0):
        path = program()
        if path is None:
            raise FileNotFoundError("no Chromium: apt-get install chromium")
        self._within_s, self._count, self._rest = within_s, 0, b""
        self._profile = tempfile.TemporaryDirectory(prefix="browser-", ignore_cleanup_errors=True)
        from_us, self._to_browser = os.pipe()
        self._from_browser, from_browser = os.pipe()

        starter = [sys.executable, "-S", "-c", _START, str(from_us), str(from_browser)]
        self._process = subprocess.Popen(
            [*starter, path, *_FLAGS, f"--user-data-dir={self._profile.name}"], stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, pass_fds=(from_us, from_browser),
            env={**os.environ, "HOME": self._profile.name, "XDG_CONFIG_HOME": self._profile.name},
        )  # fmt: skip
        os.close(from_us)
        os.close(from_browser)
        self.events: list[dict[str, Any]] = []

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._to_browser)
        os.close(self._from_browser)
        self._profile.cleanup()

    def page(self, width: int = 1200, height: int = 900) -> "Page":
        target = self.send("Target.createTarget", {"url": "about:blank"})["targetId"]
        session = self.send("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        return Page(self, session, width, height)

    def send(self, method: str, params: dict[str, Any] | None = None, session: str | None = None) -> dict[str, Any]:
        """The result of a DevTools command. Raises RuntimeError where it has none."""
        self._count += 1
        order: dict[str, Any] = {"id": self._count, "method": method, "params": params or {}}
        if session:
            order["sessionId"] = session
        os.write(self._to_browser, json.dumps(order).encode() + b"\0")
        while True:
            message = self.receive()
            if message.get("id") == order["id"]:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                return message["result"]

    def receive(self) -> dict[str, Any]:
        """The next message; an event is kept in `events` too."""
        until = time.monotonic() + self._within_s
        while b"\0" not in self._rest:
            if not select.select([self._from_browser], [], [], max(0.0, until - time.monotonic()))[0]:
                raise TimeoutError(f"the browser said nothing for {self._within_s:g} s")
            if not (more := os.read(self._from_browser, 1 << 16)):
                raise TimeoutError("the browser has ended")
            self._rest += more
        line, _, self._rest = self._rest.partition(b"\0")
        message = json.loads(line)
        if "method" in message:
            self.events.append(message)
        return message


class Page:
    """A tab. `complaints` are what went wrong or was asked for since it was opened: errors, dialogs, requests."""

    def __init__(self, browser: Browser, session: str, width: int, height: int):
        self._browser, self._session = browser, session
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")
        self.resize(width, height)

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        return self._browser.send(method, params, self._session)

    def resize(self, width: int, height: int = 900, scale: float = 1) -> None:
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale,
                  mobile=width < 500)  # fmt: skip

    def dark(self, on: bool = True) -> None:
        scheme = {"name": "prefers-color-scheme", "value": "dark" if on else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])

    def open(self, path: Path) -> None:
        """Opens a file and waits until it is loaded."""
        self._browser.events.clear()
        self.send("Page.navigate", url=path.resolve().as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self._browser.events):
            event = self._browser.receive()
            if event.get("method") == "Page.javascriptDialogOpening":  # else it would wait for ever
                os.write(
                    self._browser._to_browser,
                    json.dumps({"id": 0, "method": "Page.handleJavaScriptDialog", "params": {"accept": True},
                                "sessionId": self._session}).encode() + b"\0",
                )  # fmt: skip

    def run(self, script: str) -> Any:
        """The value of a script's last expression, a promise's when it has one. Raises RuntimeError where it throws."""
        result = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(result["exceptionDetails"].get("exception", {}).get("description", "an exception"))
        return result["result"].get("value")

    def press(self, key: str) -> None:
        """A key of the keyboard, as Tab or Enter."""
        codes = {"Tab": 9, "Enter": 13, "ArrowLeft": 37, "ArrowRight": 39, " ": 32}
        text = {"Enter": "\r", " ": " "}.get(key, "")
        for kind in ("keyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=codes[key],
                      text=text if kind == "keyDown" else "")  # fmt: skip

    @property
    def complaints(self) -> list[str]:
        self.run("0")  # events until now have then arrived
        made = []
        for event in self._browser.events:
            method, params = event["method"], event["params"]
            if method == "Runtime.exceptionThrown":
                made.append(f"exception: {params['exceptionDetails'].get('text')}")
            elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
                made.append(f"console: {params['args']}")
            elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
                made.append(f"log: {params['entry']['text']}")
            elif method == "Page.javascriptDialogOpening":
                made.append(f"dialog: {params['message']}")
            elif method == "Network.requestWillBeSent":
                url = params["request"]["url"]
                if params.get("type") != "Document" and not url.startswith("data:"):
                    made.append(f"request: {url}")
            elif method == "Page.frameNavigated" and params["frame"].get("parentId"):
                made.append(f"frame: {params['frame'].get('url')}")
        return made

    def screenshot(self, path: Path, whole: bool = True) -> None:
        """A PNG of the window, or of the page in its `whole` height."""
        options: dict[str, Any] = {"format": "png", "captureBeyondViewport": whole}
        if whole:
            size = self.send("Page.getLayoutMetrics")["cssContentSize"]
            options["clip"] = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        data = self.send("Page.captureScreenshot", **options)["data"]
        path.write_bytes(base64.b64decode(data))
