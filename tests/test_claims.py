"""Verdicts and words on invented results: they follow the numbers."""

import numpy as np
import pytest
from test_record import made_up_run

from thaw import claims, narrative, statistics
from thaw.claims import CONTRADICTED, SUPPORTED, UNDECIDED
from thaw.record import Run, table

AMOUNTS = [("frozen", 0), ("layers", 5), ("layers", 10), ("layers", 40), ("blocks", 2), ("blocks", 4), ("blocks", 10)]


def study(accuracy, photos=400, backbones=("resnet50", "mobilenet")) -> list[Run]:
    """A run of every configuration and the control; `accuracy` is a function of backbone, strategy, amount and control."""
    runs = []
    for backbone in backbones:
        for strategy, amount in [*AMOUNTS, ("frozen", 0)]:
            control = (backbone, strategy, amount) in [
                (r.record.experiment.backbone, "frozen", 0) for r in runs
            ] and strategy == "frozen"
            right = np.arange(photos) < round(photos * accuracy(backbone, strategy, amount, control))
            extra = {"finetune_epochs": 15 if control or strategy != "frozen" else 0}
            made, history, predictions = made_up_run(
                0, right, backbone=backbone, strategy=strategy, amount=amount, **extra
            )
            size = {"frozen": 1, "layers": amount, "blocks": 10 * amount + 1}[strategy]
            made = made.model_copy(update={"trainable_parameters": size})
            runs.append(Run(record=made, history=history, predictions=predictions))
    return runs


def verdict(runs, id):
    return next(claim for claim in claims.CLAIMS if claim.id == id).decide(runs)


@pytest.mark.parametrize(
    "id, better",
    [
        ("resnet50-accuracy", lambda b, s, a, c: b == "resnet50"),
        ("mobilenet-layers", lambda b, s, a, c: s == "frozen"),
        ("blocks-layers", lambda b, s, a, c: s == "blocks"),
        ("mobilenet-frozen", lambda b, s, a, c: s == "blocks"),
        ("resnet50-best", lambda b, s, a, c: (s, a) == ("blocks", 10)),
        ("mobilenet-best", lambda b, s, a, c: s == "blocks" and a in (2, 4)),
        ("control", lambda b, s, a, c: s != "frozen"),
    ],
)
def test_a_claim_of_accuracy_holds_fails_or_is_undecided(id, better):
    assert verdict(study(lambda *which: 0.9 if better(*which) else 0.8), id).verdict == SUPPORTED
    assert verdict(study(lambda *which: 0.8 if better(*which) else 0.9), id).verdict == CONTRADICTED
    assert verdict(study(lambda *which: 0.9), id).verdict == UNDECIDED


def test_no_difference_needs_every_amount_inside_the_margin_and_photos_enough():
    same, apart = study(lambda *which: 0.9), study(lambda b, s, a, c: {5: 0.97, 40: 0.83}.get(a, 0.9))
    assert verdict(same, "resnet50-layers").verdict == SUPPORTED
    assert verdict(apart, "resnet50-layers").verdict == CONTRADICTED, "though the mean does not differ"
    assert verdict(study(lambda *which: 0.9, photos=40), "resnet50-layers").verdict == UNDECIDED


def test_a_part_of_a_study_compares_like_with_like():
    """MobileNet's blocks, but only a frozen ResNet50: nothing to say of blocks against layers."""
    runs = [
        r
        for r in study(lambda *which: 0.9)
        if r.record.experiment.backbone == "mobilenet" and r.record.experiment.strategy == "blocks"
    ]
    runs += [
        r
        for r in study(lambda *which: 0.9)
        if r.record.experiment.backbone == "resnet50" and r.record.experiment.strategy == "layers"
    ]
    assert verdict(runs, "blocks-layers") is None
    assert len(claims.table(runs)) == len(claims.CLAIMS)


def test_the_words_name_the_best_and_what_cannot_be_told_from_it():
    runs = study(lambda b, s, a, c: 0.95 if (s, a) == ("blocks", 10) else 0.8)
    rows = statistics.by_configuration(table(runs))
    words = narrative.in_short(rows, runs)
    assert words.count("the last 10 blocks: 95.0% of the test photos") == 2
    assert words.count("told apart from every other configuration") == 2
    level = study(lambda *which: 0.9)
    rows = statistics.by_configuration(table(level))
    assert "7 of the other 7 configurations cannot be told from it" in narrative.in_short(rows, level)
    assert "8 of 8 configurations are as good as the best" in narrative.best(rows, level)


def test_the_words_bear_one_network_and_one_configuration():
    runs = study(lambda *which: 0.9, backbones=("mobilenet",))[:1]
    rows = statistics.by_configuration(table(runs))
    assert "the only configuration that was run" in narrative.in_short(rows, runs)
    for words in (
        narrative.accuracy(rows),
        narrative.speed(rows),
        narrative.cost(rows, runs),
        narrative.strategies(runs),
        narrative.best(rows, runs),
    ):
        assert words and "nan" not in words
