"""A headless Chromium, where one is installed."""

import itertools
import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def has_chromium(test):
    """Mark a test that drives a browser: it needs Chromium, and starts processes."""
    return pytest.mark.process(pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium on the PATH")(test))


@contextmanager
def chromium():
    """A browser, closed at the end."""
    flags = [
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
    ]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield browser
        browser.close()


def watched(page) -> tuple[list[str], list[str]]:
    """Collect the addresses that a page asks for, and its complaints."""
    requests: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    return requests, complaints


def assert_clean(browser, html: Path):
    """Return the page, checked at two widths in both themes.

    It is small, nothing is too wide, nothing is fetched, every image is there,
    and neither the browser nor the accessibility checker complains.
    """
    assert html.stat().st_size < 5_000_000
    for width, theme in itertools.product((1280, 390), ("light", "dark")):
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=theme)
        requests, complaints = watched(page)
        page.goto(html.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
        found = Axe().run(page)
        assert not found.violations_count, found.generate_report()
        assert all(url.startswith("data:") for url in requests if url != html.as_uri())
        assert not complaints
    return page
