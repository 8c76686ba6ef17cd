"""Verdicts on made-up results follow the numbers, those on the committed study stay what they are."""

import copy
import json
import re
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from invented import BACKBONES, BLOCKS, CLAIMS, FROZEN, LAYERS, ORIGINAL, SIZES, flat, invented, with_losses
from test_study import profile

from thaw.errors import InvalidParameter
from thaw.experiment import Experiment
from thaw.records.record import PhaseSeconds
from thaw.report import verdicts
from thaw.report.notation import p_value
from thaw.report.replication import _lines
from thaw.report.results import Results
from thaw.report.verdicts import ALIKE, HOLDS, IMPOSSIBLE, MISSING, REFUTED, TOO_CLOSE, WORDS, Verdict
from thaw.study import claims
from thaw.study.claims import Claims, Selection
from thaw.study.study import Job, Study

pytestmark = pytest.mark.usefixtures("quick_corrections")
CONTENT = yaml.safe_load((ORIGINAL / "claims.yaml").read_text(encoding="utf-8"))


def judged(results: Results, id: str) -> Verdict | None:
    """The verdict on one of the original's claims."""
    return verdicts.judge(next(claim for claim in CLAIMS.claims if claim.id == id).test, results)


def verdict(results: Results, id: str) -> str | None:
    found = judged(results, id)
    return found and found.word


def study_of(**test) -> Claims:
    """Claims with a single test."""
    return Claims.of(Path("mine"), {"claims": [{"id": "mine", "words": "So it is.", "test": test}]}, BACKBONES)


def test_the_verdicts_of_the_committed_study_stay_what_they_are():
    committed = json.loads((ROOT / "tests" / "committed_verdicts.json").read_text(encoding="utf-8"))
    found = Results.of(Study.load("paper")).replication.verdicts
    assert list(found) == list(committed)
    for id, (word, these_runs, p, figures) in committed.items():
        assert (found[id].word, found[id].these_runs) == (word, these_runs), id
        assert found[id].p == (p if p is None else pytest.approx(p, rel=1e-6)), id
        said = "\n".join(_lines(found[id]))
        assert all(figure in said for figure in figures), said


OF_ACCURACY = [
    ("resnet50-accuracy", lambda b, s, a, c: b == "resnet50"),
    ("mobilenet-frozen", lambda b, s, a, c: s != FROZEN),
    ("mobilenet-layers", lambda b, s, a, c: s == FROZEN),
    ("resnet50-blocks", lambda b, s, a, c: s == BLOCKS),
    ("blocks-layers", lambda b, s, a, c: s == BLOCKS),
    ("blocks-layers-like", lambda b, s, a, c: s == BLOCKS),
    ("resnet50-best", lambda b, s, a, c: (s, a) == (BLOCKS, 10)),
    ("mobilenet-best", lambda b, s, a, c: s == BLOCKS and a in (2, 4)),
    ("control", lambda b, s, a, c: s != FROZEN),
]


@pytest.mark.parametrize("id, better", OF_ACCURACY)
def test_a_claim_of_accuracy_holds_is_refuted_does_not_matter_or_is_too_close(id, better):
    assert verdict(invented(lambda *which: 0.9 if better(*which) else 0.8), id) == HOLDS
    assert verdict(invented(lambda *which: 0.8 if better(*which) else 0.9), id) == REFUTED
    assert verdict(invented(flat), id) == ALIKE
    few = judged(invented(lambda *which: 0.9 if better(*which) else 0.8, photos=20), id)
    assert few.word == TOO_CLOSE
    assert re.search(r"[\d.]+ points would have been found", "\n".join(_lines(few)))


@pytest.mark.parametrize("id, better", OF_ACCURACY)
def test_a_claim_of_accuracy_is_decided_over_folds_as_it_is_true(id, better):
    """Each photo tested once, in its fold, with chance in every fold."""

    def study(right, wrong, photos):
        return invented(lambda *which: right if better(*which) else wrong, photos=photos, folds=8, swap=0.05)

    for results, word in (
        (study(0.9, 0.8, 1000), HOLDS),
        (study(0.8, 0.9, 1000), REFUTED),
        (study(0.9, 0.9, 2000), ALIKE),
        (study(0.9, 0.8, 40), TOO_CLOSE),
    ):
        found = judged(results, id)
        assert (found.word, found.these_runs) == (word, False)


def test_verdicts_over_folds_may_have_a_star_and_one_graph_stays_impossible():
    results = invented(
        lambda b, s, a, c: 0.9 if s == BLOCKS else 0.8, photos=1000, folds=8, swap=0.05, latency=lambda *which: 10
    )
    assert judged(results, "resnet50-blocks-latency").word == IMPOSSIBLE
    found = judged(results, "resnet50-blocks")
    assert "over folds" in found.why
    assert "resnet50-blocks" in results.replication.standing
    said = results.replication.claims_table().to_string() + " ".join(results.replication.notes)
    assert "these runs" not in said and "seed" not in said
    assert "control" in results.replication.notes[0]
    without = [run for run in results.runs if not run.record.experiment.control]
    assert "control" not in replace(results, runs=without).replication.notes[0]


def test_best_is_better_than_each_and_not_than_the_mean_of_the_others():
    """As good as one other, far better than the rest."""
    level = invented(lambda b, s, a, c: 0.9 if (s, a) in ((BLOCKS, 10), (BLOCKS, 4)) else 0.6)
    found = judged(level, "resnet50-best")
    assert found.word == ALIKE
    assert "from B-4, the strongest of the others (a tie)" in found.effect
    assert "B-4 is as good" in found.why
    frozen = invented(lambda b, s, a, c: 0.97 if s == FROZEN else 0.9 if (s, a) == (BLOCKS, 10) else 0.6)
    assert verdict(frozen, "resnet50-best") == REFUTED


def test_the_p_of_a_verdict_is_of_what_decides_it():
    """Not of the parts that say otherwise: only so can verdicts be corrected together."""
    apart = judged(invented(lambda b, s, a, c: {5: 0.99, 40: 0.7}.get(a, 0.9)), "resnet50-layers")
    assert apart.word == REFUTED
    assert apart.p < 0.001
    assert apart.why.startswith("More than 2 points")
    same = judged(invented(flat), "resnet50-layers")
    assert same.word == HOLDS
    assert same.p < 0.05
    frozen = judged(invented(lambda b, s, a, c: 0.97 if s == FROZEN else 0.9), "resnet50-best")
    assert frozen.word == REFUTED
    assert frozen.p < 0.001


def test_blocks_and_layers_are_compared_in_each_network():
    """One network may make up for the other where both are taken together."""
    results = invented(
        lambda b, s, a, c: 0.9 if s == BLOCKS and b == "mobilenet" else 0.8 if b == "mobilenet" else 0.85
    )
    found = judged(results, "blocks-layers")
    assert [(name, part.word) for name, part in found.parts] == [("ResNet50", ALIKE), ("MobileNet", HOLDS)]
    assert found.word == REFUTED, "not in both networks"
    table = results.replication.claims_table().set_index("Verdict")
    row = table[table["Claim"].str.startswith("Whole blocks do better")].iloc[0]
    assert "ResNet50: +0.0 points (-0.7 to +0.7): no difference that matters (these runs)" in row["This study"]
    assert re.search(r"MobileNet: \+10\.0 points \([^)]*\): holds", row["This study"])
    assert row["The original"].startswith("ResNet50: +0.1 points (")


def test_no_difference_needs_every_amount_inside_the_margin_and_photos_enough():
    same, apart = invented(flat), invented(lambda b, s, a, c: {5: 0.97, 40: 0.83}.get(a, 0.9))
    assert verdict(same, "resnet50-layers") == HOLDS
    assert verdict(apart, "resnet50-layers") == REFUTED, "though the mean does not differ"
    assert verdict(invented(flat, photos=40), "resnet50-layers") == TOO_CLOSE
    slightly = invented(lambda b, s, a, c: 0.9 if s == FROZEN else 0.89)
    assert verdict(slightly, "resnet50-layers") == HOLDS
    slightly = replace(slightly, margin=0.005)
    assert verdict(slightly, "resnet50-layers") != HOLDS, "the margin is a parameter"


def test_the_control_tells_how_much_of_the_gain_remains():
    half = invented(lambda b, s, a, c: 0.9 if s != FROZEN else 0.85 if c else 0.8)
    gain = half.remaining_gain("mobilenet")
    assert gain.share == pytest.approx(0.5)
    assert gain.low < 0.5 < gain.high
    assert invented(flat).remaining_gain("mobilenet").share is None, "a share of nothing"
    assert Results(half.runs[:1]).remaining_gain("resnet50") is None


def test_one_network_does_not_speak_for_the_other():
    one = invented(lambda b, s, a, c: 0.95 if s != FROZEN and b == "mobilenet" else 0.8)
    found = judged(one, "control")
    assert found.word == REFUTED
    assert dict(found.parts)["MobileNet"].word == HOLDS
    assert dict(found.parts)["ResNet50"].word == ALIKE
    opposite = invented(lambda b, s, a, c: 0.95 if (s != FROZEN) == (b == "mobilenet") else 0.8)
    assert verdict(opposite, "control") == REFUTED


def test_a_part_contradicts_a_whole_only_when_corrected_for_the_number_of_parts():
    holds, close = Verdict(HOLDS, "", "", 0.001), Verdict(TOO_CLOSE, "", "", 0.3)
    for word in (REFUTED, ALIKE):
        assert verdicts.together([holds, Verdict(word, "", "", 0.04)]) == (TOO_CLOSE, 0.04)
        assert verdicts.together([holds, Verdict(word, "", "", 0.01)]) == (REFUTED, 0.02)
        assert verdicts.together([Verdict(word, "", "", 0.04)] * 2) == (word, 0.04)
    assert verdicts.together([holds, Verdict(IMPOSSIBLE, "", "")]) == (REFUTED, None), "certain"
    assert verdicts.together([holds, holds]) == (HOLDS, 0.001)
    assert verdicts.together([holds, close]) == (TOO_CLOSE, 0.3)


def test_a_verdict_names_the_runs_that_it_is_without():
    whole = invented(lambda b, s, a, c: 0.9 if s == BLOCKS else 0.8)
    lost = [r for r in whole.runs if r.record.experiment.label == "Strategy B (4 blocks)"][:1]
    missing = {Job("job", "resnet50-blocks-4", lost[0].record.experiment, Path("x")): "diverged: after epoch 3"}
    results = replace(whole, runs=[r for r in whole.runs if r not in lost], missing=missing)
    table = results.replication.claims_table().set_index("Claim")["This study"]
    said = {words.split("\n")[0] for words, effect in table.items() if "Without ResNet50 B-4 (seed 0)" in effect}
    by_id = {claim.id: claim.words for claim in CLAIMS.claims}
    assert by_id["resnet50-blocks"] in said
    assert by_id["overfitting"] in said
    assert by_id["control"] in said
    assert not said & {by_id[id] for id in ("mobilenet-size", "mobilenet-layers", "resnet50-layers")}


def test_a_comparison_with_the_short_frozen_base_says_what_the_control_leaves_of_it():
    longer = invented(lambda b, s, a, c: 0.8 if s == FROZEN and not c else 0.9)
    found = judged(longer, "resnet50-blocks")
    assert found.word == HOLDS
    assert "against the control +0.0 points" in found.effect


def test_a_claim_of_latency():
    """What one and the same graph differs by is noise: only networks can be told apart beyond it."""

    def study(one, other, noise=1.0):
        def latency(b, s, a, c):
            return (one if b == "mobilenet" else other) * (noise if a == 10 else 1)

        return invented(flat, latency=latency)

    assert verdict(study(5, 10), "mobilenet-latency") == HOLDS
    assert verdict(study(20, 10), "mobilenet-latency") == REFUTED
    assert verdict(study(10, 10), "mobilenet-latency") == ALIKE
    assert verdict(study(9.5, 10), "mobilenet-latency") == TOO_CLOSE
    assert verdict(study(9, 10, noise=1.5), "mobilenet-latency") == TOO_CLOSE, "a noisy machine"
    assert "a factor of 1.5" in judged(study(5, 10, noise=1.5), "mobilenet-latency").why
    assert verdict(invented(flat), "mobilenet-latency") is None, "not measured"


@pytest.mark.parametrize("id", ["resnet50-blocks-latency", "mobilenet-blocks-latency"])
def test_one_and_the_same_graph_cannot_become_faster_whatever_was_measured(id):
    fast = invented(flat, latency=lambda b, s, a, c: 5 if s == BLOCKS else 10)
    for results in (fast, invented(flat)):
        found = judged(results, id)
        assert found.word == IMPOSSIBLE
        assert found.p is None and not found.these_runs
    assert id not in fast.replication.standing, "no test, no star"


@pytest.mark.parametrize("id, field", [("mobilenet-memory", "peak_memory_mb"), ("mobilenet-training-time", None)])
def test_a_claim_of_cost_row_by_row(id, field):
    def study(of_mobilenet, of_resnet50):
        def value(b, s, a, c):
            amount = of_mobilenet if b == "mobilenet" else of_resnet50
            return amount if field else {"activations": 1.0, "head": 1.0, "finetune": amount}

        results = invented(flat, **{field or "training_seconds": value})
        if field:
            return results
        runs = [
            run.model_copy(update={"record": type(run.record).model_validate(run.record.model_dump(warnings=False))})
            for run in results.runs
        ]
        return Results(runs)

    assert verdict(study(100.0, 200.0), id) == HOLDS
    assert verdict(study(200.0, 100.0), id) == REFUTED
    assert verdict(study(100.0, 100.0), id) == ALIKE
    assert "(a tie)" in judged(study(100.0, 100.0), id).effect


def test_what_is_counted_is_decided_by_the_sum_and_by_most_configurations():
    def study(of_one):
        def memory(b, s, a, c):
            return of_one if (b, a) == ("resnet50", 5) else 100.0 + (b == "resnet50")

        return judged(invented(flat, peak_memory_mb=memory), "mobilenet-memory")

    found = study(99.0)
    assert found.word == HOLDS
    assert found.p is None
    assert "less in 7 of 8 configurations" in found.why
    assert study(10.0).word == TOO_CLOSE, "most need less, but all together need more"


def size(b, s, a, c) -> float:
    return SIZES[s, a] / 4000


def test_overfitting_is_a_gap_and_a_loss_that_both_grow():
    def study(lead, of_right):
        results = with_losses(invented(flat), of_right)
        records = [
            run.record.model_copy(update={"train_accuracy": 0.7 + lead * size(*which(run)), "validation_accuracy": 0.7})
            for run in results.runs
        ]
        return replace(results, runs=[r.model_copy(update={"record": one}) for r, one in zip(results.runs, records)])

    def which(run):
        e = run.record.experiment
        return e.backbone, e.strategy, e.amount, e.control

    both = judged(study(0.3, lambda *w: 0.9 - 0.4 * size(*w)), "overfitting")
    assert both.word == HOLDS
    assert both.these_runs
    assert "loss on unseen photos +0." in both.parts[2][1].effect
    assert verdict(study(0.3, lambda *w: 0.5 + 0.4 * size(*w)), "overfitting") == REFUTED, "the loss falls"
    assert verdict(study(0.0, lambda *w: 0.9), "overfitting") == TOO_CLOSE


def test_underfitting_is_a_worse_fit_and_a_worse_test():
    fit = {"train_loss": lambda *w: 1 - 0.4 * size(*w)}
    found = judged(invented(lambda b, s, a, c: 0.7 if a == 5 else 0.9, **fit), "underfitting")
    assert found.word == HOLDS
    assert "training loss +0." in found.parts[0][1].effect, "in the claim's direction"
    assert found.parts[0][1].why.startswith("Counted: ")
    assert verdict(invented(flat, **fit), "underfitting") == REFUTED, "it makes no difference that matters"
    assert verdict(invented(lambda b, s, a, c: 0.9 if a == 5 else 0.7, **fit), "underfitting") == REFUTED
    tie = judged(invented(flat), "underfitting")
    assert tie.parts[0][1].word == ALIKE and tie.parts[0][1].why == "Counted: a tie."


def test_more_cost_for_little_accuracy():
    costs = {"peak_memory_mb": lambda *w: 1000 + size(*w)}

    def study(accuracy, sign=1):
        def seconds(*which):
            return PhaseSeconds(activations=1, head=2, finetune=10 + sign * 28 * size(*which))

        return invented(accuracy, **costs, training_seconds=seconds)

    assert verdict(study(flat), "cost") == HOLDS
    assert verdict(study(flat, sign=-1e-3), "cost") == REFUTED, "it takes less time"
    assert verdict(study(lambda b, s, a, c: 0.7 if a == 5 else 0.9), "cost") == REFUTED, "much accuracy"


def test_an_accuracy_in_a_range():
    assert verdict(invented(lambda *w: 0.925, photos=20_000), "resnet50-range") == HOLDS
    assert verdict(invented(lambda *w: 0.925), "resnet50-range") == TOO_CLOSE
    assert verdict(invented(lambda b, s, a, c: 0.8 if a == 40 else 0.925), "resnet50-range") == REFUTED


def test_like_numbers_of_parameters_are_compared_with_each_other():
    """Ten blocks train more than five layers do: what they gain is not counted for blocks."""
    results = invented(lambda b, s, a, c: 0.7 if (s, a) == (LAYERS, 5) else 0.9)
    assert verdict(results, "blocks-layers") == HOLDS
    assert verdict(results, "blocks-layers-like") == ALIKE
    assert "MobileNet B-2 with A-10" in judged(results, "blocks-layers-like").effect


def test_a_part_of_a_study_compares_like_with_like():
    """MobileNet's blocks, but only a frozen ResNet50: nothing to say of blocks against layers."""
    runs = [
        run
        for run in invented(flat).runs
        if (run.record.experiment.backbone, run.record.experiment.strategy)
        in (("mobilenet", BLOCKS), ("resnet50", LAYERS))
    ]
    part = Results(runs, claims=CLAIMS)
    assert verdict(part, "blocks-layers") is None
    found = part.replication.verdicts["blocks-layers"]
    assert found.word == MISSING
    assert len(part.replication.claims_table()) == len(CLAIMS.claims)


def test_several_seeds_are_compared_over_runs_and_photos_and_may_have_a_star():
    results = invented(lambda b, s, a, c: 0.9 if s == BLOCKS else 0.8, seeds=3, swap=0.05)
    found = judged(results, "resnet50-blocks")
    assert found.word == HOLDS
    assert "over photos and runs" in found.why
    assert not found.these_runs
    assert "resnet50-blocks" in results.replication.standing
    one = invented(lambda b, s, a, c: 0.9 if s == BLOCKS else 0.8)
    assert judged(one, "resnet50-blocks").these_runs
    assert one.replication.standing == [], "what rests on one seed has none"


def test_the_original_s_own_numbers_are_on_the_same_scale():
    replication = invented(flat).replication
    own = {claim.id: replication.own(claim.test) for claim in CLAIMS.claims}
    assert own["resnet50-best"].startswith("+1.1 points (")
    assert own["mobilenet-layers"].startswith("+1.9 points (-2.6 to +6.4)")
    assert own["resnet50-blocks-latency"].startswith("the other takes 2.5 times as long: 206.3 against 84.2 ms")
    assert own["resnet50-range"] == "91.0% to 93.2%"
    assert "MobileNet: lead of training over validation accuracy -1.0 points" in own["overfitting"]
    assert "ResNet50: training loss -0.038" in own["underfitting"], "positive is as the claim says"
    assert own["cost"].startswith("ResNet50: +1.1 points")
    assert own["control"] == ""


def test_what_is_too_close_or_counted_has_no_star():
    replication = invented(lambda b, s, a, c: 0.9 if b == "resnet50" else 0.8, seeds=2, swap=0.02).replication
    assert "resnet50-accuracy" in replication.standing
    assert {*replication.standing} <= {id for id, each in replication.verdicts.items() if each.word != TOO_CLOSE}
    assert not {"mobilenet-size", "mobilenet-memory"} & {*replication.standing}


def test_every_claim_has_a_row_in_the_table():
    table = invented(flat, latency=lambda *w: 10).replication.claims_table()
    assert list(table) == ["Claim", "Verdict", "This study", "The original"]
    assert all(claim.words in row and claim.where in row for claim, row in zip(CLAIMS.claims, table["Claim"]))
    assert {word.split("\n")[0].rstrip("*") for word in table["Verdict"]} <= {*WORDS}
    assert "too close to call*" not in "".join(table["Verdict"])


def test_without_claims_there_is_no_replication():
    assert Results(invented(flat).runs).replication is None


def test_a_network_that_was_measured_once_is_as_fast_as_itself():
    results = invented(flat, latency=lambda b, s, a, c: 10 if b == "resnet50" else 5)
    once = results.latency.drop_duplicates(["backbone", "call", "photos", "round"])
    results = replace(results, latency=once.drop(columns=["strategy", "amount", "epochs"]))
    assert verdict(results, "mobilenet-latency") == HOLDS
    assert results.latency_spread("resnet50") == 1


def test_what_is_shown_of_a_p_value_is_true_of_it():
    assert [p_value(p) for p in (0, 0.0004, 0.04, 0.9994, 0.9996, 1)] == [
        "p < 0.001",
        "p < 0.001",
        "p = 0.040",
        "p = 0.999",
        "p > 0.999",
        "p > 0.999",
    ]


def test_ten_thousand_photos_take_seconds_and_little_memory():
    results = invented(lambda b, s, a, c: 0.9 if s != FROZEN else 0.89, photos=10_000, seeds=2, swap=0.1)
    tracemalloc.start()
    began = time.process_time()
    found = results.replication.verdicts
    seconds, peak = time.process_time() - began, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(found) == len(CLAIMS.claims)
    assert seconds < 5
    assert peak < 300e6


# ---- claims of one's own ------------------------------------------------------------------------


def refusal(content) -> str:
    with pytest.raises(InvalidParameter) as error:
        Claims.of(ORIGINAL, content, BACKBONES)
    return str(error.value)


def entries(value, path=()):
    """The path of each entry of a nested mapping."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in items:
        if isinstance(name, str):
            yield (*path, name)
        yield from entries(inner, (*path, name))


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(list(entries(CONTENT))), st.data())
def test_any_misspelt_entry_is_refused_with_the_right_name(path, data):
    content = copy.deepcopy(CONTENT)
    inner = content
    for name in path[:-1]:
        inner = inner[name]
    letter = data.draw(st.integers(0, len(path[-1]) - 1))
    wrong = path[-1][:letter] + ("-" if path[-1][letter] == "_" else "_") + path[-1][letter + 1 :]
    inner[wrong] = inner.pop(path[-1])
    message = refusal(content)
    assert str(ORIGINAL / "claims.yaml") in message
    assert repr(wrong) in message
    assert path[-1] in message.split("Allowed: ")[1]


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(sorted(claims.TESTS)), st.data())
def test_any_misspelt_test_is_refused_with_the_right_name(name, data):
    letter = data.draw(st.integers(0, len(name) - 1))
    content = copy.deepcopy(CONTENT)
    content["claims"][0]["test"]["name"] = name[:letter] + "_" + name[letter:]
    assert f"Did you mean {name!r}?" in refusal(content)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"first": {"backbone": "resnet"}}, "Did you mean 'resnet50'?"),
        ({"first": {"strategy": ["frozen", "layer"]}}, "Did you mean 'layers'?"),
        ({"first": {"strategy": "frozen", "amount": 3}}, "Remove the amount"),
        ({"first": {"strategy": "layers", "control": True}}, "the control is a frozen base"),
        ({"first": {"amount": "3"}}, "valid integer"),
        ({"first": {"backbone": "mobilenet"}}, "the same configurations"),
        ({"match": ["strategie"]}, "Did you mean 'strategy'?"),
        ({"quantity": "peak memory"}, "takes no quantity"),
        ({"first": {"batchnorm": "froze"}}, "'train' or 'frozen'"),
        ({"first": {"skip": -1}}, "skip = -1"),
        ({"first": {"strategy": "frozen", "batchnorm": "frozen"}}, "a frozen base has no batchnorm"),
        ({"first": {"control": True, "gradual": True}}, "a frozen base has no gradual"),
        ({"first": {"copies": 4}}, "Add the augmentation"),
        ({"first": {"strategy": "pattern"}}, "'pattern' and a pattern go together"),
        ({"name": "best of"}, "needs among"),
        ({"name": "rises with trainable parameters", "quantity": "train loss"}, "Did you mean 'training loss'?"),
    ],
)
def test_a_test_that_makes_no_sense_is_refused(change, message):
    content = copy.deepcopy(CONTENT)
    content["claims"][1]["test"] |= change
    found = refusal(content)
    assert "claim 'resnet50-accuracy': test" in found
    assert message in found


def test_a_range_that_ends_below_its_start_is_refused():
    with pytest.raises(InvalidParameter, match="low = 0.9 is above high = 0.8"):
        study_of(name="accuracy in range", first={}, low=0.9, high=0.8)


def test_a_test_that_goes_by_a_table_of_results_knows_nothing_special():
    with pytest.raises(InvalidParameter, match="which knows no gradual. Remove it, or take another test"):
        study_of(name="faster", first={"gradual": True}, second={})
    with pytest.raises(InvalidParameter, match="which knows no strategy 'all'. Remove it"):
        study_of(name="accuracy in range", first={"strategy": "all"}, low=0.8, high=0.9)


def test_an_id_used_twice_is_refused():
    content = copy.deepcopy(CONTENT)
    content["claims"][1]["id"] = "mobilenet-size"
    assert "two claims have the id 'mobilenet-size'" in refusal(content)


@pytest.mark.parametrize("content", [{"claims": []}, {"claims": 3}, {"claims": [3]}, {}, {"claims": None}])
def test_a_file_without_claims_is_refused(content):
    assert "claim" in refusal(content)


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda table: table.replace("test_accuracy", "accuracy"), "test_accuracy"),
        (lambda table: table.replace("0.921", "?"), r"could not convert string to float: '\?'"),
        (lambda table: "", "cannot be read"),
    ],
)
def test_a_damaged_table_of_results_is_refused(tmp_path, damage, message):
    (tmp_path / "results.csv").write_text(damage((ORIGINAL / "results.csv").read_text(encoding="utf-8")))
    with pytest.raises(InvalidParameter, match=message):
        Claims.of(tmp_path, CONTENT, BACKBONES)


def test_claims_of_one_s_own_are_read_with_the_study(tmp_path):
    """From a folder anywhere, before any run; a wrong one is refused then."""
    mine = tmp_path / "mine"
    mine.mkdir()
    test = {"name": "more accurate", "first": {"strategy": "blocks"}, "second": {"strategy": "frozen"}}
    content = {"claims": [{"id": "pays", "words": "Unfreezing pays.", "test": test}]}
    (mine / "claims.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    path = profile(tmp_path, study={"claims": str(mine)})
    study = Study.load(path, tmp_path, ROOT)
    assert [claim.id for claim in study.claims.claims] == ["pays"]
    assert study.claims.results is None
    table = replace(invented(flat), claims=study.claims).replication.claims_table()
    assert list(table) == ["Claim", "Verdict", "This study"]
    assert table["Claim"].tolist() == ["Unfreezing pays."]
    (mine / "claims.yaml").write_text(yaml.safe_dump(content).replace("first", "f_rst"), encoding="utf-8")
    with pytest.raises(InvalidParameter, match="Did you mean 'first'"):
        Study.load(path, tmp_path, ROOT)


def test_claims_may_name_any_network_also_a_file_of_one_s_own(tmp_path, monkeypatch):
    monkeypatch.setattr("thaw.network.backbones.get", lambda name: None)  # the file is none
    own = tmp_path / "own.keras"
    own.write_bytes(b"")
    (tmp_path / "mine").mkdir()

    def study(first):
        test = {"name": "more accurate", "first": {"backbone": first}, "second": {"backbone": "efficientnetv2b0"}}
        content = {"claims": [{"id": "pays", "words": "It pays.", "test": test}]}
        (tmp_path / "mine" / "claims.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
        chosen = {"claims": str(tmp_path / "mine"), "configurations": ["frozen"], "networks": [str(own), "mobilenet"]}
        return Study.load(profile(tmp_path, study=chosen), tmp_path, ROOT)

    assert study(str(own)).claims.claims[0].test.first.backbone == (str(own),)
    with pytest.raises(InvalidParameter, match="no such backbone"):
        study(str(tmp_path / "another.keras"))


def test_a_folder_of_claims_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(InvalidParameter, match="Did you mean 'original'"):
        Study.load(profile(tmp_path, study={"claims": "origina"}), tmp_path, ROOT)


def test_a_claim_about_what_the_study_does_not_have_is_not_decided():
    one = Results(invented(flat, backbones=("mobilenet",)).runs, claims=CLAIMS)
    found = one.replication.verdicts
    for id in ("mobilenet-size", "resnet50-accuracy", "resnet50-range", "resnet50-best", "mobilenet-memory"):
        assert found[id].word == MISSING
    absent = study_of(name="accuracy in range", first={"strategy": "blocks", "amount": 3}, low=0.1, high=0.9)
    assert replace(one, claims=absent).replication.verdicts["mine"].word == MISSING


def test_every_test_has_its_judge():
    assert set(verdicts.JUDGES) == set(claims.TESTS)


@settings(max_examples=6, deadline=None)
@given(st.lists(st.sampled_from((0.6, 0.8, 0.9)), min_size=3, max_size=3))
def test_swapping_the_sides_negates_the_verdict(levels):
    results = invented(lambda b, s, a, c: dict(zip((FROZEN, LAYERS, BLOCKS), levels))[s], photos=200)
    one, other = {"strategy": "blocks"}, {"strategy": ["layers", "frozen"]}
    forth, back = (
        verdicts.judge(study_of(name="more accurate", first=first, second=second).claims[0].test, results)
        for first, second in ((one, other), (other, one))
    )
    opposite = {HOLDS: REFUTED, REFUTED: HOLDS}
    assert back.word == opposite.get(forth.word, forth.word)
    assert back.p == pytest.approx(forth.p)


def test_parts_without_a_p_value_can_be_parts_of_a_claim():
    parts = [
        {"name": "fewer parameters", "first": {"backbone": "mobilenet"}, "second": {"backbone": "resnet50"}},
        {"name": "more accurate", "first": {"strategy": "blocks"}, "second": {"strategy": "frozen"}},
    ]
    results = invented(lambda b, s, a, c: 0.9 if s == BLOCKS else 0.8)
    found = verdicts.judge(study_of(name="all of", parts=parts).claims[0].test, results)
    assert found.word == HOLDS
    assert found.p < 0.05
    parts[0]["first"], parts[0]["second"] = parts[0]["second"], parts[0]["first"]
    assert verdicts.judge(study_of(name="all of", parts=parts).claims[0].test, results).word == REFUTED


def test_the_control_is_selected_only_when_asked_for():
    runs = invented(flat).runs
    assert len(Selection().of(runs)) == 14
    assert len(Selection(control=True).of(runs)) == 2
    assert len(Selection(backbone="mobilenet", strategy=["layers", "frozen"]).of(runs)) == 4


def test_what_is_special_is_selected_by_its_value_alone():
    ways = {
        "plain": {"strategy": "blocks", "amount": 4},
        "frozen statistics": {"strategy": "blocks", "amount": 4, "batchnorm": "frozen"},
        "gradual": {"strategy": "blocks", "amount": 4, "gradual": True},
        "first": {"strategy": "blocks", "amount": 4, "skip": 2},
        "all": {"strategy": "all"},
        "norm": {"strategy": "all", "trains": "norm"},
        "copies": {"strategy": "blocks", "amount": 4, "augmentation": "flip", "copies": 3},
    }
    experiments = {name: Experiment.of({"backbone": "mobilenet", **way}) for name, way in ways.items()}

    def selected(**values) -> list[str]:
        return [name for name, experiment in experiments.items() if Selection(**values).selects(experiment)]

    for name, way in ways.items():
        assert selected(**way) == [name], "by its own values"
    assert selected() == selected(strategy="blocks") == selected(amount=4) == ["plain"]
    assert selected(batchnorm="frozen") == ["frozen statistics"]
    assert selected(strategy=["blocks", "all"]) == ["plain", "all"]
    assert selected(trains="norm") == [], "all layers are not meant unless they are named"
    for name in claims.SPECIAL:
        own, theirs = Selection.model_fields[name], Experiment.model_fields[name]
        assert own.default == theirs.default and (own.annotation == theirs.annotation or name == "pattern")


def test_the_catalogue_s_claims_each_have_their_configurations():
    study = Study.load("catalogue")
    for claim in study.claims.claims:
        for side in (claim.test.first, claim.test.second):
            found = [job for job in study.jobs if side.selects(job.experiment)]
            assert len(found) == 1 or claim.test.name == "gain over control", claim.id


def test_what_looks_like_a_contradiction_says_why_it_is_none():
    slightly = invented(lambda b, s, a, c: 0.9 if s == FROZEN else {40: 0.94}.get(a, 0.9), photos=400)
    found = judged(slightly, "resnet50-layers")
    assert found.word == TOO_CLOSE
    assert "The interval of A-40 leaves out 0, but not 2 points" in found.why
    parts = [("a", Verdict(HOLDS, "", "A.", 0.001)), ("b", Verdict(REFUTED, "", "B.", 0.04))]
    whole = verdicts._whole(parts)
    assert whole.word == TOO_CLOSE
    assert whole.why == "A part fails by itself, but not when corrected for all 2 parts."
