"""Intervals and tests over folds, against known values and simulated studies."""

import numpy as np
import pytest
from scipy import stats
from test_record import made_up_run

from thaw.records.runs import Run
from thaw.report import statistics
from thaw.report.statistics import difference

pytestmark = pytest.mark.usefixtures("quick_corrections")


def run(right, fold: int, seed: int = 0, amount: int = 2, folds: int = 10, **figures) -> Run:
    """A run that classifies just these photos of its fold correctly."""
    record, history, predictions = made_up_run(10 * seed + fold, right, amount=amount, folds=folds, fold=fold)
    predictions = predictions.assign(key=[f"fold-{fold}-photo-{number:03}" for number in range(len(right))])
    return Run(record=record.model_copy(update=figures), history=history, predictions=predictions)


def runs_of(counts, photos: int = 20, **options) -> list[Run]:
    """A run for each fold, right on so many photos."""
    return [run(np.arange(photos) < count, fold, **options) for fold, count in enumerate(counts)]


def test_a_difference_is_student_s_t_over_the_folds():
    first, second = runs_of([18, 17, 19, 16]), runs_of([16, 17, 16, 15], amount=4)
    effect = difference(first, second)
    levels = np.array([2, 0, 3, 1]) / 20
    known = stats.ttest_1samp(levels, 0)
    assert effect.mean == pytest.approx(levels.mean())
    assert (effect.low, effect.high) == pytest.approx(tuple(known.confidence_interval(0.95)))
    assert effect.p == pytest.approx(known.pvalue)
    assert (effect.freedom, effect.folds, effect.photos, effect.seeds) == (3, 4, 80, 1)
    assert effect.disagree == pytest.approx(6 / 80)
    assert effect.test == "t test over folds"
    assert not effect.these_runs, "folds show how far runs vary"
    margin = 0.15
    inside = max(
        stats.ttest_1samp(levels, end, alternative=side).pvalue for end, side in ((0.15, "less"), (-0.15, "greater"))
    )
    assert effect.equivalence(margin) == pytest.approx(inside)


def test_seeds_are_averaged_within_the_fold_and_configurations_weigh_the_same():
    first = [*runs_of([18, 17, 19, 16]), *runs_of([16, 17, 17, 16], seed=1), *runs_of([12, 14, 13, 12], amount=6)]
    second = [*runs_of([16, 17, 16, 15], amount=4), *runs_of([16, 17, 16, 15], amount=4, seed=1)]
    effect = difference(first, second)
    tuned = (np.array([17, 17, 18, 16]) + [12, 14, 13, 12]) / 2
    known = stats.ttest_1samp((tuned - [16, 17, 16, 15]) / 20, 0)
    assert (effect.low, effect.high) == pytest.approx(tuple(known.confidence_interval(0.95)))
    assert effect.seeds == 1, "the fewest of any"


def test_groups_are_compared_on_the_folds_that_all_have():
    first, second = runs_of([18, 17, 19, 16]), runs_of([16, 17, 16, 15], amount=4)
    assert difference(first, second[1:]) == difference(first[1:], second[1:])
    assert difference(first, second[1:]).folds == 3
    for few in (second[:1], [run([1], 9, amount=4)]):
        effect = difference(first, few)
        assert (effect.mean, effect.low, effect.high, effect.p, effect.sign) == (0, -1, 1, 1, 0)
        assert effect.equivalence(0.02) > 0.4
    assert statistics.by_fold([*first, *second[1:]]).isna().sum().sum() == 1


def test_where_all_folds_say_the_same_their_photos_decide():
    """The interval of Bonett and Price (2012) on all of them: Student's t would have no width."""
    alike = difference(runs_of([18, 17, 19, 16]), runs_of([18, 17, 19, 16], amount=4))
    error = np.sqrt(2 / 82 / 82)
    assert (alike.mean, alike.p, alike.freedom) == (0, 1, np.inf)
    assert (alike.low, alike.high) == pytest.approx((-1.959964 * error, 1.959964 * error), abs=1e-6)
    more = difference(runs_of([18, 17, 19, 16]), runs_of([17, 16, 18, 15], amount=4))
    centre = 4 / 82
    error = np.sqrt((6 / 82 - centre**2) / 82)
    assert more.mean == pytest.approx(1 / 20)
    assert (more.low, more.high) == pytest.approx((centre - 1.959964 * error, centre + 1.959964 * error), abs=1e-6)


def test_an_accuracy_s_interval_is_student_s_t_and_ends_at_0_and_1():
    counts = np.array([18, 17, 19, 16])
    known = stats.t.interval(0.9, 3, counts.mean() / 20, stats.sem(counts / 20))
    assert statistics.accuracy_interval(runs_of(counts), alpha=0.1) == pytest.approx(known)
    assert statistics.accuracy_interval(runs_of([20, 20, 20, 12]))[1] == 1
    same = statistics.accuracy_interval(runs_of([20, 20, 20]), alpha=0.01)
    assert same == pytest.approx(statistics.wilson(60, 60, 0.01))


def test_a_configuration_s_row_is_the_mean_over_its_folds():
    runs = [*runs_of([18, 17, 19, 16]), *runs_of([16, 17, 17, 16], seed=1), *runs_of([12, 14, 13], amount=6)]
    rows = statistics.by_configuration(runs).set_index("amount")
    assert rows["folds"].tolist() == [4, 3]
    assert rows["seeds"].tolist() == [2, 1]
    assert rows["test_photos"].tolist() == [80, 60]
    assert rows["test_correct"].tolist() == [68, 39]
    assert rows["test_accuracy"].tolist() == pytest.approx([0.85, 0.65])
    assert rows["test_sd"].tolist() == pytest.approx([np.std([17, 17, 18, 16], ddof=1) / 20, 0.05])
    assert "fold" not in rows and "seed" not in rows
    assert not statistics.spreads(runs)


def test_each_photo_has_the_share_of_runs_that_are_right():
    runs = [*runs_of([3, 2], photos=4), *runs_of([4, 2], photos=4, seed=1), *runs_of([1], photos=4, amount=6)]
    shares = statistics.by_photo(runs)
    assert shares.index.get_level_values("amount").tolist() == [2, 6]
    assert shares.iloc[0].tolist() == [1, 1, 1, 0.5, 1, 1, 0, 0]
    assert shares.iloc[1].tolist()[:4] == [1, 0, 0, 0]
    assert shares.iloc[1, 4:].isna().all(), "it was not tested on this fold"
    assert shares.columns[-1] == "fold-1-photo-003"
    with pytest.raises(ValueError, match="same photos"):
        statistics.rightness(runs[:2])


def test_gaps_and_losses_have_intervals_over_folds():
    leads = np.array([0.1, 0.2, 0.15])
    runs = [
        run([1] * 8 + [0] * wrong, fold, train_accuracy=0.7 + lead, validation_accuracy=0.7)
        for fold, (lead, wrong) in enumerate(zip(leads, (1, 2, 4)))
    ]
    known = stats.t.interval(0.95, 2, leads.mean(), stats.sem(leads))
    assert statistics.gap_interval(runs) == pytest.approx(known)
    losses = [(8 * -np.log(0.9) + wrong * -np.log(0.2)) / (8 + wrong) for wrong in (1, 2, 4)]
    known = stats.t.interval(0.95, 2, np.mean(losses), stats.sem(losses))
    assert statistics.loss_interval(runs) == pytest.approx(known)
    same = [run([1] * 8 + [0] * 2, fold, train_accuracy=0.9, validation_accuracy=0.7) for fold in range(3)]
    low, high = statistics.gap_interval(same)
    assert low < 0.2 < high, "all folds say the same: as without folds"
    photos = np.repeat([-np.log(0.9), -np.log(0.2)], [24, 6])
    known = stats.t.interval(0.95, 29, photos.mean(), stats.sem(photos))
    assert statistics.loss_interval(same) == pytest.approx(known), "over the photos of all"
