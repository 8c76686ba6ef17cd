"""A study's results, read back and put together."""

import numpy as np
import pytest
from conftest import ROOT
from invented import flat, invented
from test_record import made_up_run
from test_study import profile
from thaw.data import photos as data
from thaw.data.tfds import on_disk
from thaw.records import runs
from thaw.report.results import Results
from thaw.study.study import Study


def test_what_a_study_has_left(tmp_path):
    only = {"configurations": ["mobilenet-frozen", "mobilenet-blocks-2"], "margin": 0.03}
    study = Study.load(profile(tmp_path, study=only), tmp_path)
    runs.save(study.jobs[0].directory, *made_up_run(**study.jobs[0].experiment.model_dump()))
    results = Results.of(study)
    assert (len(results.runs), results.planned, results.margin) == (1, 2, 0.03)
    assert results.latency is None and results.rows["latency"].isna().all()
    assert len(results.original) == 14


@pytest.mark.parametrize("margin", [0, 1, -0.1, "wide"])
def test_a_margin_that_is_none_is_refused(tmp_path, margin):
    from thaw.errors import InvalidParameter

    with pytest.raises(InvalidParameter, match="study.margin"):
        Study.load(profile(tmp_path, study={"margin": margin}), tmp_path)


def test_each_network_is_measured_once(tmp_path):
    study = Study.load(profile(tmp_path, study={"seeds": [3, 4]}), tmp_path, ROOT)
    assert len(study.jobs) == 32 and [e.backbone for e in study.networks()] == ["resnet50", "mobilenet"]


def test_the_photos_of_some_keys():
    found = data.load_photos("demo_flowers", 32, 40)
    results = invented(flat, photos=4)
    run = results.runs[0]
    parameters = run.record.parameters | {"dataset": "demo_flowers", "image_size": 32, "max_examples": 40}
    changed = {"parameters": parameters, "data": found.provenance}
    shipped = Results([run.model_copy(update={"record": run.record.model_copy(update=changed)})])
    keys = found.test.keys[[2, 0]]
    assert np.array_equal(shipped.photos(keys), found.test.images[np.array([2, 0])])
    other = changed | {"data": found.provenance | {"sha256": "of other photos"}}
    other = Results([run.model_copy(update={"record": run.record.model_copy(update=other)})])
    assert other.photos(keys) is None


def test_no_photos_are_fetched_for_a_report(monkeypatch, tmp_path):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert not on_disk("no_such_set") and on_disk("demo_flowers")
