"""Intervals and paired tests against known values and simulated studies."""

import time
import tracemalloc

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_record import made_up_run

from thaw.records.runs import Run
from thaw.report import statistics
from thaw.report.statistics import ALPHA, Family, difference, losses

pytestmark = pytest.mark.usefixtures("quick_corrections")
STUDIES = 1000
BEYOND = 3 * np.sqrt(ALPHA * (1 - ALPHA) / STUDIES)  # of a share of simulated studies: its own chance error
_made: dict[tuple, tuple] = {}


def run(right, seed: int = 0, amount: int = 2) -> Run:
    """A run that classifies just these photos correctly."""
    if (seed, amount) not in _made:
        _made[seed, amount] = made_up_run(seed, [1], amount=amount)[:2]
    record, history = _made[seed, amount]
    right = np.asarray(right, bool)
    keys = [f"photo-{i:04}" for i in range(len(right))]
    predictions = pd.DataFrame({"key": keys, "label": "rose", "predicted": np.where(right, "rose", "tulip")})
    record = record.model_copy(update={"test_accuracy": float(right.mean())})
    return Run.model_construct(record=record, history=history, predictions=predictions)


def pair(rng, photos: int, seeds: int, gain: float = 0.0, seed_sd: float = 0.0) -> list[list[Run]]:
    """Two configurations of simulated runs: hard and easy photos, good and bad seeds, the first better by `gain`."""
    easy = rng.beta(4, 0.8, photos) * (1 - gain)
    return [
        [run(rng.random(photos) < easy + better + rng.normal(0, seed_sd), seed, amount) for seed in range(seeds)]
        for amount, better in ((2, gain), (4, 0.0))
    ]


FLIP = 0.024  # of a photo's rightness from run to run: 4.8 % of photos differ between two runs of one configuration


def simulated(rng, configurations, seeds, photos, runs_sd=0.0, shared_sd=0.0, easy_gain=None) -> list[Run]:
    """Runs of configurations of one network that are alike, or better by `easy_gain`.

    A photo is easy, hard or uncertain. A run is right at random on the
    uncertain ones, as often as two runs of one configuration were seen to
    differ. A run's luck (`runs_sd`, and `shared_sd` for all runs with its
    seed) makes it right on more or fewer photos.
    """
    share = 4 * FLIP
    kind = rng.choice(3, photos, p=[0.04, share, 0.96 - share])
    base = np.array([0.03, 0.5, 0.99])[kind]
    luck = rng.normal(0, shared_sd, seeds)
    runs = []
    for number in range(configurations):
        gain = 0 if easy_gain is None else easy_gain[number]
        for seed in range(seeds):
            shift = gain + luck[seed] + rng.normal(0, runs_sd)
            chances = np.where(kind == 1, base + shift / share, base)
            runs.append(light(rng.random(photos) < chances, seed, number + 1))
    return runs


def light(right: np.ndarray, seed: int, amount: int) -> Run:
    """A run without tables: there are thousands."""
    if (seed, amount) not in _made:
        _made[seed, amount] = made_up_run(seed, [1], amount=amount)[:2]
    made = Run.model_construct(record=_made[seed, amount][0], history=None, predictions=None)
    made.__dict__["correct"] = pd.Series(right, index=KEYS[: len(right)])
    return made


KEYS = pd.Index([f"photo-{number:04}" for number in range(400)])
_rows: dict[int, pd.DataFrame] = {}


def rows_of(runs: list[Run]) -> pd.DataFrame:
    """The rows of simulated runs: a number more parameters each."""
    count = len({run.identity for run in runs})
    if count not in _rows:
        some = [run([1], amount=number + 1) for number in range(count)]
        _rows[count] = statistics.by_configuration(with_sizes(some, list(range(count))))
    right = np.array([run.correct.mean() for run in runs]).reshape(count, -1).mean(axis=1)
    return _rows[count].assign(test_accuracy=right)


@pytest.fixture
def fewer_flips(monkeypatch):
    """A simulated study needs fewer draws than a report: its p value is only asked whether it is below 5 %."""
    monkeypatch.setattr("thaw.report.statistics.families.FLIPS", 999)


def beyond(count: int) -> float:
    """Three standard errors of a share of so many simulated studies."""
    return 3 * np.sqrt(ALPHA * (1 - ALPHA) / count)


@pytest.mark.parametrize("runs_sd, shared_sd", [(0.0, 0.0), (0.0134, 0.0), (0.0067, 0.0067)])
def test_with_several_seeds_intervals_cover_and_alarms_are_few(runs_sd, shared_sd, fewer_flips):
    """Eight like configurations, three seeds, photos and runs drawn anew: as a referee measured of our own runs.

    One pair, six configurations against one, and any of the 28 pairs.
    """
    rng = np.random.default_rng(0)
    studies, pairs, groups, alike, anything = 200, 0, 0, 0, 0
    for _ in range(studies):
        runs = simulated(rng, 8, 3, 367, runs_sd, shared_sd)
        within = statistics.spreads(runs)
        effect = difference(runs[:3], runs[3:6], within)
        pairs += effect.low <= 0 <= effect.high
        effect = difference(runs[6:], runs[:3], within)
        groups += effect.low <= 0 <= effect.high
        alike += effect.sign == 0
        anything += (Family(rows_of(runs), runs, within).corrected() < ALPHA).any()
    for share in (pairs, groups, alike):
        assert share / studies >= 1 - ALPHA - beyond(studies)
    assert anything / studies <= ALPHA + beyond(studies)


def test_of_many_single_runs_that_are_alike_any_is_told_apart_in_at_most_one_study_of_twenty(fewer_flips):
    """All 28 pairs, and whether any that trains more is better; what varies is the photos."""
    rng = np.random.default_rng(0)
    studies, anything, more, left_out = 200, 0, 0, 0
    for _ in range(studies):
        runs = simulated(rng, 8, 1, 367)
        rows = rows_of(runs)
        family = Family(rows, runs)
        pairs = statistics.pairwise(family)
        anything += pairs["separated"].any()
        best = statistics.as_good_as_best(rows, pairs)
        left_out += len(best) < 8
        more += any(step.clear for step in statistics.what_more_gains(family, best))
    assert max(anything, more, left_out) / studies <= ALPHA + beyond(studies)
    assert anything + more > 0, "a test that never rejects shows nothing"


def test_the_spread_of_runs_is_found_beyond_the_photos_that_change():
    rng = np.random.default_rng(0)
    for own, shared in ((0.0, 0.0), (0.02, 0.0), (0.0, 0.02)):
        found = [statistics.spreads(simulated(rng, 8, 3, 367, own, shared)) for _ in range(40)]
        together, apart = (np.mean([each["mobilenet", key].run for each in found]) for key in (False, True))
        assert together == pytest.approx(own**2 + shared**2, abs=1.2e-4)
        assert apart == pytest.approx(own**2, abs=6e-5), "what all runs of a seed share cancels in a difference"


def test_losses_are_compared_photo_by_photo():
    record, history, predictions = made_up_run(0, [1, 1, 0, 1, 1, 0, 1, 1])
    worse = predictions.assign(p_rose=predictions["p_rose"] * 0.9)
    other = made_up_run(0, [1], amount=4)[0]
    first = Run(record=other, history=history, predictions=worse)
    second = Run(record=record, history=history, predictions=predictions)
    effect = difference([first], [second], measure=losses)
    assert effect.mean == pytest.approx(-np.log(0.9))
    assert effect.sign == 1
    assert effect.test == "t test over photos"


def test_wilson_s_interval_is_the_textbook_s():
    low, high = statistics.wilson(81, 263)  # Newcombe (1998), table I
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)


def test_mcnemar_counts_the_photos_that_only_one_run_gets_right():
    first, second = run([1] * 8 + [0] * 2 + [1] * 10), run([0] * 8 + [1] * 2 + [1] * 10)
    shuffled = Run(
        record=second.record, history=second.history, predictions=second.predictions.sample(frac=1, random_state=0)
    )
    effect = difference([first], [shuffled])
    assert effect.mean == pytest.approx(6 / 20)
    assert effect.p == pytest.approx(0.109375), "two-sided binomial of 2 in 10"
    assert effect.disagree == pytest.approx(0.5)


def test_the_interval_of_two_runs_is_bonett_and_price_s():
    """Of the counts 1 and 7 in 44: their estimate is (2 - 8) / 46."""
    effect = difference([run([1] + [0] * 7 + [1] * 36)], [run([0] + [1] * 7 + [1] * 36)])
    centre, spread = -6 / 46, 10 / 46
    half = 1.959964 * np.sqrt((spread - centre**2) / 46)
    assert (effect.low, effect.high) == pytest.approx((centre - half, centre + half), abs=1e-3)


def test_different_photos_are_not_compared():
    with pytest.raises(ValueError, match="same photos"):
        difference([run([1, 0])], [run([1, 0, 1])])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=5, max_size=60))
def test_a_difference_is_minus_its_opposite(photos):
    first, second = ([run([photo[side] for photo in photos])] for side in (0, 1))
    forth, back = difference(first, second), difference(second, first)
    assert forth.mean == -back.mean
    assert forth.p == back.p
    assert (forth.low, forth.high) == pytest.approx((-back.high, -back.low), abs=1e-9)
    assert forth.low <= forth.mean * len(photos) / (len(photos) + 2) <= forth.high


@pytest.mark.parametrize("photos", [367, 60])
def test_like_runs_are_called_different_in_at_most_one_study_of_twenty(photos):
    """The interval of their difference covers 0 as often as it should."""
    rng = np.random.default_rng(0)
    effects = [difference(*pair(rng, photos, 1)) for _ in range(STUDIES)]
    assert np.mean([effect.p < ALPHA for effect in effects]) <= ALPHA + BEYOND
    assert np.mean([effect.sign != 0 for effect in effects]) <= ALPHA + BEYOND
    assert np.mean([effect.low <= 0 <= effect.high for effect in effects]) >= 1 - ALPHA - BEYOND


def test_configurations_taken_together_keep_the_rate_as_well():
    """Three configurations against three, of one seed: the sign-flip test and the bootstrap over photos."""
    rng = np.random.default_rng(0)
    called, covered = 0, 0
    for _ in range(STUDIES):
        easy = rng.beta(4, 0.8, 120)
        first, second = (
            [run(rng.random(120) < easy, amount=amount) for amount in side] for side in ((2, 4, 10), (3, 5, 11))
        )
        effect = difference(first, second)
        called += effect.p < ALPHA
        covered += effect.low <= 0 <= effect.high
    assert called / STUDIES <= ALPHA + BEYOND
    assert covered / STUDIES >= 1 - ALPHA - BEYOND


def test_the_interval_covers_a_true_difference():
    rng = np.random.default_rng(1)
    effects = [difference(*pair(rng, 200, 1, 0.06)) for _ in range(STUDIES)]
    assert np.mean([effect.low <= 0.06 <= effect.high for effect in effects]) >= 1 - ALPHA - BEYOND


def test_wilson_covers_at_its_rate():
    rng = np.random.default_rng(0)
    for accuracy in (0.75, 0.92):
        low, high = statistics.wilson(rng.binomial(367, accuracy, 4 * STUDIES), 367)
        assert np.mean((low <= accuracy) & (accuracy <= high)) >= 1 - ALPHA - BEYOND


def test_the_mean_over_seeds_has_an_interval_that_covers():
    """Photos and seeds are both drawn again in every study."""
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(300):
        easy = rng.beta(4, 1, 150)
        runs = [run(rng.random(150) < easy + rng.normal(0, 0.02), seed) for seed in range(4)]
        low, high = statistics.accuracy_interval(runs)
        covered += low <= 0.8 <= high
    assert covered / 300 >= 1 - ALPHA - 3 * np.sqrt(ALPHA * (1 - ALPHA) / 300)


def two_runs(rng, photos, disagree, gain) -> tuple[list[Run], list[Run]]:
    """Runs that differ on a share of the photos, with the first one better by `gain`."""
    kind = rng.choice(3, photos, p=[(disagree + gain) / 2, (disagree - gain) / 2, 1 - disagree])
    shared = rng.random(photos) < 0.9
    return [run(np.where(kind == 2, shared, kind == 0))], [run(np.where(kind == 2, shared, kind == 1))]


@pytest.mark.parametrize("photos, disagree", [(367, 0.1), (160, 0.2)])
def test_the_detectable_difference_is_found_in_four_studies_of_five_and_twice_it_always(photos, disagree):
    rng = np.random.default_rng(0)
    gain = statistics.detectable(photos, disagree)
    found = np.mean([difference(*two_runs(rng, photos, disagree, gain)).p < ALPHA for _ in range(STUDIES)])
    assert found == pytest.approx(0.8, abs=0.04)
    wide = max(disagree, 2 * gain)
    found = np.mean([difference(*two_runs(rng, photos, wide, 2 * gain)).sign > 0 for _ in range(200)])
    assert found >= 0.98


def test_the_detectable_difference_falls_with_photos_and_rises_with_disagreement():
    assert statistics.detectable(1000, 0.1) < statistics.detectable(367, 0.1) < statistics.detectable(367, 0.2)
    assert statistics.detectable(60, 0.01) >= 5 / 60, "so few disagree that six photos are needed, all on one side"
    assert np.isnan(statistics.detectable(5, 0.5)), "five photos on one side give p = 0.06"


def test_equivalence_needs_photos_enough_and_a_small_difference():
    same = [True] * 900 + [False] * 100
    assert difference([run(same)], [run(same)]).equivalence(0.02) < ALPHA
    few = [True] * 36 + [False] * 4
    assert difference([run(few)], [run(few)]).equivalence(0.02) > ALPHA, "40 photos show no equivalence"
    assert difference([run([True] * 1000)], [run(same)]).equivalence(0.02) > 0.9
    for effect in (difference([run(same)], [run(same)]), difference([run(few)], [run(few)])):
        widest = max(map(abs, effect.narrow))  # what a reader sees decides as the test does
        assert effect.equivalence(widest + 1e-6) < ALPHA < effect.equivalence(widest - 1e-6)


def test_differences_at_the_margin_are_called_equivalent_in_at_most_one_study_of_twenty():
    rng = np.random.default_rng(0)
    called = [difference(*two_runs(rng, 367, 0.08, 0.02)).equivalence(0.02) < ALPHA for _ in range(STUDIES)]
    assert np.mean(called) <= ALPHA + BEYOND
    far = [difference(*two_runs(rng, 20_000, 0.05, 0.0)).equivalence(0.02) < ALPHA for _ in range(20)]
    assert all(far), "and equal ones, on photos enough, are"


def test_a_few_photos_are_no_difference():
    """With four photos on one side McNemar's p is 0.125; the bootstrap alone would call it a difference."""
    effect = difference([run([1] * 160)], [run([0] * 4 + [1] * 156)])
    assert effect.mean == pytest.approx(4 / 160)
    assert effect.p == pytest.approx(0.125)
    assert effect.sign == 0


def test_a_configuration_that_is_worse_is_not_among_the_best():
    rng = np.random.default_rng(0)
    runs = [run(rng.random(300) < accuracy, amount=amount) for amount, accuracy in ((1, 0.5), (2, 0.9), (3, 0.89))]
    rows = statistics.by_configuration(runs)
    best = statistics.as_good_as_best(rows, statistics.pairwise(Family(rows, runs)))
    assert rows.loc[best, "amount"].tolist() in ([2, 3], [3, 2])


def test_a_configuration_that_loses_to_any_is_not_among_the_best():
    """The second is shown to be better than the first. The best is not, since it differs on more photos."""
    photos = np.arange(400)
    runs = [run(photos < 340, amount=1), run(photos < 370, amount=2), run((photos < 320) | (photos >= 344), amount=3)]
    rows = statistics.by_configuration(runs)
    pairs = statistics.pairwise(Family(rows, runs))
    assert rows["test_accuracy"].idxmax() == 2
    assert pairs.loc[(pairs["first"] == 0) & (pairs["second"] == 1), "separated"].item()
    assert not pairs.loc[(pairs["first"] == 1) & (pairs["second"] == 2), "separated"].item()
    assert statistics.as_good_as_best(rows, pairs) == [2, 1]


def with_sizes(runs: list[Run], sizes: list[int]) -> list[Run]:
    """The runs as if they had trained so many parameters."""
    records = [run.record.model_copy(update={"trainable_parameters": size}) for run, size in zip(runs, sizes)]
    return [run.model_copy(update={"record": record}) for run, record in zip(runs, records)]


def test_steps_upwards_end_where_no_gain_is_shown():
    photos = np.arange(400)
    accuracies = (300, 305, 280, 360, 361, 359)  # the first two train as many
    runs = [run(photos < right, amount=amount) for amount, right in enumerate(accuracies, 1)]
    rows = statistics.by_configuration(with_sizes(runs, [10, 10, 15, 20, 30, 40]))
    steps = statistics.what_more_gains(Family(rows, runs), rows.index)
    assert [step.clear for step in steps] == [True, True, True, False], "it stops where no gain is shown"
    assert [step.over for step in steps] == [4, 4, 4, 4]
    assert steps[1].difference.mean == pytest.approx((361 - 305) / 400)
    assert steps[1].difference == difference([runs[4]], [runs[1]]), "in the direction of the larger one"
    longer = rows.assign(epochs=[5, 20, 20, 20, 20, 20])
    assert list(statistics.upwards(longer).index) == [1, 0, 2, 3, 4, 5], "ties: the one trained longer comes first"
    assert len(statistics.what_more_gains(Family(rows, runs), [5])) == 5, "the others are no place to stop"
    assert statistics.what_more_gains(Family(rows.iloc[5:], runs), [5]).empty


def test_one_better_among_many_that_are_not_is_found():
    """Five configurations more, and one of them better: their mean would hide it."""
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(40):
        runs = simulated(rng, 7, 1, 367, easy_gain=[0, 0, 0, 0, 0, 0, 0.05])
        rows = rows_of(runs)
        found += statistics.what_more_gains(Family(rows, runs), rows.index).iloc[0].clear
    assert found >= 20


def test_pairs_at_once_are_the_pairs_one_by_one():
    rng = np.random.default_rng(0)
    for seeds in (1, 3):
        runs = simulated(rng, 4, seeds, 150, runs_sd=0.02)
        rows = rows_of(runs)
        within = statistics.spreads(runs)
        for each in statistics.pairwise(Family(rows, runs)).itertuples():
            sides = [statistics.runs_of(rows.loc[index], runs) for index in (each.first, each.second)]
            alone = difference(*sides, within)
            for name in ("mean", "low", "high", "error", "freedom", "p", "seeds", "test"):
                expected = getattr(alone, name)
                close = expected if isinstance(expected, str) else pytest.approx(expected, abs=1e-6)
                assert getattr(each.difference, name) == close, name
            assert each.p >= each.difference.p - 0.02


def test_many_configurations_are_compared_in_seconds_and_little_memory():
    rng = np.random.default_rng(0)
    runs = simulated(rng, 300, 1, 400)
    rows = rows_of(runs)
    tracemalloc.start()
    began = time.process_time()
    family = Family(rows, runs)
    pairs = statistics.pairwise(family)
    statistics.what_more_gains(family, statistics.as_good_as_best(rows, pairs))
    seconds, peak = time.process_time() - began, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(pairs) == 44_850
    assert seconds < 5
    assert peak < 300e6


def test_only_runs_with_their_like_on_the_other_side_are_matched():
    first, second = [run([1], amount=1), run([1], amount=2)], [run([1], amount=2), run([1], amount=3)]
    assert statistics.matched(first, second, ["amount"]) == (first[1:], second[:1])
    assert statistics.matched(first, second, []) == (first, second)


def test_a_comparison_asked_the_other_way_round_has_the_same_answer():
    rng = np.random.default_rng(0)
    first, second = pair(rng, 200, 3, gain=0.05, seed_sd=0.02)
    one, other = difference(first, second), difference(second, first)
    assert one.p == other.p
    assert (one.mean, one.low, one.high) == pytest.approx((-other.mean, -other.high, -other.low))


def test_a_configuration_s_row_is_the_mean_over_its_seeds():
    runs = [run((1, 1, 0, 1), 0), run((0, 0, 0, 1), 1)]
    rows = statistics.by_configuration(runs)
    assert len(rows) == 1
    assert rows["seeds"].item() == 2
    assert rows["test_low"].item() < 0.5 < rows["test_high"].item()


def test_more_seeds_narrow_the_interval_and_differing_seeds_widen_it():
    rng = np.random.default_rng(0)
    easy = rng.beta(4, 1, 300)

    def width(seeds, spread):
        rng = np.random.default_rng(1)
        low, high = statistics.accuracy_interval(
            [run(rng.random(300) < easy + spread * (-1) ** seed, seed) for seed in range(seeds)]
        )
        return high - low

    assert width(8, 0.0) < width(1, 0.0)
    assert width(4, 0.1) > 1.5 * width(4, 0.0)


def test_the_ratio_of_latencies_is_taken_round_by_round():
    rng = np.random.default_rng(0)
    slow_rounds = np.repeat([1.0, 3.0], 15)  # the machine was busy: for both alike
    first, second = (slow_rounds * rng.normal(mean, 0.01, 30) for mean in (2.0, 1.0))
    ratio, low, high = statistics.ratio_of_medians(first, second)
    assert low <= ratio <= high
    assert ratio == pytest.approx(2.0, rel=0.05)


def test_the_interval_of_a_loss_contains_what_was_measured():
    record, history, predictions = made_up_run(0, [1, 1, 0, 1, 1, 0, 1, 1])
    runs = [Run(record=record, history=history, predictions=predictions)]
    low, high = statistics.loss_interval(runs)
    assert low < np.mean([-np.log(0.9)] * 6 + [-np.log(0.2)] * 2) < high
