"""A headless Chromium, where one is installed."""

import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest
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
    """Return the page, checked at two widths: nothing too wide, no complaint, nothing fetched, every image there."""
    for width in (1280, 390):
        page = browser.new_page(viewport={"width": width, "height": 900})
        requests, complaints = watched(page)
        page.goto(html.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert not [url for url in requests if not url.startswith(("file:", "data:"))]
        assert not complaints
        assert page.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
    return page
