"""JupyterLab itself, driven once in a real browser: open the experiment, run all cells, see the result."""

import json
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress

import nbformat
import pytest
from browser import chromium, has_chromium
from conftest import ROOT
from playwright.sync_api import TimeoutError as NotInTime
from playwright.sync_api import expect

pytestmark = pytest.mark.process
SMALL = {"weights": "none", "image_size": 32, "head_epochs": 1, "finetune_epochs": 1, "max_examples": 60, "amount": 1}


@pytest.fixture
def lab(tmp_path):
    """JupyterLab's address, on a copy of the notebooks with small parameters."""
    for folder in ("notebooks", "params"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    path = tmp_path / "notebooks" / "experiment.ipynb"
    notebook = nbformat.read(path, as_version=4)
    cell = next(cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    for name, value in SMALL.items():
        cell.source = re.sub(rf"^{name} = \S+", f"{name} = {json.dumps(value)}", cell.source, flags=re.MULTILINE)
    nbformat.write(notebook, path)

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", f"--port={port}", "--ip=127.0.0.1", "--allow-root"]
    command += ["--IdentityProvider.token=", "--ServerApp.password=", "--LabApp.collaborative=False"]
    with (tmp_path / "lab.log").open("wb") as log:
        server = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(120):
            try:
                urllib.request.urlopen(f"{url}/api", timeout=1)
                break
            except OSError:
                time.sleep(0.5)
        else:
            pytest.fail((tmp_path / "lab.log").read_text())
        yield url
    finally:
        server.terminate()
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:  # a busy machine: its kernels may take their time
            server.kill()
            server.wait()


def run_all(page) -> None:
    """Run all cells; again where none was queued, since without a kernel JupyterLab clears the cells and runs none."""
    queued = page.locator(".jp-InputPrompt", has_text=re.compile(r"\[[*\d]"))
    for _ in range(8):
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_text("Run All Cells", exact=True).click()
        with suppress(NotInTime):
            return queued.first.wait_for(state="attached", timeout=15_000)
    pytest.fail(f"No cell was queued: {page.locator('.jp-Notebook').inner_text()}")


@has_chromium
def test_open_run_all_and_see_the_result(lab, tmp_path):
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(f"{lab}/lab/tree/notebooks/experiment.ipynb?reset")
        expect(page.get_by_role("heading", name="One experiment: unfreeze")).to_be_visible(timeout=60_000)
        idle = page.locator(".jp-Notebook-ExecutionIndicator[data-status='idle']")
        expect(idle).to_be_visible(timeout=120_000)
        run_all(page)
        record = tmp_path / "outputs" / "lab" / "mobilenet-blocks-1" / "record.json"
        for _ in range(480):
            if (
                record.exists()
                or page.locator(".jp-RenderedText[data-mime-type='application/vnd.jupyter.stderr']").count()
            ):
                break
            page.wait_for_timeout(500)
        assert record.exists(), page.locator(".jp-Notebook").inner_text()
        page.keyboard.press("Escape")
        page.locator(".jp-Notebook").press("Control+End")
        expect(page.locator("figcaption", has_text="The run in figures.")).to_be_visible(timeout=20_000)
        expect(page.get_by_role("cell", name="Trainable parameters", exact=True)).to_be_visible()
        page.screenshot(path=tmp_path / "lab.png")
