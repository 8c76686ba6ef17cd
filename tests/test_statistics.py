"""Intervals and paired tests, against known values and simulated studies."""

import numpy as np
import pandas as pd
import pytest
from test_record import made_up_run

from thaw import record, statistics
from thaw.record import Run


def predictions(right) -> pd.DataFrame:
    right = np.asarray(right, bool)
    return pd.DataFrame(
        {
            "key": [f"photo-{i}" for i in range(len(right))],
            "label": "rose",
            "predicted": np.where(right, "rose", "tulip"),
        }
    )


def test_wilson_s_interval_is_the_textbook_s():
    low, high = statistics.wilson(81, 263)  # Newcombe (1998), table I
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)


def test_mcnemar_counts_the_photos_that_only_one_names_rightly():
    first, second = predictions([1] * 8 + [0] * 2 + [1] * 10), predictions([0] * 8 + [1] * 2 + [1] * 10)
    result = statistics.compare(first, second.sample(frac=1, random_state=0))
    assert (result.only_first, result.only_second) == (8, 2)
    assert result.difference == pytest.approx(6 / 20)
    assert result.p == pytest.approx(0.109375), "two-sided binomial of 2 in 10"


def test_different_photos_are_not_compared():
    with pytest.raises(ValueError, match="same photos"):
        statistics.compare(predictions([1, 0]), predictions([1, 0, 1]))


def test_the_interval_of_a_difference_covers_it():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        shared = rng.random(200) < 0.8
        first, second = (np.where(rng.random(200) < 0.2, rng.random(200) < p, shared) for p in (0.9, 0.5))
        effect = statistics.difference([predictions(first)], [predictions(second)], resamples=500)
        covered += effect.low <= 0.2 * (0.9 - 0.5) <= effect.high
    assert 0.90 <= covered / 200 <= 0.99


def test_a_configuration_s_row_is_the_mean_over_its_seeds():
    runs = [
        Run(record=made, history=history, predictions=made_predictions)
        for made, history, made_predictions in (made_up_run(0), made_up_run(1, (0, 0, 0, 1)))
    ]
    rows = statistics.by_configuration(record.table(runs))
    assert len(rows) == 1 and rows["seeds"].item() == 2
    assert rows["test_accuracy"].item() == 0.5
    assert rows["test_low"].item() < 0.5 < rows["test_high"].item()


def test_a_handful_of_photos_is_no_difference():
    """Four photos, all one way: McNemar's p is 0.125, and the bootstrap alone would be too bold."""
    effect = statistics.difference([predictions([1] * 160)], [predictions([0] * 4 + [1] * 156)])
    assert effect.mean == pytest.approx(4 / 160) and effect.low > 0
    assert effect.p == pytest.approx(0.125, abs=0.02) and effect.sign == 0


def test_two_like_classifiers_are_rarely_told_apart_and_unlike_ones_mostly():
    rng = np.random.default_rng(1)
    called = {0.0: 0, 0.15: 0}
    for gain in called:
        for _ in range(150):
            first, second = (predictions(rng.random(200) < p) for p in (0.75 + gain, 0.75))
            called[gain] += statistics.difference([first], [second], resamples=500).sign > 0
    assert called[0.0] / 150 <= 0.06, "2.5 % on this side, give or take"
    assert called[0.15] / 150 >= 0.9
