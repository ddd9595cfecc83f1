"""Open a page in a headless Chromium without a network and tell what it shows, asks for and complains of."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from playwright.sync_api import Browser, ConsoleMessage, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

# A chart that fails leaves a rejected promise.
COUNT_FAILURES = (
    "window.failures = 0; "
    "for (const kind of ['error', 'unhandledrejection']) addEventListener(kind, () => window.failures++)"
)
ALL_DRAWN = """
    document.querySelectorAll('.chart svg').length + window.failures >= document.querySelectorAll('.chart').length
"""
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


@contextmanager
def open_browser() -> Iterator[Browser]:
    """The system's Chromium with a fresh profile, for the length of a `with` block."""
    # Playwright is given the system's browser, so that nobody has to download its own.
    with sync_playwright() as playwright, playwright.chromium.launch(executable_path=CHROMIUM) as browser:
        yield browser


def visit(browser: Browser, page: Path, width: int) -> Visit:
    """Open `page` in a window `width` pixels wide, wait until its charts are drawn or have failed, look at it."""
    requests: list[str] = []
    exceptions: list[str] = []
    messages: list[ConsoleMessage] = []
    with browser.new_page(viewport={"width": width, "height": 900}, is_mobile=width < 600, offline=True) as tab:
        tab.on("request", lambda request: requests.append(request.url))
        tab.on("pageerror", lambda error: exceptions.append(str(error)))
        tab.on("console", lambda message: messages.append(message))
        tab.add_init_script(COUNT_FAILURES)
        tab.goto(page.as_uri())
        tab.wait_for_function(ALL_DRAWN, timeout=60_000)
        complaints = [message.text for message in messages if message.type in ("error", "assert")]
        return Visit(
            screenshot=tab.screenshot(full_page=True),
            requests=[url for url in requests if not url.startswith(("file:", "data:", "blob:"))],
            errors=exceptions + complaints,
            **tab.evaluate(MEASURES),
        )
