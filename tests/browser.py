"""Headless Chromium for tests of pages: no network, a fresh profile, and everything the page complained about."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

from selenium import webdriver
from selenium.webdriver.chrome.service import Service

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@contextlib.contextmanager
def chromium(
    width: int = 1280, height: int = 900, dark: bool = False, touch: bool = False
) -> Iterator[webdriver.Chrome]:
    """A browser whose viewport is exactly `width` x `height` CSS pixels.

    Raises:
        RuntimeError: chromium or chromedriver is not on the PATH.
    """
    binary, driver = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
    if binary is None or driver is None:
        raise RuntimeError("browser tests need chromium and chromedriver on the PATH (or run pytest -m 'not browser')")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = binary
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        browser = webdriver.Chrome(options, Service(driver))
        try:
            metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": touch}
            browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
            scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
            browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
            browser.get("about:blank")
            browser.get_log("performance")  # forget the browser's own start page
            yield browser
        finally:
            browser.quit()


def complaints(browser: webdriver.Chrome) -> list[str]:
    """What the page has written to the console since the last call (errors, warnings, policy violations)."""
    return [entry["message"] for entry in browser.get_log("browser")]


def requests(browser: webdriver.Chrome) -> list[str]:
    """The URLs that were requested since the last call, without `data:` URIs, which are part of the page."""
    messages: list[dict[str, Any]] = [
        json.loads(entry["message"])["message"] for entry in browser.get_log("performance")
    ]
    urls = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    return [url for url in urls if not url.startswith("data:")]


def horizontal_overflow(browser: webdriver.Chrome) -> int:
    """By how many pixels the page is wider than its window."""
    return int(browser.execute_script("const e = document.documentElement; return e.scrollWidth - e.clientWidth"))


def overlapping_texts(browser: webdriver.Chrome, within: str) -> list[str]:
    """Pairs of texts in one visible plot that lie on each other, of the plots inside of a CSS selector."""
    return list(browser.execute_script(_TEXTS_OVERLAP, within))


_TEXTS_OVERLAP = """
const plots = [...document.querySelectorAll(arguments[0] + " svg")].filter((svg) => svg.checkVisibility());
const found = [];
for (const svg of plots) {
  const texts = [...svg.querySelectorAll("text")].map((t) => [t.textContent, t.getBoundingClientRect()]);
  texts.forEach(([a, p], i) => texts.slice(i + 1).forEach(([b, q]) => {
    const w = Math.min(p.right, q.right) - Math.max(p.left, q.left);
    const h = Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top);
    if (w > 2 && h > 4) found.push(a + " | " + b);
  }));
}
return found;
"""


def screenshot(browser: webdriver.Chrome, full_page: bool = True) -> bytes:
    """A PNG of the page."""
    import base64

    answer = browser.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": full_page, "format": "png"})
    return base64.b64decode(answer["data"])
