"""Words, verdicts and figures of studies that are small, unfinished or one-sided: none fails, none says nan."""

import html
import json
import re
import time
from dataclasses import replace

import pandas as pd
import pytest
from invented import FROZEN, OWN, WAYS, flat, invented, of_somebody_else, with_rates
from test_words import MAY_BE_EMPTY, SECTIONS

from thaw.records.runs import runs_table
from thaw.report import advice, captions, figures, tables
from thaw.report.answer import Answer
from thaw.report.display import Figure
from thaw.report.results import Results

pytestmark = [pytest.mark.usefixtures("quick_corrections"), pytest.mark.filterwarnings("error")]


def part(keep, seeds: int = 1) -> Results:
    """Of a study the runs for whose experiments `keep` is true."""
    whole = invented(flat, photos=40, seeds=seeds, swap=0.2, latency=lambda *which: 10.0)
    runs = [run for run in whole.runs if keep(run.record.experiment)]
    return Results(runs, whole.latency, whole.margin, whole.planned, claims=whole.claims)


def in_folds(keep) -> Results:
    """Of a study of eight folds the runs for whose experiments `keep` is true."""
    whole = invented(flat, photos=80, swap=0.2, folds=8, latency=lambda *which: 10.0)
    return replace(whole, runs=[run for run in whole.runs if keep(run.record.experiment)])


STUDIES = {
    "all right": lambda: invented(lambda *which: 1.0, latency=lambda *which: 10.0),
    "all wrong": lambda: invented(lambda *which: 0.0),
    "one photo": lambda: invented(flat, photos=1),
    "five photos": lambda: invented(flat, photos=5, swap=0.5),
    "one seed of the one, three of the other": lambda: part(lambda e: e.seed == 0 or e.backbone == "mobilenet", 3),
    "no seed in common": lambda: part(lambda e: (e.seed == 1) == (e.backbone == "resnet50"), 2),
    "some seeds missing": lambda: part(lambda e: not (e.seed == 1 and e.amount == 10), 2),
    "no control": lambda: part(lambda e: not e.control),
    "no frozen base": lambda: part(lambda e: e.strategy != FROZEN),
    "frozen bases alone": lambda: part(lambda e: e.strategy == FROZEN),
    "one network": lambda: part(lambda e: e.backbone == "mobilenet"),
    "one configuration": lambda: part(lambda e: e.backbone == "mobilenet" and e.amount == 4, 2),
    "one run": lambda: part(lambda e: e.backbone == "mobilenet" and e.amount == 4),
    "no claims": lambda: Results(invented(flat).runs),
    "ten folds": lambda: invented(flat, folds=10, swap=0.2, latency=lambda *which: 10.0),
    "three folds": lambda: invented(flat, photos=60, folds=3, swap=0.2),
    "five folds, two seeds each": lambda: invented(flat, photos=60, folds=5, swap=0.2, seeds=2),
    "all right in all folds": lambda: invented(lambda *which: 1.0, photos=40, folds=4),
    "a photo a fold": lambda: invented(flat, photos=3, folds=3, swap=0.5),
    "folds of one configuration": lambda: in_folds(lambda e: e.backbone == "mobilenet" and e.amount == 4),
    "other folds of each network": lambda: in_folds(lambda e: (e.fold > 3) == (e.backbone == "resnet50")),
    "folds that share rates": lambda: with_rates(
        invented(flat, photos=60, folds=6, swap=0.2), lambda *which: 1e-4, lambda *which: 0.1
    ),
}


@pytest.mark.parametrize("name", STUDIES)
def test_any_study_has_its_report(name):
    results = STUDIES[name]()
    answer = Answer(results)
    texts = [answer.write(section) for section in SECTIONS if section not in MAY_BE_EMPTY]
    frames = [tables.configurations(results), tables.costs(results), tables.provenance(answer)]
    if results.replication:
        frames.append(results.replication.claims_table())
        assert captions.claims(answer)
        figures.claims(results.replication)
        texts.append(answer.write("replication"))
    box = advice.box(answer)
    texts += [*box.values(), json.dumps(advice.for_programs(answer), allow_nan=False)]
    frames.append(tables.differences(results))
    for text in [*texts, *(frame.to_string() for frame in frames)]:
        assert text
        assert not re.search(r"\b(nan|inf)\b", text, re.IGNORECASE)
    shown = [
        figures.accuracy_by_parameters(results),
        figures.accuracy_by_cost(results),
        figures.losses(results),
    ]
    if answer.rates:
        shown.append(figures.rates(results))
        assert len(tables.rates(answer))
        assert captions.rates(answer)
    assert all(write(answer) for write in CAPTIONS)
    assert all(figure.axes for figure in shown)


CAPTIONS = (captions.accuracy, captions.differences, captions.confusion, captions.hard, captions.costs)
CAPTIONS += (captions.cost, captions.losses, captions.curves)


def everything(results: Results) -> str:
    """All words of a study's report, with its tables and what its figures say."""
    answer = Answer(results)
    texts = [answer.write(section) for section in SECTIONS] + [answer.title, str(answer.facts("mine"))]
    frames = [tables.configurations(results), tables.costs(results), tables.provenance(answer)]
    texts += [write(answer) for write in CAPTIONS]
    texts.append(str(advice.box(answer)))
    frames += [tables.recall(answer), runs_table(results.runs), tables.hard(answer.hard)]
    drawn = [figures.accuracy_by_parameters(results), figures.accuracy_by_cost(results), figures.losses(results)]
    frames.append(tables.differences(results))
    drawn += [figures.learning_curves(results), figures.trained(results)]
    drawn.append(figures.confusion({n.title: results.predictions(n.top) for n in answer.networks}, results.classes))
    for figure in drawn:
        assert not Figure(figure, "", "")._repr_mimebundle_()["text/html"].count("nan")
        said = [text.get_text() for text in figure.findobj(lambda each: hasattr(each, "get_text"))]
        frames.append(pd.DataFrame({"said": said}))
    return html.unescape("\n".join([*texts, *(frame.to_string(max_colwidth=None) for frame in frames)]))


@pytest.mark.filterwarnings("default")
def test_a_study_in_folds_speaks_of_folds_and_one_without_does_not():
    """Nobody reads of tests and photos that there are not."""
    folds, none = everything(of_somebody_else([60, 50, 8], folds=4)), everything(of_somebody_else([60, 50, 8]))
    of_one_set = "Wilson|McNemar|these runs only|one split|with one seed|the [0-9,]+ test photos|on the test photos"
    assert re.search(of_one_set, none) and not re.search(of_one_set, folds)
    assert re.search("procedure.*Bates", folds) and not re.search(r"procedure\*|Bates", none)
    assert len(re.findall(r"\bfolds?\b", folds)) > 10
    assert re.findall(r"\bfolds?\b", none) == ["fold"], "the column of the table of runs"


@pytest.mark.filterwarnings("default")
def test_a_report_of_other_photos_and_networks_speaks_of_nothing_else():
    results = of_somebody_else([40, 30, 4])
    text = everything(results)
    assert not re.search("flower|resnet|mobilenet|original|the source", text, re.IGNORECASE)
    assert not re.search(r"\b(nan|inf)\b", text)
    for title in ("EfficientNetV2B0", "own (/photos/own.keras)", "own (/other/own.keras)"):
        assert title in text
    assert len(results.rows) == len(OWN) * len(WAYS)
    assert not results.rows.duplicated(["backbone", "label"]).any()
    assert not results.rows.duplicated(["backbone", "short"]).any()
    assert not results.rows.duplicated(["backbone", "phrase"]).any()
    said = html.unescape(Answer(results).write("method") + Answer(results).write("trains"))
    assert "The parts are divided by a hash of each photo." in said
    assert "order" not in said.split("**Two phases.**")[0]
    assert "1 file could not be read and was left out: a/*b*.jpg (no photo)." in said
    for word in ("Strategy A", "Layers like", "Before the last", "Normalization layers only", "Block after block"):
        assert word in said
    assert re.search("^augmentation ", tables.provenance(Answer(results))["Value"].iloc[0], re.MULTILINE)


def test_how_it_was_measured_is_true_of_what_was_run():
    """A study of frozen bases has one phase; heads that train otherwise are others; the best is of the last phase."""
    frozen, plain, any_way = (
        html.unescape(Answer(results).write("method"))
        for results in (STUDIES["frozen bases alone"](), STUDIES["no claims"](), of_somebody_else([5, 5]))
    )
    assert "phase" not in frozen and "unfrozen" not in frozen and "0 more" not in frozen
    assert "Two phases" in plain and "whenever another block" not in plain
    assert "Configurations with the same seed start from the same head" in plain
    assert "Configurations with the same seed that train their head in the same way start" in any_way
    assert "in the second phase and whenever another block is unfrozen" in any_way
    assert "*Best epoch*: of the last phase" in any_way


def test_captions_explain_the_names_that_occur_and_no_others():
    both, blocks = (Answer(part(keep)) for keep in (lambda e: True, lambda e: e.strategy == "blocks"))
    assert "(A-5: the last 5 layers; B-2: the last 2 blocks; a frozen base is" in captions.accuracy(both)
    assert "(B-2: the last 2 blocks)" in captions.accuracy(blocks)
    frozen = Answer(part(lambda e: e.strategy == FROZEN))
    assert "unfreezing" not in captions.curves(frozen.networks[0]) and "unfreezing" in captions.curves(both.networks[0])
    assert "single" not in captions.accuracy(both)
    assert "single seeds" in captions.accuracy(Answer(part(lambda e: True, 2)))
    assert "single folds" in captions.accuracy(Answer(in_folds(lambda e: True)))


def test_a_study_of_one_strategy_has_no_chapter_on_two():
    both, blocks = part(lambda e: True), part(lambda e: e.strategy != "layers")
    assert Answer(both).write("strategies").startswith("## Strategy A against strategy B\n")
    assert Answer(blocks).write("strategies").startswith("## Unfreezing against a frozen base\n")


def test_the_control_is_one_that_trains_alike():
    results = of_somebody_else([40, 40])
    gain = results.remaining_gain("efficientnetv2b0")
    right = {row["short"]: row["test_accuracy"] for _, row in results.backbones["efficientnetv2b0"].iterrows()}
    controls = [name for name in right if name.startswith("frozen 20")]
    tuned = [name for name in right if "frozen 5" not in name and name not in controls and "best" not in name]
    assert len(controls) == 1 + 1 and len(tuned) == 9, "the run of the best epoch has no control of its own"
    mean = sum(right[name] for name in tuned if name not in controls) / len(tuned)
    weighed = [name for name in controls if "weighted" not in name]
    assert gain.over_control.mean == pytest.approx(mean - right[weighed[0]], abs=0.02)


def test_classes_that_are_not_alike_in_size_have_their_recall():
    even, uneven = of_somebody_else([30, 25, 30]), of_somebody_else([60, 30, 5])
    assert not even.uneven and uneven.uneven
    assert "Balanced acc." not in tables.configurations(even)
    assert Answer(even).write("balance") == ""
    assert "Balanced acc." in tables.configurations(uneven)
    run = uneven.runs[0]
    right = run.predictions["label"] == run.predictions["predicted"]
    by_hand = [right[run.predictions["label"] == f"class {number}"].mean() for number in range(3)]
    assert uneven.rows.loc[0, "balanced_accuracy"] == pytest.approx(sum(by_hand) / 3)
    top = Answer(uneven).networks[0].choice
    lowest = uneven.recall(top)
    said = html.unescape(Answer(uneven).write("balance"))
    assert "class 0 has 60 test photos, class 2 5." in said
    assert f"a balanced accuracy of {top['balanced_accuracy']:.1%}" in said
    assert f"Its recall is lowest for {lowest.index[0]} ({lowest.iloc[0]:.1%} of" in said
    shown = tables.recall(Answer(uneven))
    assert len(shown) == 3 and shown["Test photos"].to_list().count("5") == 1


def test_what_the_checks_of_the_photos_found_is_told():
    results = of_somebody_else([5, 5])
    assert Answer(results).write("photos") == ""
    found = pd.DataFrame(
        [("P1", "Near-duplicates", "3 pairs", "Give them a group.")], columns=["code", "title", "found", "do"]
    )
    for findings, words in ((found, "1 finding"), (found[:0], "Nothing was found")):
        checked = Results(results.runs, findings=findings)
        text = Answer(checked).write("photos")
        assert text.startswith("## The photos") and words in text
        assert len(tables.findings(findings)) == len(findings)


@pytest.mark.filterwarnings("default")
def test_a_thousand_classes_take_seconds():
    results = of_somebody_else([3] * 990 + [1] * 10, networks=["efficientnetv2b0"])
    began = time.process_time()
    text = everything(results)
    assert time.process_time() - began < 30
    assert "1,000 classes" in text and "990 more" in text
    assert len(tables.recall(Answer(results))) == tables.FEW
