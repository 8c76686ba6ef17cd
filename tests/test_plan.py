"""What experiments share, as jobs of their own."""

import graphlib

import pytest
import yaml

from thaw.study import plan
from thaw.study.study import Study


def study(folder, **parameters):
    path = folder / "mine.yaml"
    text = {"dataset": "demo_flowers", "weights": "none", "image_size": 32, "max_examples": 80} | parameters
    path.write_text(yaml.safe_dump(text), encoding="utf-8")
    return Study.load(str(path), folder)


def planned(folder, **parameters) -> plan.Plan:
    whole = study(folder, **parameters)
    return plan.plan(whole, whole.unfinished())


def assert_consistent(made: plan.Plan):
    waits = {name: set(part.after) for name, part in made.parts.items()} | made.needs
    list(graphlib.TopologicalSorter(waits).static_order())  # raises if anything waits for itself
    for job, names in made.needs.items():
        assert all(job in [shared.name for shared in made.parts[name].jobs] for name in names)
        assert all(set(made.parts[name].after) <= set(names) for name in names)


def test_one_pass_a_network_and_one_head_a_seed(tmp_path):
    made = planned(tmp_path, study={"seeds": [0, 1]})
    assert_consistent(made)
    kinds = [part.kind for part in made.parts.values()]
    assert kinds.count("photos") == 1
    assert kinds.count("activations") == 2
    assert kinds.count("head") == 4, "of the frozen row and six others; the control's is its own affair"


@pytest.mark.parametrize("parameters", [{"activations": "compute"}, {"augmentation": "flip"}], ids=str)
def test_where_nothing_is_kept_the_heads_are_still_shared(tmp_path, parameters):
    made = planned(tmp_path, **parameters)
    assert_consistent(made)
    assert {part.kind for part in made.parts.values()} == {"photos", "head"}


def test_other_parameters_share_nothing(tmp_path):
    first = planned(tmp_path)
    for parameters in {"image_size": 64}, {"max_examples": 40}:
        assert first.parts.keys().isdisjoint(planned(tmp_path, **parameters).parts)
    photos = {name for name, part in first.parts.items() if part.kind == "photos"}
    assert first.parts.keys() & planned(tmp_path, precision="mixed_bfloat16").parts.keys() == photos


def test_what_is_finished_shares_nothing(tmp_path):
    made = plan.plan(study(tmp_path), [])
    assert made.parts == {} and not any(made.needs.values())


def test_activations_go_when_the_study_is_done_and_not_before(tmp_path, monkeypatch):
    whole = study(tmp_path)
    kept = tmp_path / "activations"
    for done, there in ((False, True), (True, False)):
        kept.mkdir(exist_ok=True)
        path = plan.marker(whole, "activations-1")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
        path.with_suffix(".folder").write_text(str(kept))
        monkeypatch.setattr(Study, "unfinished", lambda self, done=done: [] if done else list(self.jobs))
        plan.forget(whole)
        assert not path.exists()
        assert kept.exists() == there
