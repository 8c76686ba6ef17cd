"""What experiments share, as jobs of their own, within the disk's budget."""

import graphlib
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from conftest import has_flowers
from hypothesis import given
from hypothesis import strategies as st
from thaw.study import plan
from thaw.study.study import Study


@dataclass(frozen=True)
class Named:
    name: str


def made_up_groups(sizes):
    return [
        plan._Group(Path(folder), {layer: size for layer, size in layers.items()}, [Named(f"{folder}-{i}")], i)
        for i, (folder, layers) in enumerate(sizes)
    ]


SIZES = {"a": 1, "b": 2, "c": 5, "d": 8, "e": 8}
GROUPS = st.lists(
    st.tuples(
        st.sampled_from(["resnet50", "mobilenet"]),
        st.sets(st.sampled_from(sorted(SIZES)), min_size=1, max_size=2).map(
            lambda layers: {k: SIZES[k] for k in layers}
        ),
    ),
    min_size=1,
    max_size=12,
)


@given(GROUPS, st.integers(16, 60))
def test_lanes_hold_every_job_once_and_never_more_than_the_budget(groups, budget):
    groups = made_up_groups(groups)
    lanes = plan._lanes(groups, budget)
    jobs = [job for lane in lanes for group in lane for job in group.jobs]
    assert sorted(job.name for job in jobs) == sorted(group.jobs[0].name for group in groups)
    at_once = sum(max((group.size for group in lane), default=0) for lane in lanes)
    assert at_once <= budget
    for lane in lanes:
        for group in lane:
            assert set().union(*group.own.values()) == set(group.layers)
            assert group.own.keys() == {job.name for job in group.jobs}


def profile(folder, **parameters):
    path = folder / "mine.yaml"
    text = {"dataset": "demo_flowers", "weights": "none", "image_size": 32, "max_examples": 80} | parameters
    path.write_text(yaml.safe_dump(text), encoding="utf-8")
    return str(path)


def consistent(made: plan.Plan):
    waits = {path: set(part.inputs) for part in made.parts for path in part.outputs}
    for job, files in made.needs.items():
        waits |= {path: set(files) for part in made.parts for path in part.inputs if f"/{job}/" in path}
    list(graphlib.TopologicalSorter(waits).static_order())  # raises if anything waits for itself
    outputs = [path for part in made.parts for path in part.outputs]
    assert len(outputs) == len(set(outputs)), "every file is made by one job"
    for files in made.needs.values():
        assert set(files) <= set(outputs)


def test_one_pass_a_backbone_and_one_head_a_seed(tmp_path):
    study = Study.load(profile(tmp_path, study={"seeds": [0, 1]}), tmp_path)
    made = plan.plan(study)
    consistent(made)
    kinds = [part.kind for part in made.parts]
    assert kinds.count("photos") == 1 and kinds.count("activations") == 2
    assert kinds.count("head") == 4, "of the frozen row and six others; the control's is its own affair"
    assert plan.plan(study) == made, "looked up"
    one = next(part for part in made.parts if part.kind == "activations" and "resnet50" in part.name)
    assert ["pooled"] in one.frontiers and ["conv5_block2_out"] in one.frontiers
    assert len(set().union(*one.frontiers)) == len(one.outputs) == 7


@pytest.mark.parametrize("parameters", [{"activations": "compute"}, {"augmentation": "flip"}], ids=str)
def test_where_nothing_may_be_kept_the_heads_are_still_shared(tmp_path, parameters):
    made = plan.plan(Study.load(profile(tmp_path, **parameters), tmp_path))
    consistent(made)
    assert {part.kind for part in made.parts} == {"photos", "head"}


def test_with_less_disk_some_passes_wait_for_the_experiments_before_them(tmp_path, monkeypatch):
    study = Study.load(profile(tmp_path), tmp_path)
    monkeypatch.setenv("THAW_DISK_GB", "0.004")
    made = plan.plan(study)
    consistent(made)
    waiting = [part for part in made.parts if any(path.endswith("record.json") for path in part.inputs)]
    assert waiting and all(part.kind == "activations" for part in waiting)


@has_flowers
@pytest.mark.parametrize("precision, gigabytes", [("float32", 8), ("mixed_bfloat16", 4)])
def test_the_original_s_study_fits_on_the_disk(tmp_path, precision, gigabytes):
    path = tmp_path / "paper.yaml"
    path.write_text(
        Path("params/profiles/paper.yaml")
        .read_text(encoding="utf-8")
        .replace("precision: float32", f"precision: {precision}")
        .replace("precision: mixed_bfloat16", f"precision: {precision}"),
        encoding="utf-8",
    )
    study = Study.load(str(path), tmp_path)
    groups = plan._groups(study)
    assert len(groups) == len(study.jobs), "each fits by itself"
    lanes = plan._lanes(groups, gigabytes * 1e9)
    assert sum(group.size for group in plan._packed(groups, float("inf"))) > gigabytes * 1e9
    assert sum(max(group.size for group in lane) for lane in lanes) <= gigabytes * 1e9
    consistent(plan.plan(study))
