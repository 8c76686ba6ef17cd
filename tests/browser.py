"""A headless Chromium, where one is installed, and JupyterLab to drive with it."""

import itertools
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import TimeoutError as NotInTime
from playwright.sync_api import expect, sync_playwright

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


@contextmanager
def jupyterlab(folder: Path):
    """JupyterLab's address, started in a folder, and stopped at the end."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", f"--port={port}", "--ip=127.0.0.1", "--allow-root"]
    command += ["--IdentityProvider.token=", "--ServerApp.password=", "--LabApp.collaborative=False"]
    with (folder / "lab.log").open("wb") as log:
        server = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(120):
            try:
                urllib.request.urlopen(f"{url}/api", timeout=1)
                break
            except OSError:
                time.sleep(0.5)
        else:
            pytest.fail((folder / "lab.log").read_text())
        yield url
    finally:
        server.terminate()
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:  # a busy machine: its kernels may take their time
            server.kill()
            server.wait()


def open_notebook(browser, address: str, heading: str, height: int = 900):
    """Open a notebook in JupyterLab, and wait for its kernel; the page."""
    page = browser.new_page(viewport={"width": 1280, "height": height})  # cells below it are not in the page
    page.goto(f"{address}?reset")
    expect(page.get_by_role("heading", name=heading)).to_be_visible(timeout=60_000)
    idle = page.locator(".jp-Notebook-ExecutionIndicator[data-status='idle']")
    expect(idle).to_be_visible(timeout=120_000)
    return page


def run_all(page) -> None:
    """Run all cells; again where none was queued, since without a kernel JupyterLab clears the cells and runs none."""
    queued = page.locator(".jp-InputPrompt", has_text=re.compile(r"\[[*\d]"))
    for _ in range(8):
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_text("Run All Cells", exact=True).click()
        with suppress(NotInTime):
            return queued.first.wait_for(state="attached", timeout=15_000)
    pytest.fail(f"No cell was queued: {page.locator('.jp-Notebook').inner_text()}")
