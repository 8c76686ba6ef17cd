"""JupyterLab itself, driven once in a real browser: open the experiment, run all cells, see the result."""

import json
import re
import shutil

import nbformat
import pytest
from browser import chromium, has_chromium, jupyterlab, open_notebook, run_all
from conftest import ROOT
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

    with jupyterlab(tmp_path) as url:
        yield url


@has_chromium
def test_open_run_all_and_see_the_result(lab, tmp_path):
    with chromium() as browser:
        page = open_notebook(
            browser, f"{lab}/lab/tree/notebooks/experiment.ipynb", "One experiment: unfreeze", height=16_000
        )
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
        expect(page.locator("figcaption", has_text="The run in figures.")).to_be_visible(timeout=20_000)
        expect(page.locator("figcaption", has_text="The loss of the eight photos")).to_be_visible(timeout=60_000)
        expect(page.get_by_role("cell", name="Trainable parameters", exact=True)).to_be_visible()
        page.screenshot(path=tmp_path / "lab.png")
