"""The sentences of the report on made-up results: each conclusion holds, fails or stays open, and the words follow."""

import html
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from invented import BLOCKS, CONFIGURATIONS, FROZEN, LAYERS, SIZES, flat, invented, with_losses, with_rates

from thaw.report import advice, captions, tables, words
from thaw.report.answer import Answer
from thaw.report.display import markdown
from thaw.report.notation import points
from thaw.report.results import Results
from thaw.study.study import Job

pytestmark = pytest.mark.usefixtures("quick_corrections")

TEMPLATES = sorted(Path(words.__file__).parent.glob("*.j2"))
SECTIONS = (
    "explained",
    "answer",
    "question",
    "networks",
    "method",
    "missing",
    "power",
    "accuracy",
    "hard",
    "speed",
    "cost",
)
SECTIONS += (
    "strategies",
    "fit",
    "choice",
    "conclusion",
    "photos",
    "balance",
    "rows",
    "trains",
    "learning_rates",
    "limits",
    "again",
    "ease",
)
MAY_BE_EMPTY = ("ease", "conclusion", "missing", "strategies", "photos", "balance", "learning_rates", "trains")


def said(results: Results, section: str) -> str:
    """A section as a reader sees it: no marks, no character references."""
    return html.unescape(Answer(results).write(section)).replace("*", "")


def of_network(results: Results, section: str, title: str) -> str:
    """The paragraph or item of a section that begins with a network's name."""
    (text,) = re.findall(rf"(?m)^(?:- )?{title}[.: ].*", said(results, section))
    return text


# ---- templates ----------------------------------------------------------------------------------


@given(st.text(max_size=60))
@settings(deadline=None, derandomize=True)
def test_a_template_escapes_whatever_is_not_a_figure(text):
    shown = words._ENVIRONMENT.from_string("{{ text }}|{{ [text, 1] | listed }}|{{ text if text else '' }}")
    expected = markdown(text)
    assert shown.render(text=text) == f"{expected}|{expected} and 1|{expected}"


def test_no_template_can_let_text_through():
    assert not {"safe", "join", "format", "replace"} & set(words._ENVIRONMENT.filters)
    for path in TEMPLATES:
        for code in re.findall(r"\{[{%].*?[%}]\}", path.read_text(encoding="utf-8"), re.DOTALL):
            assert "~" not in code and "Markup" not in code, f"{path.name}: {code}"


def test_a_long_list_names_ten_and_counts_the_rest():
    assert words.listed(["a"]) == "a"
    assert words.listed(["a", "b", "c"]) == "a, b and c"
    assert words.listed([]) == ""
    text = words.listed([f"class {number}" for number in range(120)])
    assert "class 9" in text
    assert "class 10" not in text
    assert text.endswith("and 110 more")


def test_figures_are_written_as_people_write_them():
    assert words.percent(0.94) == "94.0%"
    assert words.percent(-0.0001) == "0.0%"
    assert words.percent(np.float64(0.9155)) == words.percent(0.9155) == "91.5%", "NumPy would round this up"
    assert words.in_points(0.02) == "2"
    assert words.duration(4.32) == "4.3 seconds"
    assert words.duration(66) == "66 seconds"
    assert words.duration(274) == "4.6 minutes"
    assert words.duration(7239) == "2.0 hours"
    assert words.parameter(1e-5) == "0.00001"
    assert words.parameter(None) == "all"
    assert words.count(1, "seed") == "1 seed"
    assert words.count(1200, "photo") == "1,200 photos"


# ---- accuracy and the choice --------------------------------------------------------------------


def test_which_network_is_better():
    for of_resnet50, phrase in (
        (0.9, "ResNet50 is more accurate than MobileNet: +10.0 points"),
        (0.7, "ResNet50 is less accurate than MobileNet: -10.0 points"),
        (0.8, "ResNet50 is about as accurate as MobileNet: +0.0 points (-0.7 to +0.7), no difference that matters"),
    ):
        results = invented(lambda b, s, a, c, right=of_resnet50: right if b == "resnet50" else 0.8)
        assert phrase in said(results, "conclusion")


def test_whether_blocks_are_better_than_layers():
    for of_blocks, order in (
        (0.9, "more accurate than"),
        (0.7, "less accurate than"),
        (0.8, "about as accurate as"),
    ):
        results = invented(lambda b, s, a, c, right=of_blocks: right if s == BLOCKS else 0.8)
        text = said(results, "strategies")
        assert text.count(f"Whole blocks (strategy B) are {order} a fixed number of layers (strategy A)") == 2
        assert f"whole blocks are {order} a fixed number of layers: " in said(results, "conclusion")


def test_how_much_the_number_of_layers_or_blocks_matters():
    text = said(invented(lambda b, s, a, c: {2: 0.9, 4: 0.92}.get(a, 0.95) if s == BLOCKS else 0.8), "ease")
    assert "5, 10 and 40 layers lie within 0 points, and of 2, 4 and 10 blocks lie within 5 points; in Mobile" in text
    one = invented(flat, backbones=("mobilenet",))
    assert said(replace(one, runs=one.runs[:1]), "ease") == ""


def test_limits_are_those_of_the_study():
    whole, folds = said(invented(flat), "limits"), said(invented(flat, photos=60, folds=3), "limits")
    assert "one split of its photos" in whole and "One seed." in whole
    assert "split" not in folds and "seed" not in folds and "not of one trained network" in folds
    assert "One learning rate for all" in whole
    chosen = with_rates(invented(flat, photos=60, folds=4), lambda *w: 1e-4, lambda *w: 0.1)
    assert "One learning rate" not in said(chosen, "limits")


def test_whether_unfreezing_beats_training_longer():
    for of_control, remains in (
        (0.85, "50% of the gain remains"),
        (0.95, "none of the gain"),
        (0.7, "all of the gain"),
    ):
        results = invented(lambda b, s, a, c, right=of_control: 0.9 if s != FROZEN else right if c else 0.8)
        assert said(results, "conclusion").count(remains) == 2
    unsure = invented(lambda b, s, a, c: 0.9 if s != FROZEN else 0.905 if c else 0.8)
    assert "none of the gain" not in said(unsure, "conclusion"), "its interval holds more"
    worse = invented(lambda b, s, a, c: 0.8 if s != FROZEN else 0.9)
    assert "no gain is shown" in said(worse, "conclusion")
    assert "Strategy B is less accurate than the base frozen for as many epochs" in said(worse, "strategies")


def test_one_configuration_that_is_clearly_best_is_the_choice():
    results = invented(lambda b, s, a, c: 0.95 if (s, a) == (BLOCKS, 10) else 0.8)
    for title in ("ResNet50", "MobileNet"):
        assert "the last 10 blocks (95.0%) is the only" in of_network(results, "choice", title)


def test_where_nothing_differs_the_cheapest_is_the_choice():
    results = invented(flat)
    assert (
        said(results, "choice").count("cheapest choice that these photos allow is the base frozen for 20 epochs") == 2
    )
    text = said(results, "choice")
    assert text.count("8 of 8 configurations are not clearly beaten") == 2
    steps = tables.steps(Answer(results))
    assert steps["From"].tolist() == ["the base frozen for 20 epochs"] * 2
    assert steps["p"].tolist() == ["p > 0.999"] * 2 and steps["Helps"].tolist() == ["not shown"] * 2
    ahead = invented(lambda b, s, a, c: 0.905 if c else 0.9)
    assert said(ahead, "choice").count("It is also the most accurate.") == 2


def test_enough_that_is_not_shown_to_beat_the_frozen_base_says_so():
    """Large parts clearly help. The smallest that nothing larger clearly beats is not shown to help itself."""
    results = invented(
        lambda b, s, a, c: {2: 0.88, 4: 0.91, 10: 0.91}[a] if s == BLOCKS else 0.85,
        backbones=("resnet50",),
        photos=180,
        swap=0.05,
    )
    (network,) = Answer(results).networks
    assert network.choice["label"] == "Strategy B (2 blocks)" and network.over_control.sign == 0
    shown = f"It is not shown to beat the frozen base, trained as long: {points(network.over_control)}."
    assert shown in said(results, "answer")
    more, lead = network.beats_control
    assert f"With {more['phrase']} that base is clearly beaten, {points(lead)}, " in said(results, "answer")
    together = network.remaining.over_control.sign == 0
    assert (f"for all together, clear for {more['phrase']}" in said(results, "answer")) == together
    clear = invented(lambda b, s, a, c: 0.7 if s == FROZEN else 0.9, backbones=("resnet50",))
    gain = points(Answer(clear).networks[0].remaining.over_control)
    assert "not shown to beat" not in said(clear, "answer")
    helps = "Compared with a base frozen for as many epochs, the average accuracy of all that unfreeze changes by "
    assert f"{helps}{gain} in ResNet50: it helps." in said(clear, "answer")
    frozen = invented(flat, backbones=("resnet50",))
    assert Answer(frozen).networks[0].over_control is None, "the choice is the control"


def test_the_time_for_a_photo_is_one_number_everywhere():
    results = invented(flat, latency=lambda b, s, a, c: (42 if b == "resnet50" else 10) * (1.1 if a == 10 else 1))
    ratio = results.speed(["mobilenet"], ["resnet50"])
    assert ratio.low < 4.2 < ratio.high and ratio.ratio == pytest.approx(4.2, rel=0.01)
    interval = f"({ratio.low:.1f} to {ratio.high:.1f})"
    assert f"takes 4.2 times as long as MobileNet {interval}: {ratio.second:.1f} against {ratio.first:.1f} ms" in said(
        results, "conclusion"
    )
    assert "takes 4.2 times as long" in advice.box(Answer(results))["What would change this"]
    assert (
        f"the other takes 4.2 times as long {interval}: 42" in results.replication.verdicts["mobilenet-latency"].effect
    )


@pytest.mark.parametrize("after", [0.3, 0.5])
def test_a_new_last_layer_that_gets_worse_with_time_is_said(after):
    results = invented(flat, backbones=("mobilenet",))
    of_control = [run.record.experiment.control for run in results.runs]
    losses = [after if control else 0.4 for control in of_control]
    records = [run.record.model_copy(update={"validation_loss": loss}) for run, loss in zip(results.runs, losses)]
    runs = [run.model_copy(update={"record": record}) for run, record in zip(results.runs, records)]
    text = said(replace(results, runs=runs), "fit")
    assert ("rises from 0.400 after 5 epochs to 0.500 after 20" in text) == (after > 0.4) == ("overfits" in text)


def test_a_tie_for_the_highest_accuracy_is_said():
    results = invented(lambda b, s, a, c: 0.905 if a == 10 else 0.9)
    assert said(results, "choice").count("shared by the last 10 layers (90.5%) and the last 10 blocks (90.5%)") == 2


def test_a_set_of_some_names_those_and_no_others():
    """Blocks are level and all else is worse: the fewest blocks are the choice."""
    results = invented(lambda b, s, a, c: {2: 0.9, 4: 0.915, 10: 0.92}[a] if s == BLOCKS else 0.6, photos=200)
    text = said(results, "choice").split("MobileNet.")[0]
    assert "3 of 8 configurations" in text
    assert "cheapest choice that these photos allow is the last 2 blocks" in text
    assert "layers" not in text
    assert "frozen" not in text
    assert "is +2.0 points" in text
    assert re.search(r"That is too close to call. A difference of [\d.]+ points would have been found", text)
    first = said(results, "answer")
    assert "ResNet50: training more than the last 2 blocks is not shown to help. 90.0% of the photos" in first
    assert "The most accurate, the last 10 blocks, is +2.0 points (" in first and "ahead: too close to call." in first
    assert "enough" not in first and "Training more did not" not in first
    frozen = invented(lambda b, s, a, c: 0.92 if (s, a) == (BLOCKS, 10) else 0.9, photos=200, swap=0.1)
    assert "no single way to unfreeze is shown to beat the base frozen for 20 epochs" in said(frozen, "answer")
    equal = invented(lambda b, s, a, c: {2: 0.9, 4: 0.9, 10: 0.901}[a] if s == BLOCKS else 0.6, photos=3000)
    assert "are shown to be within 2 points of each other" in said(equal, "choice")


def test_the_steps_say_which_configuration_gains_most():
    results = invented(lambda b, s, a, c: 0.93 if s != FROZEN else 0.87, backbones=("mobilenet",), swap=0.08)
    text = said(results, "choice")
    steps = tables.steps(Answer(results))
    assert steps["Helps"].tolist() == ["yes"] * (len(steps) - 1) + ["not shown"]
    assert (
        steps["From"].tolist()[0] == "the base frozen for 20 epochs"
        and steps["From"].tolist()[-1] == "the last 5 layers"
    )
    assert "cheapest choice that these photos allow is the last 5 layers" in text


accuracies = st.lists(st.sampled_from([0.5, 0.7, 0.8, 0.82, 0.84, 0.9]), min_size=16, max_size=16)


@settings(max_examples=6, deadline=None)
@given(accuracies, st.sampled_from([30, 200]))
def test_no_word_of_order_and_no_accuracy_that_the_data_do_not_hold(values, photos):
    """Whatever the results are, each accuracy is one of theirs, and what is said to be better is."""
    order = [(backbone, *which) for backbone in ("resnet50", "mobilenet") for which in CONFIGURATIONS]
    table = dict(zip(order, values))
    results = invented(lambda *which: table[which], photos=photos, swap=0.1)
    rows, answer = results.rows, Answer(results)
    shares = {f"{value:.1%}" for value in [*rows["test_accuracy"], *rows["test_low"], *rows["test_high"]]}
    of_networks = "\n".join(answer.write("answer").split("\n")[:2])
    assert set(re.findall(r"[\d.]+%", of_networks + answer.write("choice").split("*Clearly beaten*")[0])) <= shares
    for network in answer.networks:
        text = of_network(results, "accuracy", network.title)
        found = re.search(r"(\w+) of its 28 pairs", text)[1]
        assert found.replace("None", "0") == str(results.pairs[network.name]["separated"].sum())
        if len(network.unbeaten) > 1:
            assert f"{network.unbeaten[0]['test_accuracy']:.1%}" == f"{network.rows['test_accuracy'].max():.1%}"
            cheaper = network.choice["trainable_parameters"]
            assert cheaper <= network.top["trainable_parameters"]
    (versus,) = answer.versus
    same = "about as accurate as" if versus.accuracy.equivalence(results.margin) < 0.05 else "not clearly more or less"
    phrase = {1: "more accurate than", -1: "less accurate than", 0: same}[versus.accuracy.sign]
    assert f"ResNet50 is {phrase}" in answer.write("conclusion")
    assert f"MobileNet: {points(versus.accuracy)}" in answer.write("conclusion")
    if versus.accuracy.sign:
        means = rows[~rows["control"]].groupby("backbone")["test_accuracy"].mean()
        assert (means["resnet50"] > means["mobilenet"]) == (versus.accuracy.sign > 0)
    replication = results.replication
    holds = sum(replication.verdicts[claim.id].word == "holds" for claim in replication.stated)
    counted = re.search(r"\b(\d+) holds?\b", answer.write("counted"))
    assert int(counted[1] if counted else 0) == holds


# ---- what the study is, and what it can show ----------------------------------------------------


def test_weights_that_are_not_official_are_named_wherever_a_network_is_judged():
    results = invented(flat)
    weights = results.runs[0].record.weights | {"title": "A copy", "official": False}
    changed = [
        run.model_copy(
            update={
                "record": run.record.model_copy(
                    update={"weights": weights | {"official": run.record.experiment.backbone != "resnet50"}}
                )
            }
        )
        for run in results.runs
    ]
    results = Results(changed)
    (caveat,) = Answer(results).caveats
    assert caveat.startswith("The weights of ResNet50 are not the official ones: A copy.")
    assert "The pre-trained weights of ResNet50 are not the official ones" in said(results, "answer")
    assert "MobileNet starts" not in said(results, "answer")


def test_how_it_was_measured_is_told_from_the_records():
    text = said(invented(flat, seeds=2), "method")
    assert "head trains alone for 5 epochs" in text
    assert "train for 15 more" in text
    assert "frozen, 20 epochs" in text
    assert "2 seeds" in text
    assert "within 2 points" in text
    assert "come from the profile" in text


def test_a_study_without_claims_says_nothing_of_an_original():
    results = invented(flat, latency=lambda *which: 10.0)
    with_claims = " ".join(said(results, section) for section in SECTIONS)
    without = Results(results.runs, results.latency, results.margin, results.planned)
    general = " ".join(said(without, section) for section in SECTIONS)
    assert "original" in with_claims
    assert not re.search("original|claim|replicat", general, re.IGNORECASE)
    assert "The original" not in tables.configurations(without)
    beside = tables.configurations(results)["The original"]
    assert len(beside) == 16 and (beside != tables.NONE).sum() == 14, "a control has none"
    assert beside[0] == "92.1%"
    for path in TEMPLATES:
        assert not re.search("resnet|mobilenet|flowers", path.read_text(encoding="utf-8"), re.IGNORECASE), path.name


def test_few_test_photos_are_warned_of_on_the_first_page():
    warning = Answer(invented(flat, photos=40)).warning
    assert warning.startswith("Only 40 test photos")
    assert re.search(r"about [\d.]+ points wide", warning)
    assert Answer(invented(flat, photos=100)).warning is None


def test_what_so_many_photos_can_show():
    many, few = invented(flat, photos=2000, swap=0.3), invented(flat, photos=100, swap=0.3)
    found = [float(re.search(r"true difference of ([\d.]+) points", said(r, "power"))[1]) for r in (many, few)]
    assert found[0] < found[1] / 3
    assert "no difference, however large, would be found in 8 of 10" in said(invented(flat, photos=5), "power")


def test_one_seed_says_what_it_cannot_tell_and_several_say_how_far_they_vary():
    assert "Another seed means" in said(invented(flat), "power")
    several = invented(flat, backbones=("mobilenet",), seeds=3, swap=0.3)
    assert re.search(r"From seed to seed .* standard deviation of \d(\.\d)? points", said(several, "power"))


def test_unequal_seeds_are_said_and_what_one_cannot_tell():
    results = invented(flat, seeds=3, swap=0.3)
    runs = [r for r in results.runs if r.record.experiment.backbone == "mobilenet" or r.record.experiment.seed == 0]
    text = said(Results(runs), "power")
    assert "run with 1 seed (ResNet50), 3 seeds (MobileNet)" in said(Results(runs), "method")
    assert "With one seed (ResNet50) intervals leave out" in captions.accuracy(Answer(Results(runs)))
    assert "The 8 configurations with one seed (ResNet50) cannot include it" in text


def test_a_study_in_folds_says_what_its_folds_are_and_what_its_results_speak_of():
    results = invented(lambda b, s, a, c: 0.9 if s == BLOCKS else 0.8, photos=400, folds=10, swap=0.05)
    planned = {name: tuple(range(2, 10)) for name in results.backbones}
    some = [run for run in results.runs if 2 <= run.record.experiment.fold < 8]
    part = replace(results, runs=some, planned_folds=planned, lacking={"mobilenet": {8: ["mobilenet-blocks-2"]}})
    answer = Answer(part)
    assert answer.choosing == [0, 1]
    assert answer.facts("mine")["Experiments"].startswith("16 of 16 experiments, tested on 6 of 8 folds; ")
    assert "400 photos in 10 folds; each time 300 photos train, 60 validate, 40 test" in answer.facts("mine")["Data"]
    method = said(part, "method")
    assert "tested once on each of their photos, by a network that has not seen it" in method
    assert "6 of 8 folds are finished and compared. They speak of the procedure" in method
    assert "on about 75% of these photos" in method
    assert "whole folds random signs (Westfall and Young, 1993)" in method
    assert "test_folds" not in method and not part.folds_left_out
    fewer = said(replace(part, planned_folds=planned | {"resnet50": (2, 3, 4)}), "method")
    assert "The profile (`test_folds`) leaves out 5 folds of ResNet50, to save time;" in fewer
    assert "of MobileNet, to save time" not in fewer
    assert "1 finished fold of MobileNet is left out" in said(part, "missing")
    assert "Fold 8 is missing for mobilenet-blocks-2." in said(part, "missing")
    assert "90.0% of the photos are classified" in said(part, "answer")
    assert "standard deviation of" in said(part, "power")
    assert "240 tested photos" in said(part, "power") and "240 tested photos" in said(part, "hard")
    assert Answer(invented(flat, photos=120, folds=10)).warning is None
    assert Answer(invented(flat, photos=60, folds=3)).warning.startswith("Only 60 test photos"), "of all folds together"


@pytest.mark.parametrize(
    "folds, how", [(6, "for all of them together"), (5, "Holm's method (1979), for the steps"), (4, "by Bonferroni's")]
)
def test_how_many_comparisons_are_corrected_goes_by_the_number_of_folds(folds, how):
    text = said(invented(flat, photos=120, folds=folds, swap=0.1, backbones=("mobilenet",)), "method")
    assert how in text
    assert ("Bonferroni" in text) == (folds < 5) and ("Holm" in text) == (folds < 6)


def test_learning_rates_say_what_was_taken_and_who_needs_care():
    def best(b, s, a, c):
        return 3e-4 if a == 5 else 1e-4

    def care(b, s, a, c):
        return 0.1 if b == "mobilenet" else 5.0 if a == 40 else 0.3

    results = with_rates(invented(flat, photos=60, folds=10, swap=0.1), best, care)
    text = said(results, "method")
    assert "lowest loss on 80 photos (folds 0 and 1) that took no part in the test" in text
    assert "5 of ResNet50's 6 configurations took 0.0001, 1 took 0.0003; 5 of MobileNet's" in text
    assert "2 choices are still the largest or smallest rate that was tried" in text
    assert "at a learning rate of" not in text, "there is none that all share"
    chapter = said(results, "learning_rates")
    assert chapter.count("All 8 configurations took 0.003.") == 2
    assert "For the last 5 layers it is still the largest that was tried" in chapter
    resnet50, mobilenet = chapter.split("ResNet50, after")[1].split("MobileNet, after")
    assert "the loss of the last 40 layers rises most of all, from 0.300 to 1.6" in resnet50
    assert "the training of the last 40 layers diverges" in said(
        with_rates(invented(flat, photos=60, folds=10), best, lambda *w: 9.0 if w[2] == 40 else 0.1), "learning_rates"
    )
    assert "None needs much care" in mobilenet
    table = tables.rates(Answer(results))
    assert len(table) == 2 * (6 + 1), "the head that all have in common stands once"
    assert table["What trains"].to_list().count("all") == 2
    control = (results.rates["label"] == "Frozen, 20 epochs") & (results.rates["backbone"] == "mobilenet")
    other = results.rates.assign(loss=results.rates["loss"].where(~control, results.rates["loss"] + 0.1))
    assert tables.rates(Answer(replace(results, rates=other)))["What trains"].to_list()[-2:] == [
        "all but frozen 20",
        "frozen 20",
    ]
    assert said(invented(flat), "learning_rates") == ""


def test_tables_shorten_the_long_keys_of_tfds_and_leave_others_alone():
    long = "mine-train.tfrecord-00002-of-00012__17"
    photos = pd.DataFrame({"key": [long, "roses/17.jpg"], "label": "roses", "said": "tulips", "wrong": 1.0})
    assert tables.hard(photos)["Key"].to_list() == ["train-2-17", "roses/17.jpg"]
    found = pd.DataFrame([("D13", "Alike", f"2 photos: {long} (fold 2) and a-b/c.jpg", "Look.")])
    shown = tables.findings(found.set_axis(["code", "title", "found", "do"], axis=1))
    assert shown["Found"].to_list() == ["2 photos: train-2-17 (fold 2) and a-b/c.jpg"]


def test_the_results_of_a_study_in_folds_name_the_fold(tmp_path):
    for results in (invented(flat), invented(flat, photos=60, folds=3)):
        tables.write_tables(results, tmp_path)
        runs = pd.read_csv(tmp_path / "results.csv")
        assert len(runs) == len(results.runs)
        assert ("fold" in runs) == results.has_folds
        text = (tmp_path / "results.md").read_text(encoding="utf-8")
        assert ("means over 3 of 3 folds" in text) == results.has_folds


def test_on_other_data_the_claims_are_said_to_be_about_their_own():
    results = invented(flat)
    assert "The claims are about" not in said(results, "replication")
    for run in results.runs:
        run.record.data["dataset"] = "beans"
    assert "The claims are about TF Flowers" in said(results, "replication")


# ---- learning, speed and cost -------------------------------------------------------------------


def test_speed_is_of_the_graph_and_noise_is_named():
    assert "not measured" in said(invented(flat), "speed")
    results = invented(flat, latency=lambda b, s, a, c: (20 if b == "resnet50" else 5) * (1.2 if a == 10 else 1))
    assert "takes 20.0 ms for a single photo" in of_network(results, "speed", "ResNet50")
    assert "takes 5.0 ms" in of_network(results, "speed", "MobileNet")
    assert re.findall(r"between ([\d.]+) and ([\d.]+) ms", said(results, "speed")) == [("20.0", "24.0"), ("5.0", "6.0")]
    assert "it takes 5 ms as a compiled graph and 45 ms with `predict()`" in said(results, "replication")
    assert "ResNet50 takes 4.0 times as long as MobileNet (3.3 to 4.8): 20.0 against 5.0 ms" in said(
        results, "conclusion"
    )


def test_a_network_that_was_measured_once_has_no_noise():
    results = invented(flat, latency=lambda *which: 10.0)
    once = results.latency.drop_duplicates(["backbone", "call", "photos", "round"])
    once = once.drop(columns=["strategy", "amount", "epochs"])
    text = said(Results(results.runs, once, planned=16), "speed")
    assert text.count("10.0 ms for a single photo") == 2
    assert "noise" not in text


@pytest.mark.parametrize("sign, trend", [(1, "rises"), (-1, "falls")])
def test_fit_is_what_the_gap_and_the_loss_say(sign, trend):
    def ahead(backbone, strategy, amount, control):
        return 0.5 + 0.4 * SIZES[strategy, amount] / 4000

    sizes = with_losses(invented(flat, train_accuracy=ahead), lambda *which: 0.5 - sign * (ahead(*which) - 0.65))
    text = said(sizes, "fit")
    assert text.count("the lead of training over validation accuracy rises: +") == 2
    assert text.count(f"the loss on unseen photos {trend}: {'+' if sign > 0 else '-'}0.") == 2
    assert "rises" not in said(invented(flat), "fit")
    assert "falls" not in said(invented(flat), "fit")


def test_clear_differences_are_told_of_each_that_is_behind():
    better = {(BLOCKS, 10): 0.9, (FROZEN, 0): 0.7}
    text = said(invented(lambda b, s, a, c: better.get((s, a), 0.8), backbones=("mobilenet",)), "accuracy")
    others = "A-5, A-10, A-40, B-2, B-4"
    assert "17 of its 28 pairs of configurations differ clearly: " in text
    assert f"clearly: frozen 5 is less accurate than {others} and B-10; frozen 20 is less accurate than" in text
    assert "; A-5 is less accurate than B-10; " in text
    assert "configurations differ clearly." in said(invented(lambda *_: 0.8), "accuracy")


def test_the_network_that_needs_less_is_named():
    results = invented(flat, peak_memory_mb=lambda b, s, a, c: 1.0 + (b == "resnet50"))
    phrase = "MobileNet needs less memory in 8 of 8 configurations: ResNet50 needs 2.00 to 2.00 times as much"
    assert phrase in said(results, "conclusion")


def test_layers_alone_are_compared_with_the_control():
    runs = [run for run in invented(flat).runs if run.record.experiment.strategy in (FROZEN, LAYERS)]
    text = said(Results(runs), "strategies")
    assert "Strategy A is about as accurate as the base frozen for as many epochs: +0.0 points (-0.7 to +0.7)" in text
    assert "Strategy B" not in text


def test_the_words_bear_one_network_and_one_configuration():
    results = Results(invented(flat, backbones=("mobilenet",)).runs[:1])
    texts = {section: said(results, section) for section in SECTIONS}
    assert "the only configuration that was run" in texts["choice"]
    assert not any("nan" in text for text in texts.values())
    assert all(text for section, text in texts.items() if section not in MAY_BE_EMPTY)


# ---- photos, tables and what is missing ---------------------------------------------------------


def test_the_hardest_photos_are_those_that_most_runs_get_wrong():
    def better(b, s, a, c):
        return 0.9 if b == "resnet50" else 0.8

    results = invented(better, photos=20)
    hard = Answer(results).hard
    assert hard["key"].tolist() == ["photo-18", "photo-19", "photo-16", "photo-17"]
    assert hard["wrong"].tolist() == [1, 1, 0.5, 0.5]
    assert set(hard["said"]) == {"tulip"}
    runs = invented(better, 20, seeds=3).runs
    runs = [r for r in runs if r.record.experiment.backbone == "mobilenet" or r.record.experiment.seed == 0]
    assert Answer(Results(runs)).hard["wrong"].tolist() == [1, 1, 0.5, 0.5], "more seeds are not more weight"
    assert "all 16 runs classify 16 correctly and 2 wrongly. They differ on the other 2" in said(results, "hard")
    assert len(Answer(invented(lambda *which: 1.0)).hard) == 0


def test_the_tables_for_people_who_write_their_own(tmp_path):
    results = invented(flat, seeds=2)
    tables.write_tables(results, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "answer.json",
        "results.csv",
        "results.md",
        "results.tex",
    ]
    runs = pd.read_csv(tmp_path / "results.csv")
    assert len(runs) == len(results.runs)
    assert {"seed", "test_accuracy", "head_seconds"} <= set(runs)
    as_markdown, latex = ((tmp_path / f"results.{kind}").read_text(encoding="utf-8") for kind in ("md", "tex"))
    assert as_markdown.count("Strategy B (2 blocks)") == latex.count("Strategy B (2 blocks)") == 2
    assert r"\begin{tabular}" in latex and not re.search(r"(?<!\\)%", latex), "a bare % would be a comment"


def test_costs_are_told_by_phase():
    table = tables.costs(invented(flat))
    assert len(table) == 16
    assert "GPU MB" not in table
    tuned = table[table["What trains"] == "Strategy A (5 layers)"].iloc[0]
    assert (tuned["Head (s)"], tuned["Unfrozen (s)"], tuned["All (s)"]) == ("2.0", "3.0", "6.0")
    assert "GPU MB" in tables.costs(invented(flat, peak_device_memory_mb=lambda *which: 512.0))


def test_what_is_missing_is_said_with_its_reason_and_shown_in_the_table():
    whole = invented(flat)
    assert said(whole, "missing") == ""
    lost = [run for run in whole.runs if run.record.experiment.label == "Strategy B (4 blocks)"]
    jobs = [Job(f"job-{i}", f"config-{i}", run.record.experiment, Path("x")) for i, run in enumerate(lost)]
    reasons = dict(zip(jobs, ["diverged: after epoch 3", "its *kernel* died\nand more"]))
    rest = [run for run in whole.runs if run not in lost]
    results = Results(rest, None, whole.margin, whole.planned, reasons, claims=whole.claims)
    text = Answer(results).write("missing")
    assert "**2 of the 16 experiments have no results**" in text
    assert "config-0, seed 0" in html.unescape(text)
    assert "*kernel*" not in text
    assert "and more" not in text
    frame = tables.configurations(results)
    shown = frame["What trains"].tolist()
    assert "Strategy B (4 blocks): diverged" in shown
    assert "Strategy B (4 blocks): not finished" in shown
    assert len(frame) == 16 and (frame.iloc[-1, 2:] == tables.NONE).all()
    assert "Strategy B (4 blocks)" not in shown
