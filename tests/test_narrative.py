"""The written analysis on invented results: each conclusion held, failed and undecided, and the words follow."""

import html
import re
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from invented import BLOCKS, CONFIGURATIONS, FROZEN, LAYERS, SIZES, flat, invented
from thaw.report import narrative, statistics
from thaw.report.results import Results
from thaw.study.study import Job

pytestmark = pytest.mark.usefixtures("quick_corrections")


def plain(text: str) -> str:
    return text.replace("*", "")


def in_short(results: Results) -> str:
    return narrative.in_short(results)


def test_which_network_is_better():
    for of_resnet50, words in (
        (0.9, "ResNet50 is more accurate than MobileNet: +10.0 points"),
        (0.7, "ResNet50 is less accurate than MobileNet: -10.0 points"),
        (0.8, "ResNet50 cannot be told from MobileNet: +0.0 points"),
    ):
        results = invented(lambda b, s, a, c, right=of_resnet50: right if b == "resnet50" else 0.8)
        assert words in narrative.accuracy(results)
        conclusion = plain(narrative.conclusion(results))
        assert words.split(":")[0] in conclusion


def test_whether_blocks_are_better_than_layers():
    for of_blocks, words in (
        (0.9, "are more accurate than"),
        (0.7, "are less accurate than"),
        (0.8, "cannot be told from"),
    ):
        results = invented(lambda b, s, a, c, right=of_blocks: right if s == BLOCKS else 0.8)
        text = narrative.strategies(results)
        assert text.count(f"whole blocks (strategy B) {words} a fixed number of layers (strategy A)") == 2
        conclusion = narrative.conclusion(results)
        assert f"whole blocks {words} a fixed number of layers" in conclusion


def test_whether_unfreezing_beats_training_longer():
    for of_control, words in (
        (0.85, "50% of its gain remains"),
        (0.95, "nothing of its gain remains"),
        (0.7, "all of its gain remains"),
    ):
        results = invented(lambda b, s, a, c, right=of_control: 0.9 if s != FROZEN else right if c else 0.8)
        assert in_short(results).count(words) == 2
        assert narrative.conclusion(results).count(words) == 2
    unsure = invented(lambda b, s, a, c: 0.9 if s != FROZEN else 0.905 if c else 0.8)
    assert "nothing of its gain" not in in_short(unsure), "its interval holds more"
    worse = invented(lambda b, s, a, c: 0.8 if s != FROZEN else 0.9)
    assert "not shown to be a gain" in in_short(worse)
    assert "strategy B is less accurate than the base frozen for as many epochs" in narrative.strategies(worse)


def test_the_best_is_one_where_it_is_told_apart():
    results = invented(lambda b, s, a, c: 0.95 if (s, a) == (BLOCKS, 10) else 0.8)
    text = in_short(results)
    assert text.count("the last 10 blocks: 95.0% of the test photos") == 2
    assert text.count("every other configuration is shown to be worse than some other") == 2
    assert plain(narrative.best(results)).count("the last 10 blocks (95.0%) is best") == 2
    assert narrative.conclusion(results).count("the last 10 blocks; everything else is shown to be worse than") == 2


def test_the_best_is_a_set_and_of_it_the_cheapest_is_chosen_where_nothing_is_told_apart():
    results = invented(flat)
    assert "none of the other 7 configurations is shown to be worse than any other" in in_short(results)
    text = plain(narrative.best(results))
    assert text.count("8 of 8 configurations are not shown to be worse than any other") == 2
    assert (
        text.count("+0.0 points (-0.7 to +0.7) from the base frozen for 20 epochs (p > 0.999); that is not shown") == 2
    )
    assert text.count("The least that is not ruled out is the base frozen for 20 epochs") == 2
    words = narrative.conclusion(results)
    assert words.count("the least that is not ruled out is the base frozen for 20 epochs. The most accurate") == 2
    ahead = invented(lambda b, s, a, c: 0.905 if c else 0.9)
    words = narrative.conclusion(ahead)
    assert words.count("the base frozen for 20 epochs, the most accurate and also the least that is not ruled out") == 2
    assert in_short(ahead).count("it is also the least that is not ruled out") == 2


def test_a_set_of_some_names_those_and_no_others():
    """Blocks are level, all else is worse: the fewest blocks are the choice."""
    results = invented(lambda b, s, a, c: {2: 0.9, 4: 0.91, 10: 0.92}[a] if s == BLOCKS else 0.6)
    paragraph = plain(narrative.best(results)).split("\n\n")[0]
    assert "3 of 8 configurations" in paragraph and "not ruled out is the last 2 blocks" in paragraph
    named = paragraph.split(" From the fewest")[0]
    assert "layers" not in named and "frozen" not in named
    assert "The most accurate is +2.0 points" in paragraph
    assert "Nor is it shown that the two are within 2 points" in paragraph
    equal = invented(lambda b, s, a, c: {2: 0.9, 4: 0.9, 10: 0.901}[a] if s == BLOCKS else 0.6, photos=3000)
    assert "within 2 points of each other is shown" in narrative.best(equal)


def test_what_all_together_show_is_not_lost_where_no_pair_is_told_apart():
    """The smallest part is no choice where all that train more are, taken together, better."""
    results = invented(lambda b, s, a, c: 0.9 if s != FROZEN else 0.87, backbones=("mobilenet",), swap=0.08)
    for backbone in results.backbones:
        assert not results.pairs[backbone]["separated"].any()
        assert results.gains[backbone].iloc[0].sign > 0 >= results.gains[backbone].iloc[-1].sign
        assert results.cheapest(backbone)["label"] == "Strategy A (5 layers)"
    assert "the last of these is not shown to be a gain" in narrative.best(results)


def test_whose_weights_are_not_the_official_ones_is_said_wherever_verdicts_are():
    results = invented(flat)
    run = results.runs[0]
    weights = run.record.weights | {"title": "A copy", "official": False}
    changed = run.model_copy(update={"record": run.record.model_copy(update={"weights": weights})})
    others = [
        r.model_copy(update={"record": r.record.model_copy(update={"weights": weights | {"official": True}})})
        for r in results.runs
        if r.record.experiment.backbone == "mobilenet"
    ]
    results = Results([changed, *others])
    (said,) = narrative.caveats(results)
    assert said.startswith("The weights of ResNet50 are not the official ones: A copy.")
    texts = in_short(results), narrative.conclusion(results)
    assert all(said in html.unescape(text) for text in texts)


def test_how_it_was_measured_is_told_from_the_records():
    text = narrative.method(invented(flat, seeds=2))
    assert "The head alone is trained for 5 epochs" in text and "unfrozen for 15 more" in text
    assert "*frozen, 20 epochs*" in text and "2 seeds" in text and "within 2 points" in text
    assert "are the profile's" in text, "no search"


def test_speed_is_of_the_graph_and_noise_is_named():
    unmeasured = narrative.speed(invented(flat))
    assert "not measured" in unmeasured
    results = invented(flat, latency=lambda b, s, a, c: (20 if b == "resnet50" else 5) * (1.2 if a == 10 else 1))
    text = plain(narrative.speed(results))
    assert "ResNet50 takes 20.0 ms for a single photo" in text and "MobileNet takes 5.0 ms" in text
    assert text.count("a factor of 1.2") == 2
    assert "nearer to `predict()` here" in text
    assert "nearer to the graph" in narrative.speed(invented(flat, latency=lambda *w: 100))


@pytest.mark.parametrize("sign, words", [(1, "is supported"), (-1, "is contradicted")])
def test_overfitting_is_what_the_gap_and_the_loss_say(sign, words):
    def ahead(backbone, strategy, amount, control):
        return 0.5 + 0.4 * SIZES[strategy, amount] / 4000

    sizes = invented(flat, train_accuracy=ahead, validation_loss=lambda *which: 1 + sign * ahead(*which))
    text = narrative.too_few_too_many(sizes)
    assert f"That too many overfit {words}" in text
    level = invented(flat)
    assert "That too many overfit is not decided" in narrative.too_few_too_many(level)


def test_what_so_many_photos_can_show():
    many, few = invented(flat, photos=2000, swap=0.3), invented(flat, photos=100, swap=0.3)
    found = [
        float(re.search(r"true difference of ([\d.]+) points", narrative.power(results))[1]) for results in (many, few)
    ]
    assert found[0] < found[1] / 3
    assert "no difference in 8 of 10 studies, however large" in narrative.power(invented(flat, photos=5))


def test_one_seed_says_what_it_cannot_tell_and_several_say_how_far_they_vary():
    assert "run with one seed" in narrative.power(invented(flat))
    several = invented(flat, backbones=("mobilenet",), seeds=3, swap=0.3)
    assert re.search(r"run with 3 seeds\. .* standard deviation of \d\.\d points", narrative.power(several))
    assert "bootstrap over photos and seeds" in {p.test for p in several.pairs["mobilenet"]["difference"]}


def test_unequal_seeds_are_said_and_what_one_cannot_tell():
    results = invented(flat, seeds=3, swap=0.3)
    runs = [r for r in results.runs if r.record.experiment.backbone == "mobilenet" or r.record.experiment.seed == 0]
    text = narrative.power(Results(runs))
    assert "run with 1 seed (ResNet50), 3 seeds (MobileNet)" in text
    assert "Those of the 8 with one seed (ResNet50) speak of the choice of test photos alone" in text
    assert "**ResNet50**: two configurations differ" in text and "**MobileNet**: on" in text


def test_on_other_data_the_claims_are_said_to_be_about_tf_flowers():
    results = invented(flat)
    assert "The claims are about" not in narrative.verdicts_in_words(results)
    for run in results.runs:
        run.record.data["dataset"] = "beans"
    assert "The claims are about TF Flowers" in narrative.verdicts_in_words(results)


def test_conclusions_name_the_network_they_are_about():
    results = invented(
        lambda b, s, a, c: 0.9 if b == "resnet50" else 0.8, peak_memory_mb=lambda b, s, a, c: 1.0 + (b == "resnet50")
    )
    assert "MobileNet needs less memory" in narrative.conclusion(results)


def test_the_words_bear_one_network_and_one_configuration():
    results = Results(invented(flat, backbones=("mobilenet",)).runs[:1])
    assert "the only configuration that was run" in in_short(results)
    texts = [
        function(results)
        for function in (
            narrative.accuracy,
            narrative.method,
            narrative.power,
            narrative.speed,
            narrative.cost,
            narrative.strategies,
            narrative.best,
            narrative.hard_words,
        )
    ]
    texts += [narrative.too_few_too_many(results), narrative.conclusion(results)]
    assert all(text and "nan" not in text for text in texts)


accuracies = st.lists(st.sampled_from([0.5, 0.7, 0.8, 0.82, 0.84, 0.9]), min_size=16, max_size=16)


@settings(max_examples=6, deadline=None)
@given(accuracies, st.sampled_from([30, 200]))
def test_no_word_of_order_and_no_accuracy_that_the_data_do_not_hold(values, photos):
    """Whatever the results are: what is said to be better is, what is said to be told apart is, and every accuracy is one."""
    order = [(backbone, *which) for backbone in ("resnet50", "mobilenet") for which in CONFIGURATIONS]
    table = dict(zip(order, values))
    results = invented(lambda *which: table[which], photos=photos, swap=0.1)
    rows = results.rows
    shares = {f"{value:.1%}" for value in [*rows["test_accuracy"], *rows["test_low"], *rows["test_high"]]}
    of_networks = "\n".join(in_short(results).split("\n")[:2])
    said = set(re.findall(r"[\d.]+%", of_networks + narrative.best(results)))
    assert said <= shares
    for backbone, title in (("resnet50", "ResNet50"), ("mobilenet", "MobileNet")):
        part = results.backbones[backbone]
        (line,) = [line for line in in_short(results).split("\n") if line.startswith(f"- **{title}")]
        top = re.search(r"most accurate with .*?: ([\d.]+)%", line)[1]
        assert top == f"{100 * part['test_accuracy'].max():.1f}"
        apart = re.search(
            r"Of its 28 pairs of configurations, (\w+)", narrative.accuracy(results).split("**" + title)[1]
        )[1]
        assert apart.replace("none", "0") == str(results.pairs[backbone]["separated"].sum())
    effect = narrative.networks_compared(results)
    word = {1: "more accurate", -1: "less accurate", 0: "cannot be told"}[effect.sign]
    assert word in narrative.accuracy(results).split("Configuration by configuration")[1]
    if effect.sign:
        means = rows[~rows["control"]].groupby("backbone")["test_accuracy"].mean()
        assert (means["resnet50"] > means["mobilenet"]) == (effect.sign > 0)
    replication = results.replication
    count = sum(replication.verdicts[claim.id].word == "supported" for claim in replication.stated)
    assert f"{count} {'is' if count == 1 else 'are'} supported" in narrative.verdicts_in_words(results)


def test_the_hardest_photos_are_those_that_most_runs_get_wrong():
    results = invented(lambda b, s, a, c: 0.9 if b == "resnet50" else 0.8, photos=20)
    hard = narrative.hard_photos(results)
    assert hard["key"].tolist() == ["photo-18", "photo-19", "photo-16", "photo-17"]
    assert hard["wrong"].tolist() == [1, 1, 0.5, 0.5] and set(hard["said"]) == {"tulip"}
    runs = [r for r in invented(lambda b, s, a, c: 0.9 if b == "resnet50" else 0.8, 20, seeds=3).runs]
    runs = [r for r in runs if r.record.experiment.backbone == "mobilenet" or r.record.experiment.seed == 0]
    assert narrative.hard_photos(Results(runs))["wrong"].tolist() == [1, 1, 0.5, 0.5], "more seeds are not more weight"
    assert "all 16 runs name 16 rightly and 2 wrongly; on the other 2 they differ" in narrative.hard_words(results)
    assert len(narrative.hard_photos(invented(lambda *which: 1.0))) == 0


def test_the_tables_for_people_who_write_their_own(tmp_path):
    results = invented(flat, seeds=2)
    narrative.write_tables(results, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results.csv", "results.md", "results.tex"]
    runs = pd.read_csv(tmp_path / "results.csv")
    assert len(runs) == len(results.runs) and {"seed", "test_accuracy", "head_seconds"} <= set(runs)
    markdown, latex = ((tmp_path / f"results.{kind}").read_text(encoding="utf-8") for kind in ("md", "tex"))
    assert markdown.count("Strategy B (2 blocks)") == latex.count("Strategy B (2 blocks)") == 2
    assert r"\begin{tabular}" in latex and not re.search(r"(?<!\\)%", latex), "a bare % would be a comment"


def test_costs_are_told_by_phase():
    table = narrative.cost_table(invented(flat))
    assert len(table) == 16 and "GPU MB" not in table
    tuned = table[table["What trains"] == "Strategy A (5 layers)"].iloc[0]
    assert (tuned["Head (s)"], tuned["Unfrozen (s)"], tuned["All (s)"]) == ("2.0", "3.0", "6.0")
    assert "GPU MB" in narrative.cost_table(invented(flat, peak_device_memory_mb=lambda *which: 512.0))


def test_layers_alone_are_compared_with_the_control():
    runs = [run for run in invented(flat).runs if run.record.experiment.strategy in (FROZEN, LAYERS)]
    text = narrative.strategies(Results(runs))
    assert "strategy A cannot be told from the base frozen" in text and "strategy B" not in text
    assert statistics.by_configuration(runs)["control"].sum() == 2


def test_what_is_missing_is_said_with_its_reason_and_shown_in_the_table():
    whole = invented(flat)
    assert narrative.missing(whole) == ""
    lost = [run for run in whole.runs if run.record.experiment.label == "Strategy B (4 blocks)"]
    jobs = [Job(f"job-{i}", f"config-{i}", run.record.experiment, Path("x")) for i, run in enumerate(lost)]
    reasons = dict(zip(jobs, ["diverged: after epoch 3", "its *kernel* died\nand more"]))
    rest = [run for run in whole.runs if run not in lost]
    results = Results(rest, None, whole.margin, whole.planned, reasons, claims=whole.claims)
    text = narrative.missing(results)
    assert "**2 of the 16 experiments have no figures**, and are in no mean" in text
    assert "config-0, seed 0" in html.unescape(text) and "*kernel*" not in text and "and more" not in text
    frame, is_original = narrative.table(results)
    shown = frame["What trains"].tolist()
    assert "Strategy B (4 blocks): diverged" in shown and "Strategy B (4 blocks): not finished" in shown
    assert len(frame) == len(is_original) and "Strategy B (4 blocks)" not in shown
