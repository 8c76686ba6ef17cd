"""A study's results, read back and put together."""

import subprocess
import sys

import pytest
from conftest import ROOT
from invented import flat, invented
from test_record import made_up_run
from test_study import profile

from thaw.errors import InvalidParameter
from thaw.records import runs
from thaw.report.results import Results
from thaw.study.claims import Selection
from thaw.study.study import Study


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
