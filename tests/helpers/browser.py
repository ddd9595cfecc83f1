"""A headless Chromium, spoken to in its DevTools protocol over two pipes: what a page does when it is opened."""

import base64
import itertools
import json
import os
import shutil
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
]  # fmt: skip

# A chart that fails leaves a rejected promise.
COUNT_FAILURES = (
    "var failures = 0; for (const kind of ['error', 'unhandledrejection']) addEventListener(kind, () => failures++)"
)
UNTIL_DRAWN = """new Promise(done => { (function look() {
    const charts = document.querySelectorAll('.chart').length;
    const drawn = document.querySelectorAll('.chart svg').length;
    drawn + failures >= charts || performance.now() > 60000 ? done() : setTimeout(look, 50);
})() })"""
# In Vega's SVG, axes and legends have roles of their own.
MEASURES = """({
    headings: [...document.querySelectorAll('h2')].map(heading => heading.textContent),
    marks: [...document.querySelectorAll('.chart')].map(
        chart => chart.querySelectorAll('svg .role-mark path[d]:not([d=""]), svg .role-mark text').length),
    broken: [...document.images].filter(image => !image.naturalWidth).map(image => image.alt),
    width: document.scrollingElement.scrollWidth,
    boxes: [...document.querySelectorAll('h1, h2, nav, .table, figure')].map(
        element => (box => [box.left, box.top, box.right, box.bottom])(element.getBoundingClientRect())),
})"""


class Visit(NamedTuple):
    """What was seen while a page was open."""

    requests: list[str]  # addresses asked for outside the page
    errors: list[str]  # of scripts and of the console
    headings: list[str]
    marks: list[int]  # each chart's
    broken: list[str]  # images that show nothing
    width: int  # pixels, of all that the page holds
    boxes: list[tuple[float, float, float, float]]  # left, top, right, bottom of what it is made of
    screenshot: bytes  # PNG of the whole page


class Browser:
    """One Chromium with a fresh profile, for the length of a `with` block."""

    def __init__(self, profile: Path) -> None:
        self._profile = profile
        self._ids = itertools.count(1)
        self._events: list[dict[str, Any]] = []

    def __enter__(self) -> "Browser":
        assert CHROMIUM is not None
        its_input, to_browser = os.pipe()
        from_browser, its_output = os.pipe()
        command = [CHROMIUM, *FLAGS, f"--user-data-dir={self._profile}", "--remote-debugging-pipe"]
        # It reads from descriptor 3 and writes to 4.
        self._process = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3<&{its_input} 4>&{its_output}', "bash", *command],
            pass_fds=(its_input, its_output),
            stderr=subprocess.DEVNULL,
        )
        os.close(its_input)
        os.close(its_output)
        self._input, self._output = os.fdopen(to_browser, "wb"), os.fdopen(from_browser, "rb")
        self._unread = b""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._send("Browser.close")
        self._process.wait(timeout=60)
        self._input.close()
        self._output.close()

    def visit(self, page: Path, width: int, height: int = 900) -> Visit:
        """Open `page` in a window `width` pixels wide, wait until its charts are drawn or have failed, look at it."""
        target = self._send("Target.createTarget", url="about:blank")["targetId"]
        session = self._send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self._send(f"{domain}.enable", session)
        screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self._send("Emulation.setDeviceMetricsOverride", session, **screen)
        self._send("Page.addScriptToEvaluateOnNewDocument", session, source=COUNT_FAILURES)
        self._events.clear()
        self._send("Page.navigate", session, url=page.as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self._events):
            self._events.append(self._read())
        self._evaluate(session, UNTIL_DRAWN)
        measures = self._evaluate(session, MEASURES)
        picture = self._send("Page.captureScreenshot", session, captureBeyondViewport=True)["data"]
        self._send("Target.closeTarget", targetId=target)
        return Visit(
            requests=[url for url in self._urls() if not url.startswith(("file:", "data:", "blob:"))],
            errors=self._errors(),
            screenshot=base64.b64decode(picture),
            **measures,
        )

    def _urls(self) -> list[str]:
        return [
            event["params"]["request"]["url"]
            for event in self._events
            if event["method"] == "Network.requestWillBeSent"
        ]

    def _errors(self) -> list[str]:
        kinds = {
            "Runtime.exceptionThrown": lambda params: True,
            "Runtime.consoleAPICalled": lambda params: params["type"] in ("error", "assert"),
            "Log.entryAdded": lambda params: params["entry"]["level"] == "error",
        }
        return [
            json.dumps(event["params"])
            for event in self._events
            if event["method"] in kinds and kinds[event["method"]](event["params"])
        ]

    def _evaluate(self, session: str, expression: str) -> Any:
        answer = self._send("Runtime.evaluate", session, expression=expression, awaitPromise=True, returnByValue=True)
        return answer["result"].get("value")

    def _send(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """The answer; events that come before it are kept."""
        message: dict[str, Any] = {"id": next(self._ids), "method": method, "params": params}
        if session:
            message["sessionId"] = session
        self._input.write(json.dumps(message).encode() + b"\0")
        self._input.flush()
        while True:
            answer = self._read()
            if answer.get("id") == message["id"]:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result
            if "method" in answer:
                self._events.append(answer)

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._unread:
            some = os.read(self._output.fileno(), 1 << 20)
            assert some, "the browser ended"
            self._unread += some
        message, self._unread = self._unread.split(b"\0", 1)
        answer: dict[str, Any] = json.loads(message)
        return answer
