"""What experiments share, as jobs of their own."""

import pytest
import yaml

from thaw.study import plan
from thaw.study.study import Study


def study(folder, **parameters):
    path = folder / "mine.yaml"
    text = {"dataset": "demo_flowers", "weights": "imagenet", "image_size": 32, "max_examples": 80} | parameters
    path.write_text(yaml.safe_dump(text), encoding="utf-8")
    return Study.load(str(path), folder)


def planned(folder, **parameters) -> plan.Plan:
    whole = study(folder, **parameters)
    return plan.plan(whole, whole.unfinished())


def test_one_part_a_network_with_a_head_a_seed(tmp_path):
    made = planned(tmp_path, study={"seeds": [0, 1]})
    assert len(made.parts) == 2
    for part in made.parts.values():
        assert len({job.experiment.backbone for job in part.jobs}) == 1
        assert [(head.seed, head.epochs) for head in part.heads()] == [(0, 5), (1, 5)], "the control's is its own"
        assert all(made.needs[job.name] == part.name for job in part.jobs)
    assert sum(len(part.jobs) for part in made.parts.values()) == len(made.needs) == 32


@pytest.mark.parametrize("parameters", [{"activations": "compute"}, {"augmentation": "flip"}], ids=str)
def test_where_nothing_is_kept_each_shared_head_is_a_part(tmp_path, parameters):
    made = planned(tmp_path, **parameters, study={"seeds": [0, 1]})
    assert len(made.parts) == 4, "a network and a seed each: they can be made side by side"
    for part in made.parts.values():
        assert len(part.jobs) == 7, "the frozen row and six others"
        assert len(part.heads()) == 1


def test_random_weights_are_shared_within_a_seed_alone(tmp_path):
    made = planned(tmp_path, weights="none", study={"seeds": [0, 1]})
    assert len(made.parts) == 4
    for part in made.parts.values():
        assert len({job.experiment.seed for job in part.jobs}) == 1


def test_copies_of_augmented_photos_are_kept(tmp_path):
    assert len(planned(tmp_path, augmentation="flip", copies=2).parts) == 2


def test_what_is_alone_shares_nothing(tmp_path):
    settings = {"configurations": ["mobilenet-blocks-2", "resnet50-blocks-2"]}
    made = planned(tmp_path, study=settings)
    assert made.parts == {} and made.needs == {}


def test_other_parameters_are_other_parts(tmp_path):
    first = planned(tmp_path)
    for parameters in {"image_size": 64}, {"max_examples": 40}, {"precision": "mixed_bfloat16"}:
        assert first.parts.keys().isdisjoint(planned(tmp_path, **parameters).parts)


def test_what_is_finished_shares_nothing(tmp_path):
    assert plan.plan(study(tmp_path), []) == plan.Plan({}, {})


def test_a_study_that_begins_anew_has_no_findings_of_other_photos(tmp_path):
    whole = study(tmp_path)
    findings = whole.outputs / plan.FINDINGS
    findings.parent.mkdir(parents=True)
    findings.touch()
    whole.jobs[0].directory.mkdir(parents=True)
    whole.jobs[0].record.touch()
    plan.forget(whole)
    assert findings.exists(), "an experiment is finished"
    whole.jobs[0].record.unlink()
    plan.forget(whole)
    assert not findings.exists()


def test_activations_go_when_the_study_is_done_and_not_before(tmp_path, monkeypatch):
    whole = study(tmp_path)
    kept = tmp_path / "activations"
    for done, there in ((False, True), (True, False)):
        kept.mkdir(exist_ok=True)
        path = plan.marker(whole, "shared-1")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
        path.with_suffix(".folder").write_text(str(kept))
        monkeypatch.setattr(Study, "unfinished", lambda self, done=done: [] if done else list(self.jobs))
        plan.forget(whole)
        assert not path.exists()
        assert kept.exists() == there
