"""The first page: it says what to do in plain words, and never more than the data do."""

import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from invented import BLOCKS, FROZEN, flat, invented, of_somebody_else

from thaw.report import advice, figures, tables
from thaw.report.answer import Answer
from thaw.report.results import Results

pytestmark = pytest.mark.usefixtures("quick_corrections")


def network(results: Results, name: str = "mobilenet"):
    return next(each for each in Answer(results).networks if each.name == name)


def titles(results: Results) -> list[str]:
    return [axes.get_title() for axes in figures.accuracy_by_parameters(results).axes]


def test_a_network_that_is_clearly_better_is_advised_whatever_it_costs():
    results = invented(lambda b, s, a, c: 0.95 if (b, s, a) == ("mobilenet", BLOCKS, 2) else 0.8)
    assert Answer(results).advised.name == "mobilenet"
    assert results.recommended["label"] == "Strategy B (2 blocks)"
    box = advice.box(Answer(results))
    assert box["Network"] == "MobileNet, pre-trained"
    assert box["What to train"].startswith("the last 2 blocks and the new last layer: 1,")
    assert box["What to train"].endswith(" parameters. The rest stays as it is.")
    assert (
        box["How"]
        == "5 epochs of the new last layer alone (learning rate 0.001), then 15 epochs of all that trains (0.00001)"
    )
    assert box["Accuracy"].startswith(
        "95.0% of the photos that it was not trained on are classified correctly (95% interval, where the "
        "true value probably is: 92.4% to"
    )
    assert box["Why this network"] == "It is clearly the most accurate network."
    assert "ResNet50 (the base frozen for 20 epochs) is 15 points less accurate (" in box["What would change this"]
    assert advice.for_programs(Answer(results))["advice"]["decided"] == "clearly best"


def between(lead: float, photos: int = 400, swap: float = 0.0, timed: bool = True, slow: str = "resnet50", **more):
    """Networks of which the slower one is ahead by so much, whatever trains."""
    other = "mobilenet" if slow == "resnet50" else "resnet50"
    return invented(
        lambda b, s, a, c: 0.9 - 0.1 * (s == FROZEN) + lead * (b == slow),
        photos=photos,
        swap=swap,
        latency=(lambda b, s, a, c: {slow: 48.0, other: 12.0}[b]) if timed else None,
        **more,
    )


@pytest.mark.parametrize(
    "lead, more, advised, decided, why, change",
    [
        (
            0.08,
            {},
            "resnet50",
            "clearly best",
            r"clearly the most accurate network\.",
            r"MobileNet \(.*\) is 8 points less accurate \(",
        ),
        # Ahead by a hair, at four times the milliseconds.
        (
            0.005,
            {},
            "mobilenet",
            "fastest of those close",
            "0.5 points .*no difference that matters .90% interval: .* 4.0 times",
            "",
        ),
        # Photos that are right at random: less is known.
        (0.01, {"photos": 300, "swap": 0.2}, "mobilenet", "fastest of those close", "the faster of", "could decide"),
        (
            0.04,
            {"photos": 150, "swap": 0.3},
            "resnet50",
            "most accurate",
            "no other network is within 2 points",
            "too close",
        ),
        # Where nothing was timed, the smaller one; as fast and as good: the faster one is not named as the best.
        (0.005, {"timed": False}, "mobilenet", "smallest of those close", "is the smaller of the 2", ""),
        (0.005, {"slow": "mobilenet"}, "resnet50", "fastest of those close", "is the faster of the 2", ""),
        (
            -0.005,
            {},
            "mobilenet",
            "fastest of those close",
            r"close in accuracy\.$",
            "ResNet50.*0.5 points less .* a photo takes 4.0 times",
        ),
    ],
)
def test_of_networks_that_are_close_the_one_that_costs_least_is_advised(lead, more, advised, decided, why, change):
    results = between(lead, **more)
    answer = Answer(results)
    told, box = advice.for_programs(answer), advice.box(answer)
    assert told["advice"]["network"] == answer.advised.name == results.recommended["backbone"] == advised
    assert told["advice"]["decided"] == decided
    assert re.search(why, box["Why this network"]) and re.search(change, box["What would change this"])
    assert f"**{results.recommended['phrase']} of {answer.advised.title}**" in answer.write("choice")
    ahead = told["advice"]["most_accurate_less_advised"]
    assert (ahead is None) == (told["advice"]["most_accurate"]["configuration"] == told["advice"]["configuration"])
    if ahead and ahead["points"] > 0:
        lead = f"{ahead['points']:.1f} points ({ahead['low']:+.1f} to {ahead['high']:+.1f})"
        assert f"It is ahead by {lead}" in box["What would change this"]


def test_a_clear_lead_within_the_margin_counts_unless_it_is_shown_not_to_matter():
    clear = between(0.015, photos=1200)
    assert clear.clearly_behind == {"mobilenet"} and clear.recommended["backbone"] == "resnet50"
    small = replace(clear, margin=0.05)
    assert small.clearly_behind == set() and small.recommended["backbone"] == "mobilenet"


def test_what_would_be_used_is_compared_and_what_was_more_accurate_is_said():
    """ResNet50's last 2 blocks stand out by chance; what is advised of it is no better than what is of MobileNet."""
    results = invented(
        lambda b, s, a, c: 0.86 + 0.05 * (s != FROZEN) + 0.01 * (b == "resnet50"),
        photos=300,
        folds=8,
        swap=0.1,
        wobble=0.02,
        latency=lambda b, *more: 40.0 if b == "resnet50" else 10.0,
    )
    answer = Answer(results)
    assert results.most_accurate["backbone"] == "resnet50" and results.close == ["resnet50", "mobilenet"]
    assert answer.advised.name == "mobilenet"
    change = advice.box(answer)["What would change this"]
    assert re.search(r"If accuracy alone counts: ResNet50 .*4\.0 times .*: too close", change)


@pytest.mark.parametrize("folds, seeds, swap, wobble", [(10, 1, 0.1, 0.01), (0, 3, 0.1, 0.0), (0, 1, 0.0, 0.0)])
def test_a_network_is_called_clearly_the_best_only_if_what_is_advised_of_it_is(folds, seeds, swap, wobble):
    """In folds, ResNet50's most accurate is clearly ahead of MobileNet's choice, and its own choice is not."""
    lead = lambda b, s, a, c: 0.9 + 0.03 * (b == "resnet50") + 0.02 * (s != FROZEN)  # noqa: E731
    answer = Answer(invented(lead, folds=folds, seeds=seeds, swap=swap, wobble=wobble))
    assert answer.advised.name == "resnet50" and answer.results.clearly_behind == {"mobilenet"}
    box = advice.box(answer)
    clear = "clearly the most accurate network" in box["Why this network"]
    assert clear == ("MobileNet" in box["What would change this"] and not folds)
    assert clear == bool(re.search(r"MobileNet \(.*\) is .* less accurate \([^)]*\)\.", box["What would change this"]))
    assert advice.for_programs(answer)["advice"]["decided"] == ("clearly best" if clear else "most accurate")


def test_networks_that_are_alike_are_called_so_and_the_same_time_is_no_news():
    box = advice.box(Answer(invented(flat, latency=lambda *_: 12.0)))
    assert re.search(
        r"MobileNet \(.*\) is as accurate \(-[\d.]+ to \+[\d.]+\), "
        r"no difference that matters \(90% interval: [^)]*\)\.",
        box["What would change this"],
    )


def test_a_network_that_is_clearly_behind_is_not_advised_even_if_its_choice_is_the_best():
    """MobileNet's choice is a hair ahead of ResNet50's, and clearly behind ResNet50's most accurate."""
    results = invented(
        lambda b, s, a, c: 0.88 + 0.05 * ((b, a) == ("resnet50", 10) and s == BLOCKS) + 0.008 * (b == "mobilenet"),
        photos=200,
        swap=0.1,
    )
    assert results.best_choice["backbone"] == "mobilenet" and results.clearly_behind == {"mobilenet"}
    assert results.close == ["resnet50"] and results.recommended["backbone"] == "resnet50"
    change = advice.box(Answer(results))["What would change this"]
    assert re.search(r"ahead by .* \(\+.*\): too close to call, as the best of 8 configurations\. More photos", change)


def test_of_networks_without_a_fold_in_common_the_most_accurate_is_advised():
    whole = between(0.005, folds=6)
    keep = {"resnet50": (0, 1, 2), "mobilenet": (3, 4, 5)}
    runs = [run for run in whole.runs if run.record.experiment.fold in keep[run.record.experiment.backbone]]
    apart = replace(whole, runs=runs, claims=None)
    assert apart.close == [apart.best_choice["backbone"]]


@pytest.mark.parametrize(
    "accuracy, decision, said, title",
    [
        (
            lambda b, s, a, c: 0.95 if (s, a) == (BLOCKS, 10) else 0.8,
            "clearly best",
            "the last 10 blocks: clearly more accurate than all else that was tried",
            "the last 10 blocks clearly ahead",
        ),
        (
            lambda b, s, a, c: 0.8 if s == FROZEN else 0.95 if a == 5 else 0.949,
            "most accurate",
            "it is enough to train the last 5 layers. 95.0%",
            "no clear gain beyond the last 5 layers",
        ),
        (
            lambda b, s, a, c: 0.8 if s == FROZEN else 0.95 if a == 10 else 0.9475,
            "no difference that matters",
            "Training more did not clearly help.",
            "no clear gain beyond the last 5 layers",
        ),
        (
            flat,
            "most accurate",
            "the new last layer is enough (the base frozen for 20 epochs)",
            "no clear gain beyond the base frozen for 20 epochs",
        ),
    ],
)
def test_why_the_choice_is_the_choice(accuracy, decision, said, title):
    results = invented(accuracy)
    assert network(results).decision == decision
    assert Answer(results).write("answer").count(said) == 2
    assert [" ".join(each.split("\n")[1:]) for each in titles(results)] == [title] * 2


def test_what_is_too_close_to_call_is_called_so():
    results = invented(lambda b, s, a, c: 0.86 if s == FROZEN else 0.93 if a == 10 else 0.91, photos=150, swap=0.1)
    assert network(results).decision == "too close to call"
    change = advice.box(Answer(results))["What would change this"]
    assert re.search(r"If accuracy .*\. It took about as long to train\. It is ahead by .*: too close to call", change)


def test_few_photos_decide_nothing():
    results = invented(lambda b, s, a, c: 0.9 if s == BLOCKS else 0.5, photos=40)
    answer = Answer(results)
    assert answer.write("answer").count("so few photos cannot decide. Most promising is the last 2 blocks.") == 2
    assert "enough" not in answer.write("answer") and "clearly help" not in answer.write("answer")
    assert advice.box(answer)["What would change this"].startswith("More test photos: so few cannot decide")
    assert titles(results) == ["ResNet50", "MobileNet"], "a title that says nothing more"
    assert advice.for_programs(answer)["enough_photos_to_decide"] is False


def test_one_configuration_is_compared_with_nothing():
    whole = invented(flat, backbones=("mobilenet",))
    answer = Answer(replace(whole, runs=whole.runs[-1:], claims=None))
    assert "only the last 10 blocks was tried" in answer.write("answer")
    assert "this is the only one of its network that was run" in advice.box(answer)["What would change this"]
    assert "Another network" not in advice.box(answer)["What would change this"]
    (one,) = advice.for_programs(answer)["networks"]
    assert one["decided"] == "only" and one["most_accurate_less_recommended"] is None


def test_the_first_page_explains_its_words():
    text = Answer(invented(flat)).write("explained")
    assert all(f"*{word}*" in text for word in ("network", "layers", "block", "unfreeze", "frozen"))
    layers = invented(flat)
    layers = replace(layers, runs=[run for run in layers.runs if run.record.experiment.strategy != BLOCKS])
    assert "block" not in Answer(layers).write("explained")
    assert "of less than 2 is taken not to matter" in text and "*fold*" not in text
    assert "A *fold* is a part of the photos" in Answer(invented(flat, folds=5)).write("explained")


def test_the_words_of_the_first_page_are_of_one_s_own_study():
    answer = Answer(of_somebody_else([60, 50, 20]))
    text = answer.write("explained") + answer.write("answer") + str(advice.box(answer))
    assert not re.search(r"resnet|mobilenet|flower|original|claim|strategy|\bnan\b|jargon", text, re.IGNORECASE)


@pytest.mark.parametrize("folds", [0, 5])
def test_programs_get_the_same_answer(tmp_path, folds):
    results = invented(lambda b, s, a, c: 0.9 if s == BLOCKS else 0.8, folds=folds, latency=lambda *which: 12.0)
    tables.write_tables(results, tmp_path, {results.recommended["configuration"]: "my-blocks"}, "0af")
    told = json.loads((tmp_path / "answer.json").read_text(encoding="utf-8"))
    rows = pd.read_csv(tmp_path / "results.csv")
    assert told["made_from"] == "0af" and told["advice"]["configuration"] == "my-blocks"
    one = next(each for each in told["networks"] if each["network"] == told["advice"]["network"])
    mine = rows[rows["configuration"] == results.recommended["configuration"]]
    assert one["recommended"]["accuracy"] == pytest.approx(mine["test_accuracy"].mean())
    assert one["recommended"]["training_seconds"] == pytest.approx(mine["training_seconds"].mean())
    assert one["milliseconds_a_photo"] == pytest.approx(mine["latency"].iloc[0])
    assert len(one["folds"]) == folds
    assert sum(told["claims"].values()) - told["claims"].get("standing", 0) == 19


def on_folds_of_their_own(slow: str) -> Results:
    """ResNet50 is better on each fold; MobileNet was tested on the three easy ones alone."""
    whole = invented(
        lambda b, s, a, c: 0.92 if b == "resnet50" else 0.88,
        photos=4000,
        folds=8,
        swap=0.02,
        latency=lambda b, s, a, c: 12.0 if b == slow else 48.0,
    )
    runs = []
    for run in whole.runs:
        e = run.record.experiment
        if e.backbone == "mobilenet" and e.fold > 2:
            continue
        if e.fold > 2:  # what only ResNet50 was tested on is hard
            wrong = np.arange(len(run.predictions)) % 5 == 0
            predictions = run.predictions.assign(predicted=run.predictions["predicted"].mask(wrong, "tulip"))
            accuracy = float((predictions["label"] == predictions["predicted"]).mean())
            record = run.record.model_copy(update={"test_accuracy": accuracy})
            run = run.model_copy(update={"predictions": predictions, "record": record})
        runs.append(run)
    return replace(whole, runs=runs)


def test_networks_are_ranked_on_the_folds_that_all_of_them_have():
    results = on_folds_of_their_own("mobilenet")
    rows = results.rows.groupby("backbone")["test_accuracy"].max()
    assert rows["mobilenet"] > rows["resnet50"], "on folds of its own it looks better"
    assert results.have_own_folds
    assert results.most_accurate["backbone"] == results.best_choice["backbone"] == "resnet50"
    assert results.recommended["backbone"] == "resnet50", "it is clearly better where both were tested"
    assert results.across(results.most_accurate) > 0.9 > results.most_accurate["test_accuracy"]
    text = Answer(results).write("answer")
    for title, folds in (("ResNet50", 8), ("MobileNet", 3)):
        assert re.search(rf"\*\*{title}:\*\*.* are classified correctly \([^)]*\), on {folds} folds\.", text)
