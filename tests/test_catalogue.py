"""The catalogue of ways to unfreeze, and studies that cross configurations with networks."""

import pytest
import yaml
from conftest import ROOT

from thaw.errors import InvalidParameter
from thaw.experiment import Experiment
from thaw.study.profile import read_parameters
from thaw.study.study import Study

CATALOGUE = sorted((ROOT / "params" / "configurations" / "catalogue").glob("*.yaml"))


def study(tmp_path, **content):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return Study.load(str(path), tmp_path / "outputs", ROOT)


@pytest.mark.parametrize("path", CATALOGUE, ids=lambda path: path.stem)
def test_each_says_its_idea_and_its_source_and_is_an_experiment(path):
    comment = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("# ")]
    assert any(line.startswith(("# Source: ", "# Idea: ")) for line in comment)
    assert not comment[0].startswith(("# Source: ", "# Idea: "))
    Experiment.of({"backbone": "mobilenet"} | read_parameters(path))


def test_no_two_of_the_catalogue_are_one_configuration():
    found = [Experiment.of({"backbone": "mobilenet"} | read_parameters(path)).configuration for path in CATALOGUE]
    assert len(set(found)) == len(CATALOGUE)


def test_every_configuration_is_run_with_every_network(tmp_path):
    made = study(
        tmp_path,
        study={
            "networks": ["mobilenet", "resnet50"],
            "configurations": ["frozen", "norm-only", "mobilenet-first-blocks"],
            "seeds": [0, 1],
        },
    )
    assert {(job.configuration, job.experiment.backbone) for job in made.jobs} == {
        ("mobilenet-frozen", "mobilenet"),
        ("mobilenet-norm-only", "mobilenet"),
        ("mobilenet-first-blocks", "mobilenet"),
        ("resnet50-frozen", "resnet50"),
        ("resnet50-norm-only", "resnet50"),
    }
    assert len(made.jobs) == 10


def test_two_networks_of_one_name_are_refused_and_none_is_lost(tmp_path):
    networks = ["mobilenet", "mine/mobilenet.keras"]
    with pytest.raises(InvalidParameter, match=r"'mobilenet' and 'mine/mobilenet.keras' would have the same names"):
        study(tmp_path, study={"networks": networks, "configurations": ["frozen"]})


def test_a_configuration_without_a_network_is_refused(tmp_path):
    with pytest.raises(InvalidParameter, match="configuration frozen: names no backbone. Give study"):
        study(tmp_path, study={"configurations": ["frozen"]})


def test_all_configurations_means_those_of_the_study_not_the_catalogue(tmp_path):
    made = study(tmp_path, study={"seeds": [0]})
    assert len(made.jobs) == len(list((ROOT / "params" / "configurations").glob("*.yaml")))
