"""A study's results, read back and put together."""

import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest
from conftest import ROOT
from invented import flat, invented
from test_record import made_up_run
from test_study import profile

from thaw.errors import InvalidParameter, InvalidRecord
from thaw.records import runs
from thaw.report.folds import Compared, compared
from thaw.report.results import Results
from thaw.study.claims import Selection
from thaw.study.study import Job, Study


def test_what_a_study_has_left(tmp_path):
    only = {"configurations": ["mobilenet-frozen", "mobilenet-blocks-2"], "margin": 0.03}
    study = Study.load(profile(tmp_path, study=only), tmp_path)
    runs.save(study.jobs[0].directory, *made_up_run(**study.jobs[0].experiment.model_dump()))
    results = Results.of(study)
    assert (len(results.runs), results.planned, results.margin) == (1, 2, 0.03)
    assert results.latency is None
    assert results.rows["latency"].isna().all()
    assert results.experiment.dataset == "demo_flowers"
    assert results.data["sha256"] == "0"
    assert results.titles == {"mobilenet": "MobileNet"}
    assert results.title("no_run_of_it") == "no_run_of_it"
    assert results.replication is None, "the profile names no claims"


def test_a_study_has_the_claims_that_its_profile_names(tmp_path):
    only = {"configurations": ["mobilenet-frozen", "mobilenet-blocks-2"], "claims": "original"}
    study = Study.load(profile(tmp_path, study=only), tmp_path, ROOT)
    runs.save(study.jobs[0].directory, *made_up_run(**study.jobs[0].experiment.model_dump()))
    replication = Results.of(study).replication
    assert len(replication.original) == 14
    assert len(replication.stated) == 19
    assert len(replication.added) == 1
    assert not replication.same_data, "the claims are about another data set"


@pytest.mark.parametrize("margin", [0, 1, -0.1, "wide"])
def test_a_margin_that_is_none_is_refused(tmp_path, margin):
    with pytest.raises(InvalidParameter, match="study.margin"):
        Study.load(profile(tmp_path, study={"margin": margin}), tmp_path)


def test_one_experiment_a_network_is_measured(tmp_path):
    study = Study.load(profile(tmp_path, study={"seeds": [3, 4]}), tmp_path, ROOT)
    assert len(study.jobs) == 32
    assert [experiment.backbone for experiment in study.networks()] == ["resnet50", "mobilenet"]


def test_configurations_are_compared_at_like_numbers_of_parameters():
    results = invented(flat, photos=40)
    blocks, layers, frozen = (Selection(strategy=name).rows(results.rows) for name in ("blocks", "layers", "frozen"))
    effect, pairs = results.at_like_parameters(blocks, layers)
    names = [(block["backbone"], block["amount"], layer["amount"]) for block, layer in pairs]
    assert names == [(b, *amounts) for b in ("resnet50", "mobilenet") for amounts in ((2, 10), (10, 40))]
    assert effect.mean == 0
    assert results.at_like_parameters(blocks, frozen) is None


def test_results_and_verdicts_are_computed_without_tensorflow():
    code = "import sys, thaw.report.replication; sys.exit(any(m in sys.modules for m in ('tensorflow', 'keras')))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# ---- folds --------------------------------------------------------------------------------------


def of_folds(finished: dict[str, dict[int, str]], folds: int = 8) -> Compared:
    """Compare jobs of which some folds are finished: by configuration and fold, '' or 'diverged'."""
    runs = defaultdict(list)
    for run in invented(flat, photos=80, backbones=("mobilenet",), folds=folds).runs:
        runs[run.record.experiment.short].append(run)
    jobs = {}
    for name, of_fold in finished.items():
        whole = runs[name][0].record.experiment.model_copy(update={"fold": None})
        jobs[Job(name, name, whole, Path(name))] = [
            run.model_copy(update={"record": run.record.model_copy(update={"diverged": 3 if of_fold[fold] else None})})
            for fold, run in enumerate(runs[name])
            if fold in of_fold
        ]
    return compared(jobs, {})


def folds_in(found: Compared) -> dict[str, list[int]]:
    folds: dict[str, list[int]] = {}
    for run in found.runs:
        folds.setdefault(run.record.experiment.short, []).append(run.record.experiment.fold)
    return folds


def test_the_folds_that_all_configurations_have_are_compared_and_the_others_are_named():
    found = of_folds({"A-5": dict.fromkeys(range(8), ""), "B-2": dict.fromkeys((0, 1, 2, 5), "")})
    assert folds_in(found) == {"A-5": [0, 1, 2, 5], "B-2": [0, 1, 2, 5]}
    assert found.missing == {}
    assert found.lacking == {"mobilenet": {fold: ["B-2"] for fold in (3, 4, 6, 7)}}


def test_a_configuration_that_has_hardly_begun_takes_no_folds_from_the_others():
    found = of_folds({"A-5": dict.fromkeys(range(8), ""), "B-2": dict.fromkeys((0, 1, 2), "")})
    assert folds_in(found) == {"A-5": list(range(8))}
    (reason,) = found.missing.values()
    assert reason == "3 of 8 folds are finished (0, 1, 2): too few in common with the other configurations"


def test_a_configuration_with_fewer_than_three_folds_is_missing():
    found = of_folds({"A-5": dict.fromkeys(range(8), ""), "B-2": {0: "", 1: ""}})
    assert folds_in(found) == {"A-5": list(range(8))}
    assert list(found.missing.values()) == ["2 of 8 folds are finished"]
    assert found.lacking == {}


def test_what_diverged_in_a_fold_is_not_averaged_over_the_others():
    found = of_folds({"A-5": dict.fromkeys(range(5), ""), "B-2": dict.fromkeys(range(4), "") | {4: "diverged"}})
    assert folds_in(found) == {"A-5": [0, 1, 2, 3, 4]}
    assert found.lacking == {}
    assert list(found.missing.values()) == ["diverged in fold 4; 4 of 8 folds are finished"]


def test_where_no_three_folds_are_shared_the_configuration_with_the_fewest_goes():
    found = of_folds(
        {"A-5": dict.fromkeys(range(6), ""), "B-2": dict.fromkeys(range(5, 8), ""), "B-4": dict.fromkeys(range(4), "")}
    )
    assert folds_in(found) == {"A-5": [0, 1, 2, 3], "B-4": [0, 1, 2, 3]}
    (reason,) = found.missing.values()
    assert reason == "3 of 8 folds are finished (5, 6, 7): too few in common with the other configurations"


def test_a_study_of_which_no_configuration_has_three_folds_has_no_report_yet(tmp_path, monkeypatch):
    study = Study.load(profile(tmp_path, study={"configurations": ["mobilenet-frozen"]}), tmp_path, ROOT)
    whole = study.jobs[0].experiment.model_copy(update={"folds": 10})
    job = Job("job", "mobilenet-frozen", whole, tmp_path)
    runs = invented(flat, photos=80, backbones=("mobilenet",), folds=10).runs[:2]
    monkeypatch.setattr(Study, "outcomes", lambda self: ({job: runs}, {}))
    with pytest.raises(InvalidRecord, match="no configuration has results of 3 folds.*\n  .*2 of 10 folds are fini"):
        Results.of(study)
