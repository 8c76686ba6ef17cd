"""Verdicts on invented results: they follow the numbers."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from invented import BLOCKS, FROZEN, LAYERS, SIZES, flat, invented
from thaw.records.record import PhaseSeconds
from thaw.report import claims
from thaw.report.claims import CLAIMS, CONTRADICTED, SUPPORTED, UNDECIDED
from thaw.report.results import Results
from thaw.study.study import Job

pytestmark = pytest.mark.usefixtures("quick_corrections")
ORIGINAL = pd.read_csv("params/original.csv")


def verdict(results: Results, id: str) -> str:
    found = next(claim for claim in CLAIMS if claim.id == id).decide(results)
    return found and found.verdict


@pytest.mark.parametrize(
    "id, better",
    [
        ("resnet50-accuracy", lambda b, s, a, c: b == "resnet50"),
        ("mobilenet-frozen", lambda b, s, a, c: s != FROZEN),
        ("mobilenet-layers", lambda b, s, a, c: s == FROZEN),
        ("resnet50-blocks", lambda b, s, a, c: s == BLOCKS),
        ("blocks-layers", lambda b, s, a, c: s == BLOCKS),
        ("blocks-layers-like", lambda b, s, a, c: s == BLOCKS),
        ("resnet50-best", lambda b, s, a, c: (s, a) == (BLOCKS, 10)),
        ("mobilenet-best", lambda b, s, a, c: s == BLOCKS and a in (2, 4)),
        ("control", lambda b, s, a, c: s != FROZEN),
    ],
)
def test_a_claim_of_accuracy_holds_fails_or_is_undecided(id, better):
    assert verdict(invented(lambda *which: 0.9 if better(*which) else 0.8), id) == SUPPORTED
    assert verdict(invented(lambda *which: 0.8 if better(*which) else 0.9), id) == CONTRADICTED
    assert verdict(invented(flat), id) == UNDECIDED
    assert verdict(invented(lambda *which: 0.9 if better(*which) else 0.8, photos=20), id) == UNDECIDED, "too few"


def test_best_is_better_than_each_and_not_than_the_mean_of_the_others():
    """As good as one other, far better than the rest."""
    level = invented(lambda b, s, a, c: 0.9 if (s, a) in ((BLOCKS, 10), (BLOCKS, 4)) else 0.6)
    assert verdict(level, "resnet50-best") == UNDECIDED
    frozen = invented(lambda b, s, a, c: 0.97 if s == FROZEN else 0.9 if (s, a) == (BLOCKS, 10) else 0.6)
    assert verdict(frozen, "resnet50-best") == CONTRADICTED


def test_the_p_of_a_verdict_is_of_what_decides_it():
    """Not of the parts that say otherwise: only so can verdicts be corrected together."""
    apart = claims.decide(invented(lambda b, s, a, c: {5: 0.99, 40: 0.7}.get(a, 0.9)))["resnet50-layers"]
    assert apart.verdict == CONTRADICTED and apart.p < 0.001 and "outside the margin" in apart.test
    same = claims.decide(invented(flat))["resnet50-layers"]
    assert same.verdict == SUPPORTED and same.p < 0.05
    frozen = claims.decide(invented(lambda b, s, a, c: 0.97 if s == FROZEN else 0.9))["resnet50-best"]
    assert frozen.verdict == CONTRADICTED and frozen.p < 0.001


def test_blocks_and_layers_are_compared_in_each_network_as_well():
    """One network may make up for the other where both are taken together."""
    results = invented(
        lambda b, s, a, c: 0.9 if s == BLOCKS and b == "mobilenet" else 0.8 if b == "mobilenet" else 0.85
    )
    assert verdict(results, "mobilenet-blocks-layers") == verdict(results, "blocks-layers") == SUPPORTED
    assert verdict(results, "resnet50-blocks-layers") == UNDECIDED


def test_no_difference_needs_every_amount_inside_the_margin_and_photos_enough():
    same, apart = invented(flat), invented(lambda b, s, a, c: {5: 0.97, 40: 0.83}.get(a, 0.9))
    assert verdict(same, "resnet50-layers") == SUPPORTED
    assert verdict(apart, "resnet50-layers") == CONTRADICTED, "though the mean does not differ"
    assert verdict(invented(flat, photos=40), "resnet50-layers") == UNDECIDED
    slightly = invented(lambda b, s, a, c: 0.9 if s == FROZEN else 0.89)
    assert verdict(slightly, "resnet50-layers") == SUPPORTED
    slightly = Results(slightly.runs, None, None, margin=0.005)
    assert verdict(slightly, "resnet50-layers") != SUPPORTED, "the margin is a parameter"


def test_the_control_tells_how_much_of_the_gain_remains():
    half = invented(lambda b, s, a, c: 0.9 if s != FROZEN else 0.85 if c else 0.8)
    gain = claims.remaining_gain(half, "mobilenet")
    assert gain.share == pytest.approx(0.5) and gain.low < 0.5 < gain.high
    assert claims.remaining_gain(invented(flat), "mobilenet").share is None, "a share of nothing"
    assert claims.remaining_gain(Results(half.runs[:1]), "resnet50") is None


def test_one_network_does_not_speak_for_the_other():
    one = invented(lambda b, s, a, c: 0.95 if s != FROZEN and b == "mobilenet" else 0.8)
    found = claims.decide(one)["control"]
    assert found.verdict == UNDECIDED and "MobileNet +15.0 points" in found.effect
    opposite = invented(lambda b, s, a, c: 0.95 if (s != FROZEN) == (b == "mobilenet") else 0.8)
    assert verdict(opposite, "control") == CONTRADICTED


def test_a_part_contradicts_a_whole_only_when_corrected_for_the_number_of_parts():
    parts = [claims.Verdict(word, "", "", p) for word, p in ((SUPPORTED, 0.001), (CONTRADICTED, 0.04))]
    assert claims.together(parts) == (UNDECIDED, 0.04)
    assert claims.together([parts[0], claims.Verdict(CONTRADICTED, "", "", 0.01)]) == (CONTRADICTED, 0.02)
    assert claims.together(parts[:1] * 2) == (SUPPORTED, 0.001)


def test_a_verdict_names_the_runs_that_it_is_without():
    whole = invented(lambda b, s, a, c: 0.9 if s == BLOCKS else 0.8)
    lost = [r for r in whole.runs if r.record.experiment.label == "Strategy B (4 blocks)"][:1]
    missing = {Job("job", "resnet50-blocks-4", lost[0].record.experiment, Path("x")): "diverged: after epoch 3"}
    results = Results([r for r in whole.runs if r not in lost], None, ORIGINAL, 0.02, 16, missing)
    table = claims.table(results, claims.decide(results)).set_index("Claim")["Effect and test"]
    said = {words.split("\n")[0] for words, effect in table.items() if "without ResNet50 B-4 (seed 0)" in effect}
    by_id = {claim.id: claim.words for claim in CLAIMS}
    assert by_id["resnet50-blocks"] in said and by_id["overfitting"] in said and by_id["control"] in said
    assert not said & {by_id[id] for id in ("mobilenet-size", "mobilenet-blocks-layers", "resnet50-layers")}


def test_a_comparison_with_the_short_frozen_base_says_what_the_control_leaves_of_it():
    longer = invented(lambda b, s, a, c: 0.8 if s == FROZEN and not c else 0.9)
    found = claims.decide(longer)["resnet50-blocks"]
    assert found.verdict == SUPPORTED and "against the control +0.0 points" in found.effect


@pytest.mark.parametrize(
    "id, first",
    [
        ("mobilenet-latency", lambda b, s, a, c: b == "mobilenet"),
        ("resnet50-blocks-latency", lambda b, s, a, c: (s, a) == (BLOCKS, 10)),
        ("mobilenet-blocks-latency", lambda b, s, a, c: s == BLOCKS),
    ],
)
def test_a_claim_of_latency(id, first):
    """What one and the same graph differs by is noise: only networks can be told apart beyond it."""

    def study(one, other):
        return invented(flat, latency=lambda *which: one if first(*which) else other)

    assert verdict(study(10, 10), id) == CONTRADICTED, "not faster"
    assert verdict(study(10.2, 10), id) == CONTRADICTED
    assert verdict(study(11, 10), id) == (CONTRADICTED if id == "mobilenet-latency" else UNDECIDED), "a noisy machine"
    assert verdict(study(5, 10), id) == (SUPPORTED if id == "mobilenet-latency" else UNDECIDED)
    assert verdict(invented(flat), id) is None, "not measured"


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

    assert verdict(study(100.0, 200.0), id) == SUPPORTED
    assert verdict(study(200.0, 100.0), id) == CONTRADICTED
    assert verdict(study(100.0, 100.0), id) == UNDECIDED


def test_what_is_counted_holds_in_all_configurations_or_is_not_decided():
    one = invented(
        flat, peak_memory_mb=lambda b, s, a, c: 90.0 if (b, a) == ("resnet50", 5) else 100.0 + (b == "resnet50")
    )
    found = claims.decide(one)["mobilenet-memory"]
    assert found.verdict == UNDECIDED and found.p is None and "less in 7 of 8 configurations" in found.effect


def size(b, s, a, c) -> float:
    return SIZES[s, a] / 4000


def test_overfitting_is_a_gap_and_a_loss_that_both_grow():
    both = invented(flat, train_accuracy=lambda *w: 0.5 + 0.4 * size(*w), validation_loss=size)
    assert verdict(both, "overfitting") == SUPPORTED
    gap = invented(flat, train_accuracy=lambda *w: 0.5 + 0.4 * size(*w), validation_loss=lambda *w: 2 - size(*w))
    assert verdict(gap, "overfitting") == CONTRADICTED, "the validation loss falls"
    assert verdict(invented(flat), "overfitting") is None, "nothing changes: there is no order"


def test_underfitting_is_a_worse_fit_and_a_worse_test():
    fit = {"train_loss": lambda *w: 1 - 0.4 * size(*w)}
    assert verdict(invented(lambda b, s, a, c: 0.7 if a == 5 else 0.9, **fit), "underfitting") == SUPPORTED
    assert verdict(invented(flat, **fit), "underfitting") == UNDECIDED
    assert verdict(invented(lambda b, s, a, c: 0.9 if a == 5 else 0.7, **fit), "underfitting") == CONTRADICTED


def test_more_cost_for_little_accuracy():
    costs = {"peak_memory_mb": lambda *w: 1000 + size(*w)}

    def study(accuracy, sign=1):
        def seconds(*which):
            return PhaseSeconds(activations=1, head=2, finetune=10 + sign * 28 * size(*which))

        return invented(accuracy, **costs, training_seconds=seconds)

    assert verdict(study(flat), "cost") == SUPPORTED
    assert verdict(study(flat, sign=-1e-3), "cost") == CONTRADICTED, "it takes less time"
    assert verdict(study(lambda b, s, a, c: 0.7 if a == 5 else 0.9), "cost") == CONTRADICTED, "much accuracy"


def test_an_accuracy_in_a_range():
    assert verdict(invented(lambda *w: 0.925, photos=20_000), "resnet50-range") == SUPPORTED
    assert verdict(invented(lambda *w: 0.925), "resnet50-range") == UNDECIDED
    assert verdict(invented(lambda b, s, a, c: 0.8 if a == 40 else 0.925), "resnet50-range") == CONTRADICTED


def test_like_numbers_of_parameters_are_compared_with_each_other():
    """Ten blocks train more than five layers do: what they gain is not counted for blocks."""
    results = invented(lambda b, s, a, c: 0.7 if (s, a) == (LAYERS, 5) else 0.9)
    assert verdict(results, "blocks-layers") == SUPPORTED
    assert verdict(results, "blocks-layers-like") == UNDECIDED
    assert "MobileNet B-2 with A-10" in claims.decide(results)["blocks-layers-like"].effect


def test_a_part_of_a_study_compares_like_with_like():
    """MobileNet's blocks, but only a frozen ResNet50: nothing to say of blocks against layers."""
    runs = [
        run
        for run in invented(flat).runs
        if (run.record.experiment.backbone, run.record.experiment.strategy)
        in (("mobilenet", BLOCKS), ("resnet50", LAYERS))
    ]
    part = Results(runs, original=ORIGINAL)
    assert verdict(part, "blocks-layers") is None
    verdicts = claims.decide(part)
    assert verdicts["blocks-layers"].verdict == UNDECIDED
    assert len(claims.table(part, verdicts)) == len(CLAIMS)


def test_several_seeds_are_compared_over_seeds_and_photos():
    results = invented(lambda b, s, a, c: 0.9 if s == BLOCKS else 0.8, seeds=3, swap=0.05)
    found = claims.decide(results)["blocks-layers"]
    assert found.verdict == SUPPORTED and "bootstrap over photos and seeds" in found.test


def test_the_original_s_own_numbers():
    own = {claim.id: claim.own(ORIGINAL) for claim in CLAIMS if claim.own}
    assert own["resnet50-best"].startswith("342 against 334 to 338 photos of 367")
    assert own["mobilenet-layers"].startswith("331 against 323 to 325 photos of 367, +7.0 on average; unpaired p = 0.4")
    assert own["resnet50-blocks-latency"].startswith("84 against 206 ms")
    assert "factor of 2.5" in own["resnet50-blocks-latency"]


def test_verdicts_that_stand_together_are_fewer():
    results = invented(lambda b, s, a, c: 0.9 if b == "resnet50" else 0.8)
    verdicts = claims.decide(results)
    standing = claims.stand(verdicts)
    assert "resnet50-accuracy" in standing
    assert {id for id in standing} <= {id for id, found in verdicts.items() if found.verdict != UNDECIDED}


def test_every_claim_has_an_id_of_its_own_a_place_and_a_table_row():
    assert len({claim.id for claim in CLAIMS}) == len(CLAIMS) >= 14
    results = invented(flat, latency=lambda *w: 10)
    table = claims.table(results, claims.decide(results))
    assert all(claim.words in row and claim.where in row for claim, row in zip(CLAIMS, table["Claim"]))
    assert {word.rstrip("*") for word in table["Verdict"]} <= {SUPPORTED, CONTRADICTED, UNDECIDED}
    assert "not decided*" not in set(table["Verdict"]) and "supported*" in set(table["Verdict"])


def test_what_is_shown_of_a_p_value_is_true_of_it():
    assert [claims.in_p(p) for p in (0, 0.0004, 0.04, 0.9994, 0.9996, 1)] == [
        "p < 0.001",
        "p < 0.001",
        "p = 0.040",
        "p = 0.999",
        "p > 0.999",
        "p > 0.999",
    ]


def test_rank_correlations_are_exact():
    assert claims.rank_correlation([1, 2, 3, 4], [1, 2, 3, 4]) == (pytest.approx(1.0), pytest.approx(2 / 24))
    assert claims.rank_correlation([1, 2, 3], [5, 5, 5]) is None
    rng = np.random.default_rng(0)
    called = [claims.rank_correlation(range(6), rng.random(6))[1] < 0.05 for _ in range(400)]
    assert np.mean(called) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 400)
