"""A whole study with folds and chosen learning rates on photos in a folder, killed in the middle, to its report."""

import os
import signal
import subprocess

import nbformat
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from own_photos import fill
from test_survival import Project, below, gone, until

from thaw.study import rates

pytestmark = pytest.mark.process
STUDY = {"folds": 5, "choosing_folds": 1, "learning_rates": {"head": [1e-2, 1e-3], "finetune": [1e-3]}}


def test_a_study_on_folds_goes_on_with_the_next_fold_and_spreads_them(tmp_path):
    project = Project(tmp_path / "project", [0, 1])
    photos = fill(project.folder / "photos", {"round": 15, "square": 15})
    own = {"dataset": f"folder:{photos}", "max_examples": None}
    for name in ("head_learning_rate", "finetune_learning_rate"):
        project.remove(name)
    project.profile("tiny", **own, study=STUDY)
    first = project.start()
    said = until(first, "fold 2")
    assert said.count("has seen all 30 photos once") == 1
    processes = below(first)
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    assert gone(processes, 20)
    study = project.study()
    assert study.to_choose() == []
    assert len(rates.table(study)) >= 5
