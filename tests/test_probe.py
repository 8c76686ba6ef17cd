"""The prediction before training: what is measured, the rule, when it is made, and what the report says of it."""

import html
import json
import re
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
import yaml
from conftest import made_up_data
from hypothesis import given
from hypothesis import strategies as st
from invented import FROZEN, SIZES, flat, invented
from small_network import SMALL, setup

from thaw.__main__ import main
from thaw.errors import InvalidParameter
from thaw.network import backbones
from thaw.report import figures
from thaw.report.answer import Answer
from thaw.report.display import Figure
from thaw.report.results import Results
from thaw.study import freshness, plan, probe
from thaw.study.probe import Depth, Probe
from thaw.study.study import Study
from thaw.training import phases
from thaw.training import probe as measured

pytestmark = pytest.mark.usefixtures("quick_corrections")


def depths(*accuracies: float, error: float = 0.01) -> list[Depth]:
    return [
        Depth(block=str(number), linear=value, linear_error=error, neighbours=value, neighbours_error=error)
        for number, value in enumerate(accuracies, 1)
    ]


def made(of: list[Depth], blocks: int | None = None, network: str = "mobilenet", **fields) -> Probe:
    """Make up the probe of a network, with what it measured or with a prediction."""
    return Probe(
        **{"network": network, "title": network, "time": datetime(2026, 1, 2, 3, 4, tzinfo=UTC), "tuned_before": 0}
        | {"photos": 360, "largest_class": 0.2, "key": {}, "depths": of, "words": probe.in_words(of, 0.2)}
        | {"blocks": probe.predicted(of) if blocks is None else blocks}
        | fields
    )


# ---- the rule -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "accuracies, blocks",
    [
        ((0.5, 0.6, 0.7, 0.8), 1),  # rises to the end
        ((0.5, 0.8, 0.805, 0.8), 2),  # no longer rises after the second
        ((0.8, 0.7, 0.6, 0.5), 3),
        ((0.5, 0.79, 0.7, 0.8), 2),  # within one standard error
        ((0.8,), 1),
        ((0.2, 0.2, 0.2), 2),
    ],
)
def test_all_after_the_first_depth_within_one_standard_error_of_the_best(accuracies, blocks):
    assert probe.predicted(depths(*accuracies)) == blocks


def test_the_rule_on_the_two_cases_that_it_was_made_on():
    """Accuracies in percent of MobileNet and ResNet50 on TF Flowers at 224 pixels."""
    mobilenet = [60.7, 65.2, 70.7, 73.8, 78.8, 81.0, 83.7, 84.6, 85.5, 86.8, 88.5, 90.3, 90.2]
    resnet50 = [73.8, 76.0, 76.4, 82.1, 82.7, 83.5, 85.0, 88.1, 89.5, 89.6, 89.8, 90.7, 91.5, 90.6, 90.6, 90.2]
    assert probe.predicted(depths(*(value / 100 for value in mobilenet), error=0.0041)) == 1
    assert probe.predicted(depths(*(value / 100 for value in resnet50), error=0.0041)) == 3


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.floats(0, 0.2), st.floats(0, 1))
def test_any_accuracies_give_a_prediction_in_words(accuracies, error, largest):
    of = depths(*accuracies, error=error)
    assert 1 <= probe.predicted(of) <= len(of)
    words = probe.in_words(of, largest)
    assert words.startswith("Unfreeze the ")
    assert words.endswith(".")
    assert ("little to go on" in words) == (len(of) > 1 and max(accuracies) - error <= largest)


# ---- what is measured ---------------------------------------------------------------------------


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setitem(backbones.REGISTRY, "small", SMALL)


def coloured(photos: int = 60):
    """Photos whose brightness tells their class."""
    data, rng = made_up_data(32), np.random.default_rng(0)
    labels = np.arange(photos) % 3
    images = rng.integers(0, 60, (photos, 32, 32, 3)) + 80 * labels[:, None, None, None]
    keys = np.array([f"photo-{number}" for number in range(photos)])
    parts = np.split(np.arange(photos), [photos // 2, photos * 3 // 4])
    key = {"sha256": "coloured"}
    train, validation, test = parts
    return replace(
        data,
        images=images.astype(np.uint8),
        labels=labels,
        keys=keys,
        provenance=data.provenance | key,
        train=train,
        validation=validation,
        test=test,
    )


def ruined(base, after: int) -> None:
    """Let what leaves the blocks after some block be the same for all photos."""
    for number in range(after + 1, 4):
        layer = base.get_layer(f"block_{number}_pw_bn")
        layer.gamma.assign(np.zeros(layer.gamma.shape))


@pytest.mark.parametrize("good", [1, 2])
def test_features_that_get_worse_with_depth_are_seen_as_such(small, good):
    on = setup(coloured(), weights=f"ruined-{good}")
    ruined(on.base, good)
    found = measured.accuracies(on)
    assert list(found["block"]) == ["1", "2", "3"]
    assert (found["linear"][:good] > 0.95).all() and (found["neighbours"][:good] > 0.95).all()
    assert (found["linear"][good:] < 0.5).all() and (found["neighbours"][good:] < 0.5).all()
    of = [Depth(**row) for row in found.to_dict("records")]
    assert probe.predicted(of) == 3 - 1, "the first block is enough"


def test_random_labels_give_little_to_go_on(small):
    data = coloured()
    data = replace(data, labels=np.random.default_rng(1).integers(0, 3, 60))
    found = measured.accuracies(setup(data, weights="random labels"))
    of = [Depth(**row) for row in found.to_dict("records")]
    assert "little to go on" in probe.in_words(of, 0.45)


def test_test_photos_take_no_part(small):
    data = coloured()
    expected = measured.accuracies(setup(data, weights="all"))
    images, labels = data.images.copy(), data.labels.copy()
    images[data.test] = 0
    labels[data.test] = 0
    other = replace(data, images=images, labels=labels, provenance=data.provenance | {"sha256": "other"})
    assert measured.accuracies(setup(other, weights="all")).equals(expected)


def test_what_leaves_a_block_is_averaged_over_the_photo(small):
    import keras
    import tensorflow as tf

    on = setup(coloured(), weights="averages")
    found = measured.features(on)
    tensors = [on.base.get_layer(f"block_{number}_relu").output for number in (1, 2, 3)]
    photos = on.backbone.preprocess(tf.cast(on.data.images, tf.float32))
    whole = keras.Model(on.base.input, tensors)(photos, training=False)
    for values, expected in zip(found.values(), whole, strict=True):
        np.testing.assert_allclose(values, np.mean(expected, axis=(1, 2)), rtol=1e-4, atol=1e-5)


def test_a_network_of_one_block(small, monkeypatch):
    monkeypatch.setitem(backbones.REGISTRY, "small", replace(SMALL, block="(block)_"))
    on = setup(coloured(), weights="one block")
    found = measured.accuracies(on)
    assert list(found["block"]) == ["block"]
    of = [Depth(**row) for row in found.to_dict("records")]
    assert probe.predicted(of) == 1
    assert "only block" in probe.in_words(of, 0.33)


def test_the_ratio_is_of_the_gradient_to_the_weights(small):
    on = setup(coloured(), weights="ratio")
    phases.train_head(on)
    before = [weight.numpy() for weight in on.model.weights]
    found = measured.gradient_ratios(on)
    assert list(found) == ["1", "2", "3"]
    assert all(0 < ratio < 100 for ratio in found.values())
    assert not on.base.trainable_weights, "all is frozen again"
    assert all(np.array_equal(one, two.numpy()) for one, two in zip(before, on.model.weights, strict=True))
    step = 1e-3
    others = [*on.base.get_layer("block_1_dw").weights, on.base.get_layer("block_1_pw").kernel]
    for name in ("dw_bn", "pw_bn"):
        normalization = on.base.get_layer(f"block_1_{name}")
        others += [normalization.gamma, normalization.beta]
    squares = 0.0
    for weight in others:  # finite differences of the loss
        values = weight.numpy()
        for place in np.ndindex(values.shape):
            ends = []
            for sign in (1, -1):
                moved = values.copy()
                moved[place] += sign * step
                weight.assign(moved)
                ends.append(loss(on))
            squares += ((ends[0] - ends[1]) / (2 * step)) ** 2
        weight.assign(values)
    norm = np.sqrt(sum((weight.numpy().astype(float) ** 2).sum() for weight in others))
    assert found["1"] == pytest.approx(np.sqrt(squares) / norm, rel=0.05)


def loss(on) -> float:
    import keras
    import tensorflow as tf

    rows = on.data.train
    photos = on.backbone.preprocess(tf.cast(on.data.images[rows], tf.float32))
    said = on.model(photos, training=False)
    return float(tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(on.data.labels[rows], said)))


def test_too_few_photos_are_refused(small, tiny):
    with pytest.raises(InvalidParameter, match="too few to probe"):
        measured.accuracies(setup(replace(tiny, train=tiny.train[:4])))


def test_photos_of_a_group_stay_in_one_fold():
    labels, groups = np.arange(60) % 3, np.array([f"plant {number // 4}" for number in range(60)])
    folds = measured._folds(labels, groups)
    assert len(folds) == measured.FOLDS
    assert all(not set(groups[train]) & set(groups[test]) for train, test in folds)
    assert sorted(np.concatenate([test for _, test in folds])) == list(range(60))


# ---- when it is made ----------------------------------------------------------------------------


def study(folder, configurations=("mobilenet-frozen", "mobilenet-blocks-2"), **parameters) -> Study:
    path = folder / "mine.yaml"
    text = {"dataset": "demo_flowers", "weights": "demo", "image_size": 64, "head_epochs": 2, "finetune_epochs": 1}
    text |= {"head_learning_rate": 3e-3, "study": {"configurations": list(configurations)}} | parameters
    path.write_text(yaml.safe_dump(text), encoding="utf-8")
    return Study.load(str(path), folder)


def test_the_shared_part_of_a_study_predicts_before_anything_is_fine_tuned(tmp_path, monkeypatch):
    whole = study(tmp_path)
    (part,) = plan.plan(whole, whole.jobs).parts.values()
    real, seen = probe.make, []

    def make(*arguments):
        seen.append(plan.marker(whole, part.name).exists())  # what experiments wait for
        return real(*arguments)

    monkeypatch.setattr(probe, "make", make)
    lines: list[str] = []
    plan.make(whole, part, lines.append)
    assert seen == [False]
    assert sum("have seen all" in line or "has seen all" in line for line in lines) == 1, "one pass over the photos"
    (found,) = probe.of(whole).values()
    assert (found.network, len(found.depths), found.photos, found.tuned_before) == ("mobilenet", 13, 360, 0)
    assert max(depth.linear for depth in found.depths) > 0.5, "guessing gives 0.2"
    assert all(depth.gradient_ratio > 0 for depth in found.depths)
    assert found.blocks == probe.predicted(found.depths)
    assert any(found.words in line for line in lines)
    written = probe.path(whole, "mobilenet").read_bytes()
    plan.make(whole, part, lines.append)
    assert probe.path(whole, "mobilenet").read_bytes() == written, "the first prediction stands"
    assert seen == [False]


def test_the_command_predicts_and_shows_it_again(tmp_path, capsys):
    whole = study(tmp_path, ["mobilenet-blocks-2"], weights="none", image_size=32, max_examples=80)
    for _ in range(2):
        assert main(["probe", str(whole.path), "--outputs", str(tmp_path)]) == 0
        (found,) = probe.of(whole).values()
        said = capsys.readouterr().out
        assert found.words in said and found.when in said
        assert len(re.findall(r"(?m)^ *\d+ .*%", said)) == 13
    assert json.loads(probe.path(whole, "mobilenet").read_text())["blocks"] == found.blocks


def test_a_study_too_small_to_probe_goes_on(tmp_path):
    whole = study(tmp_path, weights="none", image_size=32, max_examples=20)
    (part,) = plan.plan(whole, whole.jobs).parts.values()
    lines: list[str] = []
    plan.make(whole, part, lines.append)
    assert plan.marker(whole, part.name).exists()
    assert any(line.startswith("no probe:") for line in lines)
    assert probe.of(whole) == {}


def test_other_photos_are_probed_anew(tmp_path, small):
    whole = study(tmp_path, ["mobilenet-frozen"])
    on = setup(coloured())
    experiment = probe.networks(whole)["mobilenet"]
    on = replace(on, experiment=experiment)
    assert probe.is_due(whole, on)
    whole.outputs.mkdir()
    path = probe.path(whole, "mobilenet")
    path.write_text(made(depths(0.5), key=probe.key(on)).model_dump_json(), encoding="utf-8")
    assert not probe.is_due(whole, on)
    assert probe.is_due(whole, replace(on, pretrained={"tensors_sha256": "others"}))
    other_size = replace(on, experiment=experiment.model_copy(update={"image_size": 96}))
    assert not probe.is_due(whole, other_size), "the study's first experiment of the network counts"
    path.write_text("{}", encoding="utf-8")
    assert probe.is_due(whole, on)


def test_files_of_one_name_have_probes_of_their_own(tmp_path):
    whole = study(tmp_path, ["mobilenet-frozen"])
    job = whole.jobs[0]
    jobs = [
        replace(job, experiment=job.experiment.model_copy(update={"backbone": name}))
        for name in ("/a/own net.keras", "/b/own net.keras")
    ]
    both = replace(whole, jobs=tuple(jobs))
    names = [probe.path(both, job.experiment.backbone).name for job in jobs]
    assert sorted(names) == ["probe-own-net-2.json", "probe-own-net.json"]


def test_the_report_is_made_anew_when_a_probe_comes(tmp_path):
    whole = study(tmp_path, ["mobilenet-frozen"])
    before = freshness.made_from(whole)
    whole.outputs.mkdir()
    probe.path(whole, "mobilenet").write_text(made(depths(0.5)).model_dump_json(), encoding="utf-8")
    assert freshness.made_from(whole) != before


# ---- what the report says -----------------------------------------------------------------------


def with_probe(results: Results, **probes: Probe) -> Results:
    return replace(results, probes=probes)


def verdict(results: Results, made: Probe) -> str:
    (probed,) = Answer(with_probe(results, mobilenet=made)).probed
    return probed.verdict


def blocks_help(backbone, strategy, amount, control) -> float:
    return 0.95 if strategy == "blocks" and amount >= 4 else 0.7


def test_the_study_scores_the_prediction():
    of, mobilenet = depths(0.5, 0.6, 0.7), ("mobilenet",)
    deep = invented(blocks_help, backbones=mobilenet)
    assert verdict(deep, made(of, 2)) == "wrong"
    assert verdict(deep, made(of, 4)) == "useful"
    assert verdict(deep, made(of, 4, tuned_before=2)) == "late"
    alike = invented(flat, backbones=mobilenet)
    assert verdict(alike, made(of, 10)) == "more", "the frozen base would do"
    frozen = Results([run for run in alike.runs if run.record.experiment.strategy == FROZEN])
    assert verdict(frozen, made(of, 2)) == "none"


def test_what_training_more_gains_is_not_known_is_no_verdict_on_the_prediction():
    prediction = made(depths(0.5, 0.6), 4)

    def said(accuracy, **chance) -> str:
        results = invented(accuracy, backbones=("mobilenet",), photos=200, **chance)
        assert verdict(results, prediction) == "more"
        return Answer(with_probe(results, mobilenet=prediction)).write("probe")

    assert "the prediction **cost more than was needed**" in said(flat)
    undecided = said(lambda b, s, a, c: 0.83 if a == 10 else 0.8, swap=0.1)
    assert "whether it cost more than was needed, the photos **do not decide**" in undecided
    assert "the prediction **cost" not in undecided


def test_the_closest_configuration_by_blocks_is_scored():
    (probed,) = Answer(with_probe(invented(flat, backbones=("mobilenet",)), mobilenet=made(depths(0.5), 1))).probed
    for blocks, amount in {1: 2, 3: 2, 5: 4, 7: 4, 8: 10, 13: 10}.items():
        closest = type(probed)(probed.network, made(depths(0.5), blocks)).closest
        assert closest["amount"] == amount
    assert ("blocks", 10) in SIZES


@pytest.mark.parametrize("accuracy", [flat, blocks_help, lambda *which: 1.0, lambda *which: 0.0])
@pytest.mark.parametrize("tuned_before", [0, 3])
def test_any_study_has_words_and_a_figure(accuracy, tuned_before):
    results = invented(accuracy, swap=0.1, photos=60)
    of = depths(0.5, 0.6, 0.7, 0.65)
    of[1] = of[1].model_copy(update={"gradient_ratio": 0.02})
    ended = made(of, tuned_before=tuned_before)
    for probed in ({"mobilenet": ended}, {"mobilenet": ended, "resnet50": made(depths(0.4), network="resnet50")}):
        few = with_probe(results, **probed)
        text = html.unescape(Answer(few).write("probe"))
        assert "2026-01-02 03:04 UTC" in text
        assert not re.search(r"\b(nan|inf|None)\b", text.replace("None is", ""))
        figure = figures.probe(few)
        assert len(figure.axes) == 2 * len(probed)
        assert "nan" not in Figure(figure, "", "")._repr_mimebundle_()["text/html"]


def test_results_take_the_probe_of_their_photos_and_weights_alone(tmp_path):
    from test_record import made_up_run

    from thaw.records import runs

    whole = study(tmp_path, ["mobilenet-frozen", "mobilenet-blocks-2"])
    for job in whole.jobs:
        runs.save(job.directory, *made_up_run(**job.experiment.model_dump()))
    record = whole.jobs[0].read()[0].record
    key = {"data": record.data["sha256"], "weights": record.weights["tensors_sha256"]}
    path = probe.path(whole, "mobilenet")
    assert Results.of(whole).probes == {}
    path.write_text(made(depths(0.5), key=key).model_dump_json(), encoding="utf-8")
    assert Results.of(whole).probes.keys() == {"mobilenet"}
    path.write_text(made(depths(0.5), key=key | {"weights": "others"}).model_dump_json(), encoding="utf-8")
    assert Results.of(whole).probes == {}
    path.write_text("not JSON", encoding="utf-8")
    assert Results.of(whole).probes == {}


def test_a_whole_study_predicts_first_and_reports_it(first_study):
    outputs = first_study / "outputs" / "tiny"
    found = Probe.model_validate_json((outputs / "probe-mobilenet.json").read_text(encoding="utf-8"))
    (notebook,) = outputs.glob("runs/mobilenet-blocks-2-*/experiment.ipynb")
    started = json.loads(notebook.read_text(encoding="utf-8"))["metadata"]["papermill"]["start_time"]
    assert found.time <= datetime.fromisoformat(started), "before the fine-tuned experiment started"
    assert found.tuned_before == 0
    report = (outputs / "report.html").read_text(encoding="utf-8")
    assert "The probe" in report
    assert found.when in report
