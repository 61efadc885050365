"""Open pages in a real browser: Debian's chromium, headless, by its DevTools protocol.

The protocol's messages are JSON objects, each followed by a zero byte, on the browser's file
descriptors 3 and 4 (--remote-debugging-pipe), so that no port and no library is needed.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

CHROMIUM = shutil.which("chromium")

# What a person would see of a page's pictures and width.
_EXPRESSION = """(async () => {
  const images = [...document.images];
  await Promise.allSettled(images.map(image => image.decode()));
  return {
    width: document.documentElement.scrollWidth,
    window: document.documentElement.clientWidth,
    images: images.length,
    broken: images.filter(image => !image.naturalWidth).map(image => image.alt),
    title: document.title,
    text: document.body.innerText,
    page: getComputedStyle(document.body).backgroundColor,
  };
})()"""


@dataclass
class PageView:
    """What a person would see of a page in a window of some width."""

    width: int
    """of the page, in CSS pixels"""
    window: int
    images: int
    broken: list[str]
    """the alternative texts of the pictures that have not loaded"""
    title: str
    text: str
    page: str
    """colour of the background"""
    complaints: list[str] = field(default_factory=list)
    """errors and warnings of the console, and what scripts threw"""
    requests: list[str] = field(default_factory=list)
    """addresses asked for besides the page itself"""


class Browser:
    """Chromium with one tab; use it as a context.

    Args:
        profile: an empty folder for it to write to.
        more: further words of its command line.
    """

    def __init__(self, profile: Path, *more: str) -> None:
        assert CHROMIUM is not None
        read_commands, write_commands = os.pipe()
        read_answers, write_answers = os.pipe()
        words = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        words += ["--remote-debugging-pipe", f"--user-data-dir={profile}", *more, "about:blank"]
        # The shell moves the pipes to where chromium looks for them.
        script = f'exec "$@" 3<&{read_commands} 4>&{write_answers}'
        self._process = subprocess.Popen(
            ["/bin/bash", "-c", script, "chromium", CHROMIUM, *words],
            pass_fds=(read_commands, write_answers),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(read_commands)
        os.close(write_answers)
        self._commands = os.fdopen(write_commands, "wb", buffering=0)
        self._answers = os.fdopen(read_answers, "rb", buffering=0)
        self._received = b""
        self._numbers = itertools.count(1)
        self._events: list[dict[str, Any]] = []
        self._session: str | None = None

    def __enter__(self) -> Self:
        targets = self._ask("Target.getTargets")["targetInfos"]
        page = next(target["targetId"] for target in targets if target["type"] == "page")
        answer = self._ask("Target.attachToTarget", targetId=page, flatten=True)
        self._session = answer["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "DOM"):
            self._ask(f"{domain}.enable")
        return self

    def __exit__(self, *_: object) -> None:
        self._session = None
        try:
            self._ask("Browser.close")
            self._process.wait(timeout=20)
        finally:
            self._process.kill()
            self._process.wait()
            self._commands.close()
            self._answers.close()

    def open(self, page: Path | str, width: int, *, dark: bool = False) -> PageView:
        """Open a file or an address in a window `width` CSS pixels wide; return what is seen."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._ask("Emulation.setEmulatedMedia", features=[scheme])
        phone = width < 600
        self._ask(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=800, deviceScaleFactor=2 if phone else 1, mobile=phone,
        )  # fmt: skip
        self._events.clear()
        self._address = page if isinstance(page, str) else page.resolve().as_uri()
        assert "errorText" not in self._ask("Page.navigate", url=self._address)
        self._wait("Page.loadEventFired")
        return self.look()

    def look(self) -> PageView:
        """Return what is seen now, and all complaints and requests since the page was opened."""
        view = PageView(**self.evaluate(_EXPRESSION))
        for event in self._events:
            match event["method"]:
                case "Runtime.consoleAPICalled" | "Runtime.exceptionThrown" | "Log.entryAdded":
                    view.complaints.append(json.dumps(event["params"]))
                case "Network.requestWillBeSent":
                    asked = event["params"]["request"]["url"]
                    if asked != self._address and not asked.startswith(("data:", "blob:")):
                        view.requests.append(asked)
        return view

    def evaluate(self, expression: str) -> Any:
        """Return what an expression of JavaScript gives in the open page."""
        answer = self._ask(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def press(self, key: str) -> None:
        """Press a key, such as Enter or Tab, as on a keyboard."""
        code = {"Enter": 13, "Tab": 9}[key]
        text = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            self._ask(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key,
                windowsVirtualKeyCode=code, **(text if kind == "keyDown" else {}),
            )  # fmt: skip

    def print(self, path: Path) -> None:
        """Write the open page as it is printed, as PDF on A4."""
        size = {"paperWidth": 8.27, "paperHeight": 11.69, "printBackground": True}
        path.write_bytes(base64.b64decode(self._ask("Page.printToPDF", **size)["data"]))

    def wait_until(self, condition: str) -> None:
        """Wait until an expression is true; pytest's time limit ends a vain wait."""
        self.evaluate(f"""new Promise(done => {{
          const look = () => ({condition}) ? done() : setTimeout(look, 20);
          look();
        }})""")

    def choose_files(self, selector: str, *files: Path) -> None:
        """Choose files in an input of a page, as a person would."""
        root = self._ask("DOM.getDocument")["root"]["nodeId"]
        node = self._ask("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self._ask("DOM.setFileInputFiles", nodeId=node, files=[str(file) for file in files])

    def screenshot(self, path: Path) -> None:
        """Write a picture of the whole open page, as PNG."""
        answer = self._ask("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(answer["data"]))

    def _ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and return its answer; keep the events that come before it."""
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._commands.write(json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == number:
                assert "error" not in answer, (method, answer)
                result: dict[str, Any] = answer["result"]
                return result

    def _wait(self, method: str) -> None:
        while all(event["method"] != method for event in self._events):
            self._receive()

    def _receive(self) -> dict[str, Any]:
        """Return the next message; keep it if it is an event."""
        while b"\0" not in self._received:
            piece = self._answers.read(2**16)
            assert piece, "the browser has ended"
            self._received += piece
        line, _, self._received = self._received.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        if "method" in message:
            self._events.append(message)
        return message
