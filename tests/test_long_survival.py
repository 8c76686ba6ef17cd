"""Studies whose processes are killed thirty times: half an hour, under `make test-long`."""

import random
import shutil
from collections import Counter

import pandas as pd
import pytest
from test_study_on_folds_runs import on_folds
from test_survival import KINDS, Project, kill_often

KILLS = 30
PHOTOS = {"dataset": "demo_flowers"}


@pytest.mark.long
@pytest.mark.parametrize("spread", ["configurations", "folds"])
def test_a_study_killed_thirty_times_is_the_one_that_nobody_disturbed(tmp_path, capsys, spread):
    """Each study is begun anew until there were fifteen kills: on folds and with rates that are chosen."""
    undisturbed = Project(tmp_path / "undisturbed", [0, 1, 2])
    on_folds(undisturbed, PHOTOS, seeds=[0, 1])
    status, said = undisturbed.report()
    assert status == 0, said
    seed = random.randrange(10**6)
    with capsys.disabled():
        print(f"\nseed {seed}, {spread}")
    rng, killed, studies = random.Random(seed), [], 0
    while len(killed) < KILLS // 2:
        studies += 1
        project = Project(tmp_path / "killed", [0, 1, 2])
        on_folds(project, PHOTOS, seeds=[0, 1], spread=spread)
        now = kill_often(project, rng.choices(KINDS, k=KILLS // 2 - len(killed)), most=30, rng=rng)
        killed += now
        assert project.results() == undisturbed.results()
        (rows, answer), (expected_rows, expected) = (each.report_in_figures() for each in (project, undisturbed))
        pd.testing.assert_frame_equal(rows, expected_rows, check_exact=True)
        assert answer == expected
        shutil.rmtree(project.folder)
    with capsys.disabled():
        print(f"{studies} studies; killed: {dict(Counter(killed))}")
