"""A whole study on folds, with learning rates that it chooses, on photos in a folder: killed in the middle."""

import os
import re
import signal

import nbformat
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from own_photos import fill
from test_survival import Project, below, gone, until

from thaw.study import rates

pytestmark = pytest.mark.process
STUDY = {"folds": 5, "choosing_folds": 1, "learning_rates": {"head": [1e-2, 1e-3], "finetune": [1e-3]}}
GIVEN = ("head_learning_rate", "finetune_learning_rate")


def test_a_study_goes_on_with_the_next_fold_also_where_folds_are_spread(tmp_path):
    project = Project(tmp_path / "project", [1])
    photos = {"dataset": f"folder:{fill(project.folder / 'photos', {'round': 15, 'square': 15})}"}
    project.profile("tiny", without=GIVEN, **photos, max_examples=None, study=STUDY)
    first = project.start()
    said = until(first, "fold 2: epoch 2 of 2 (fine-tuning)")
    processes = below(first)
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    assert gone(processes, 20)
    assert said.count("has seen all 30 photos once") == 1, "for the choice and all folds"
    study = project.study()
    (job,) = study.ready()  # its rates are chosen
    assert 1 in set(job.experiment.tested_folds) - set(job.unfinished_folds())
    kept, left = job.read()[0], {str(fold) for fold in job.unfinished_folds()}

    project.profile("tiny", without=GIVEN, **photos, max_examples=None, study=STUDY | {"spread": "folds"})
    status, said = project.report()
    assert status == 0, said
    assert "learning rates" not in said.lower() and "fold 1: epoch" not in said, "what was done is not done again"
    spread = set(re.findall(r"blocks-1, seed 0, 4 folds, fold (\d): ", said))
    assert left and left <= spread
    again = job.read()
    assert [run.record.experiment.fold for run in again] == [1, 2, 3, 4]
    assert again[0].record == kept.record
    assert {run.record.experiment.head_learning_rate for run in again} == {job.choice.chosen()[rates.HEAD]}
    tested = pd.concat([run.predictions for run in again])["key"]
    assert tested.is_unique and len(tested) == 24, "each photo of four of five folds"
    notebook = nbformat.read(job.directory / "experiment.ipynb", as_version=4)
    assert [cell for cell in notebook.cells if cell.cell_type == "code" and cell.outputs]
    html = BeautifulSoup((study.outputs / "report.html").read_text(encoding="utf-8"), "html.parser")
    assert "4 folds" in " ".join(html.get_text(" ").split())
    card = (study.outputs / "model" / "README.md").read_text(encoding="utf-8")
    assert "of 24 photos correctly" in card and "; 4 folds)" in card
    assert not list(job.directory.glob("folds/*")), "gathered"
