"""Intervals and tests over folds, against known values and simulated studies."""

import functools
import itertools
import time
import tracemalloc

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from test_record import made_up_run

from thaw.records.record import PhaseSeconds
from thaw.records.runs import IDENTITY, Run
from thaw.report import statistics
from thaw.report.results import Results
from thaw.report.statistics import ALPHA, Family, difference

FLIP = 0.024  # of a photo's rightness from run to run: 4.8 % of photos differ between two runs of one configuration
UNCERTAIN = 4 * FLIP  # of the photos: a run is right at random on them
MOVES = [0.0067, 0.0134]  # of an accuracy from run to run, beyond single photos: as measured, and at most

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


def test_too_few_folds_are_compared_over_their_photos_as_if_they_were_one():
    first, second = runs_of([15, 12]), runs_of([11, 13], amount=4)
    found = statistics.over_photos(first, second)
    together = []
    for side, amount in ((first, 2), (second, 4)):
        record, history, predictions = made_up_run(0, np.concatenate([each.correct for each in side]), amount=amount)
        together.append([Run(record=record, history=history, predictions=predictions)])
    expected = difference(*together)
    assert found.these_runs and (found.photos, found.mean) == (40, expected.mean)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.p == pytest.approx(expected.p, abs=0.02), "flips of signs, against McNemar's exact test"


def test_one_photo_of_12_and_one_of_11_are_the_same():
    """Folds are not all of one size. Else Student's t would take rounding for how far folds vary."""
    sizes = (12, 11, 12)
    first, second = (
        [run(np.arange(size) >= wrong, fold, amount=wrong) for fold, size in enumerate(sizes)] for wrong in (1, 3)
    )
    effect = difference(first, second)
    assert effect.freedom == np.inf
    assert effect.high - effect.low > 0.2
    assert statistics.accuracy_interval(first) == pytest.approx(statistics.wilson(32, 35))
    (of_family,) = Family.of(statistics.by_configuration([*first, *second]), [*first, *second]).differences
    assert of_family.high == pytest.approx(effect.high)


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


def test_losses_have_intervals_over_folds():
    runs = [run([1] * 8 + [0] * wrong, fold) for fold, wrong in enumerate((1, 2, 4))]
    losses = [(8 * -np.log(0.9) + wrong * -np.log(0.2)) / (8 + wrong) for wrong in (1, 2, 4)]
    known = stats.t.interval(0.95, 2, np.mean(losses), stats.sem(losses))
    assert statistics.loss_interval(runs) == pytest.approx(known)
    same = [run([1] * 8 + [0] * 2, fold) for fold in range(3)]
    photos = np.repeat([-np.log(0.9), -np.log(0.2)], [24, 6])
    known = stats.t.interval(0.95, 29, photos.mean(), stats.sem(photos))
    assert statistics.loss_interval(same) == pytest.approx(known), "over the photos of all"


def test_what_remains_of_a_gain_is_all_that_student_s_t_does_not_exclude():
    """Fieller's (1954) interval, with the folds' degrees of freedom."""
    counts = {"tuned": [36, 35, 37, 34, 36], "short": [27, 29, 28, 27, 28], "control": [30, 31, 32, 29, 33]}
    tuned, short, control = (runs_of(each, photos=40, amount=number) for number, each in enumerate(counts.values(), 1))
    remaining = statistics.remaining_gain(tuned, short, control)
    gain, rest = (np.subtract(counts["tuned"], counts[other]) / 40 for other in ("short", "control"))
    assert remaining.share == pytest.approx(rest.mean() / gain.mean())
    for end in (remaining.low, remaining.high):
        assert stats.ttest_1samp(rest - end * gain, 0).pvalue == pytest.approx(ALPHA)
    assert remaining.low < remaining.share < remaining.high


def test_a_trend_has_an_interval_for_all_that_varies_from_fold_to_fold():
    """Training loss too; times are counted, fold by fold."""
    figures = {
        2: {"train_loss": [0.5, 0.7, 0.6], "train_accuracy": [0.9, 0.8, 0.8], "seconds": [10, 20, 30]},
        4: {"train_loss": [0.3, 0.45, 0.5], "train_accuracy": [0.95, 0.9, 0.85], "seconds": [11, 21, 31]},
    }
    runs = []
    for amount, of in figures.items():
        for fold in range(3):
            seconds = PhaseSeconds(activations=0, head=0, finetune=of["seconds"][fold])
            measured = {name: of[name][fold] for name in ("train_loss", "train_accuracy")}
            right = np.arange(40) < 30 + fold + amount * (2 - fold)
            more = {"trainable_parameters": amount, "validation_accuracy": 0.7, "training_seconds": seconds}
            runs.append(run(right, fold, amount=amount, **measured | more))
    results = Results(runs)
    for name, changes in (
        ("training loss", [-0.2, -0.25, -0.1]),
        ("lead of training over validation accuracy", [0.05, 0.1, 0.05]),
        ("loss on unseen photos", np.log(0.2 / 0.9) * np.array([4, 2, 0]) / 40),
    ):
        trend, known = results.trend("mobilenet", name), stats.ttest_1samp(changes, 0)
        assert trend.mean == pytest.approx(np.mean(changes)), name
        assert (trend.low, trend.high) == pytest.approx(tuple(known.confidence_interval())), name
        assert (trend.p, trend.test) == (pytest.approx(known.pvalue), "t test over folds")
        assert (trend.folds, trend.these_runs) == (3, False)
    counted = results.trend("mobilenet", "fine-tuning time")
    assert (counted.p, counted.mean, counted.sign, counted.test) == (None, 1, 1, "counted"), "longer on each fold"
    assert not counted.these_runs


# ---- simulated studies ----------------------------------------------------------------------------


@functools.cache
def keys(fold: int, photos: int) -> pd.Index:
    return pd.Index([f"fold-{fold:02}-photo-{number:04}" for number in range(photos)])


@functools.cache
def record_of(fold: int | None, amount: int) -> tuple:
    """A record, and its run's identity."""
    if fold:  # made_up_run takes its time
        record, identity = record_of(0, amount)
        other = record.model_copy()
        other.__dict__["experiment"] = record.experiment.model_copy(update={"fold": fold, "seed": fold})
        return other, identity
    record = made_up_run(0, [1], amount=amount, folds=30, fold=fold)[0]
    return record, Run.model_construct(record=record, history=None, predictions=None).identity


def light(right: np.ndarray, fold: int | None, amount: int = 1) -> Run:
    """A run without tables: there are thousands."""
    record, identity = record_of(fold, amount)
    made = Run.model_construct(record=record, history=None, predictions=None)
    made.__dict__ |= {"correct": pd.Series(right, index=keys(fold or 0, len(right))), "identity": identity}
    return made


def simulated(rng, gains, moves: float, folds: int = 10, photos: int = 367) -> np.ndarray:
    """Whether each configuration is right on each photo of each fold, (configurations, folds, photos).

    Each fold has photos of its own, easy, hard and uncertain. Each
    configuration has a run on each: it moves by chance (`moves`), and is
    right at random on the uncertain photos. `gains` says how much better a
    configuration truly is than 0.95.
    """
    shift = np.reshape(gains, (-1, 1)) + rng.normal(0, moves, (len(gains), folds))
    easy = (1 - UNCERTAIN) * np.clip(rng.normal(0.94, 0.01, folds), 0, 1)[:, None]  # folds differ for all alike
    kind = rng.random((folds, photos))
    on_uncertain = rng.random((len(gains), folds, photos)) < 0.5 + shift[..., None] / UNCERTAIN
    return np.where(kind < UNCERTAIN, on_uncertain, kind < UNCERTAIN + easy)


def as_runs(right: np.ndarray) -> list[list[Run]]:
    """The runs of each configuration."""
    return [[light(each, fold, number + 1) for fold, each in enumerate(of)] for number, of in enumerate(right)]


def beyond(share: float, studies: int) -> float:
    """Three standard errors of a share of so many simulated studies."""
    return 3 * np.sqrt(share * (1 - share) / studies)


def family_of(right: np.ndarray) -> Family:
    """The family of simulated configurations: each trains more parameters than the one before."""
    runs = as_runs(right)
    rows = pd.DataFrame([group[0].identity for group in runs], columns=IDENTITY)
    rows = rows.assign(seeds=1, trainable_parameters=range(len(rows)), test_accuracy=right.mean(axis=(1, 2)))
    return Family.of(rows, [each for group in runs for each in group])


@pytest.mark.parametrize("moves, too_bold", [(MOVES[0], 0.9), (MOVES[1], 0.75)])
def test_over_folds_intervals_cover_and_what_pools_their_photos_does_not(moves, too_bold):
    """Two configurations, the first better by the margin: one study of twenty may call them equivalent."""
    rng = np.random.default_rng(0)
    studies, margin = 1000, 0.02
    covered, pooled, equivalent = np.zeros((3, studies), bool)
    for number in range(studies):
        right = simulated(rng, [margin / 2, -margin / 2], moves)
        effect = difference(*as_runs(right))
        covered[number] = effect.low <= margin <= effect.high
        equivalent[number] = effect.equivalence(margin) < ALPHA
        of_all = difference(*([light(each.ravel(), None)] for each in right))
        pooled[number] = of_all.low <= margin <= of_all.high
    assert covered.mean() >= 1 - ALPHA - beyond(ALPHA, studies)
    assert equivalent.mean() <= ALPHA + beyond(ALPHA, studies)
    assert pooled.mean() < too_bold, "in these studies a method that is too bold is seen to be"


def test_ten_folds_find_a_point_and_a_half_in_four_studies_of_five():
    rng = np.random.default_rng(0)
    studies, gain = 400, 0.0148
    effects = [difference(*as_runs(simulated(rng, [gain / 2, -gain / 2], MOVES[0]))) for _ in range(studies)]
    assert np.median([effect.detectable for effect in effects]) == pytest.approx(gain, abs=0.001)
    assert np.mean([effect.sign > 0 for effect in effects]) == pytest.approx(0.8, abs=beyond(0.8, studies))


def false_alarms(gains, enough: int, folds: int, studies: int = 300) -> tuple[float, float]:
    """In which share of studies any two are told apart, and more than what is `enough` is called better."""
    rng = np.random.default_rng(0)
    apart, more = np.zeros((2, studies), bool)
    rows = family_of(simulated(rng, gains, 0.0, folds)).rows
    for number in range(studies):
        right = simulated(rng, gains, MOVES[0], folds, photos=100)
        family = Family.of(rows.assign(test_accuracy=right.mean(axis=(1, 2))), as_runs(right[:1])[0])
        family.__dict__["_folds"] = list(np.swapaxes(right, 0, 1))  # as it reads them from all of the runs
        pairs = statistics.pairwise(family)
        steps = statistics.what_more_gains(family, statistics.as_good_as_best(family.rows, pairs))
        apart[number] = pairs["separated"].any()
        more[number] = any(step.clear for index, step in steps.items() if index >= enough)
    return apart.mean(), more.mean()


@pytest.mark.parametrize("folds", [10, 5])
def test_of_many_configurations_that_are_alike_any_is_told_apart_in_at_most_one_study_of_twenty(folds):
    """All 28 pairs, and whether any that trains more is better; of five folds pairs have Holm's correction."""
    studies = 300
    apart, more = false_alarms(np.zeros(8), 0, folds, studies)
    assert max(apart, more) <= ALPHA + beyond(ALPHA, studies)
    assert min(apart, more) > 0, "a test that never rejects shows nothing"


def test_more_than_is_enough_is_called_better_in_at_most_one_study_of_twenty():
    """The first two are truly worse, so that the steps get to the third, which is as good as any."""
    apart, more = false_alarms([-0.05, -0.03, *np.zeros(6)], 2, folds=10)
    assert more <= ALPHA + beyond(ALPHA, 300)
    assert apart > 0.95, "that the worst is worse is found"


def test_the_families_of_few_folds_are_corrected_one_test_at_a_time():
    """Of five folds no flip is rarer than one in 16: too many for 5 %. Upwards it is one in 32."""
    rng = np.random.default_rng(0)
    for folds, pairs, steps in ((6, "max-T", "max-T"), (5, "Holm", "max-T"), (4, "Holm", "Bonferroni")):
        right = simulated(rng, [-0.02, 0.0, 0.0], 0.0, folds)
        right[0] &= rng.random(right[0].shape) < 0.7  # far worse
        family = family_of(right)
        assert (family.correction, family.step_correction) == (pairs, steps)
        table = statistics.pairwise(family)
        assert table["separated"].tolist() == [True, True, False]
        if pairs == "Holm":
            alone = [each.p for each in table["difference"]]
            assert table["p"].tolist() == pytest.approx(statistics.holm(alone).tolist())
        else:
            assert table["p"].min() == pytest.approx(1 / 32), "of 32 flips only the one that was seen is so large"
        step = statistics.what_more_gains(family, family.rows.index)[0]
        least = {6: 1 / 64, 5: 1 / 32, 4: step.difference.p}[folds]  # twice half of the two-sided p
        assert step.p == pytest.approx(least)
        assert step.clear
        assert step.difference.mean > 0.2


def test_pairs_at_once_are_the_pairs_one_by_one():
    rng = np.random.default_rng(0)
    right = simulated(rng, [0.0, 0.01, 0.03, 0.01], MOVES[1], photos=50)
    right[3] = right[1][:, rng.permutation(50)]  # as many on each fold
    family = family_of(right)
    for each in statistics.pairwise(family).itertuples():
        sides = [statistics.runs_of(family.rows.loc[index], family.runs) for index in (each.first, each.second)]
        alone = difference(*sides)
        for name in alone.__slots__:
            expected = getattr(alone, name)
            close = expected if isinstance(expected, str) else pytest.approx(expected, abs=1e-9)
            assert getattr(each.difference, name) == close, name
        levels = right[each.first].mean(axis=1) - right[each.second].mean(axis=1)
        flips = np.array(list(itertools.product((1, -1), repeat=10)))
        t = np.abs(stats.ttest_1samp(flips * levels, 0, axis=1).statistic)
        alone = np.mean(t >= t[0] - 1e-9) if levels.any() else 1
        assert each.p >= alone - 1e-9


def test_the_correction_for_all_pairs_is_westfall_and_young_s():
    """Step by step, by the flips of whole folds: computed here in the plainest way."""
    right = simulated(np.random.default_rng(3), [0.0, 0.03, 0.0, 0.015], MOVES[0])
    family = family_of(right)
    accuracies = right.mean(axis=2)
    apart = np.array([accuracies[first] - accuracies[second] for first, second in family.pairs])
    flips = np.array(list(itertools.product((1, -1), repeat=10)))
    t = np.abs(stats.ttest_1samp(flips[:, None] * apart, 0, axis=2).statistic)  # (flips, pairs)
    order = np.argsort(-t[0])
    expected, before = np.empty(len(order)), 0.0
    for place, number in enumerate(order):
        largest = t[:, order[place:]].max(axis=1)
        before = expected[number] = max(before, np.mean(largest >= t[0, number] - 1e-9))
    assert family.corrected() == pytest.approx(expected)
    assert 0 < (expected < ALPHA).sum() < 6


def test_many_configurations_on_folds_are_compared_in_seconds_and_little_memory():
    right = simulated(np.random.default_rng(0), np.zeros(300), MOVES[0])
    family = family_of(right)
    tracemalloc.start()
    began = time.process_time()
    pairs = statistics.pairwise(family)
    statistics.what_more_gains(family, statistics.as_good_as_best(family.rows, pairs))
    seconds, peak = time.process_time() - began, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(pairs) == 44_850
    assert seconds < 5
    assert peak < 300e6


def test_thirty_folds_have_some_of_their_flips():
    family = family_of(simulated(np.random.default_rng(1), [0.0, 0.0, 0.05], MOVES[0], folds=30))
    assert family._moved.shape[1] < 20_000
    assert statistics.pairwise(family)["separated"].tolist() == [False, True, True]
