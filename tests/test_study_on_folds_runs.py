"""A whole study on folds, with learning rates that it chooses, on photos in a folder: killed again and again."""

import random
import re

import nbformat
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from own_photos import fill
from test_survival import KINDS, Project, kill_often

from thaw.study import rates

pytestmark = pytest.mark.process
STUDY = {"folds": 5, "choosing_folds": 1, "learning_rates": {"head": [1e-2, 1e-3], "finetune": [1e-3]}}


def on_folds(project: Project, photos: dict, **settings) -> None:
    given = ("head_learning_rate", "finetune_learning_rate")
    project.profile("tiny", without=given, **photos, max_examples=None, study=STUDY | settings)


def test_a_study_killed_five_times_is_the_one_that_nobody_disturbed(tmp_path):
    """In that one, each fold is a job of its own."""
    photos = {"dataset": f"folder:{fill(tmp_path / 'photos', {'round': 15, 'square': 15})}"}
    project, undisturbed = (Project(tmp_path / name, [1]) for name in ("killed", "undisturbed"))
    on_folds(undisturbed, photos, spread="folds")
    other = undisturbed.start()
    on_folds(project, photos)
    killed = kill_often(project, KINDS, most=8, rng=random.Random(0))
    assert killed == list(KINDS)
    said_by_other, _ = other.communicate()
    assert other.returncode == 0, said_by_other
    assert said_by_other.count("has seen all 30 photos once") == 1, "for the choice and all folds"

    assert project.results() == undisturbed.results()
    (rows, answer), (expected_rows, expected) = (each.report_in_figures() for each in (project, undisturbed))
    pd.testing.assert_frame_equal(rows, expected_rows, check_exact=True)
    assert answer == expected
    assert set(re.findall(r"blocks-1, seed 0, 4 folds, fold (\d): ", said_by_other)) == set("1234")
    study = project.study()
    (job,) = study.jobs
    again = job.read()
    assert [run.record.experiment.fold for run in again] == [1, 2, 3, 4]
    assert {run.record.experiment.head_learning_rate for run in again} == {job.choice.chosen()[rates.HEAD]}
    tested = pd.concat([run.predictions for run in again])["key"]
    assert tested.is_unique and len(tested) == 24, "each photo of four of five folds"
    notebook = nbformat.read(job.notebook, as_version=4)
    assert [cell for cell in notebook.cells if cell.cell_type == "code" and cell.outputs]
    html = BeautifulSoup((study.outputs / "report.html").read_text(encoding="utf-8"), "html.parser")
    assert "4 folds" in " ".join(html.get_text(" ").split())
    card = (study.outputs / "model" / "README.md").read_text(encoding="utf-8")
    assert "of 24 photos correctly" in card and "; 4 folds)" in card
    assert not list(job.directory.glob("folds/*")), "gathered"
