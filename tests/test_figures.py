"""Figures show what they are given: every configuration, its interval, and what differs clearly; and stay bounded."""

import itertools
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from invented import BLOCKS, FROZEN, flat, invented, of_somebody_else, with_rates
from matplotlib.colors import to_hex, to_rgb

from thaw.report import captions, figures
from thaw.report.answer import Answer
from thaw.report.display import VALUE, Figure
from thaw.report.figures import study, style
from thaw.report.results import Results
from thaw.study.study import Study

pytestmark = pytest.mark.usefixtures("quick_corrections")


def texts(figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def hollow(figure) -> int:
    """How many hollow marks there are."""
    lines = [line for axes in figure.axes for line in axes.lines if line.get_markerfacecolor() == "none"]
    return sum(len(line.get_xdata()) for line in lines)


def test_the_front_holds_what_nothing_beats_in_both():
    costs, values = np.array([1, 2, 3, 4, 4]), np.array([0.5, 0.7, 0.6, 0.7, 0.9])
    assert study._pareto(costs, values) == [0, 1, 4]
    for position in set(range(5)) - {0, 1, 4}:
        assert any(
            costs[other] <= costs[position] and values[other] >= values[position]
            for other in range(5)
            if other != position
        )


@pytest.mark.parametrize("draw", [figures.accuracy_by_parameters, figures.losses])
def test_of_many_configurations_the_ends_the_choice_and_the_most_accurate_are_shown(monkeypatch, draw):
    results = invented(lambda b, s, a, c: {4: 0.95, 10: 0.8}.get(a, 0.7) if s == BLOCKS else 0.7)
    monkeypatch.setattr(study, "MOST", 4)
    monkeypatch.setattr(captions, "MOST", 4)
    drawn = draw(results).axes
    named = [[" ".join(tick.get_text().split("\n")[:-1]) for tick in axes.get_xticklabels()] for axes in drawn]
    (shown,) = {tuple(names) for names in named if names}
    assert len(shown) == 4
    assert {"frozen 5", "B-4", "B-10"} <= set(shown), "that of the fewest parameters, the best, that of the most"
    answer = Answer(results)
    for caption in (captions.accuracy(answer), captions.losses(answer)):
        assert "(8 of ResNet50, 8 of MobileNet) 4 are shown" in caption


def test_networks_have_their_colours_in_the_order_of_the_study():
    assert list(style.colours(["b", "a"]).values()) == style.PALETTE[:2]
    assert len(set(style.colours(map(str, range(40))).values())) == 40, "more networks than colours in the palette"


def test_every_accuracy_has_its_interval_and_the_original_s_value():
    results = invented(flat)
    for figure in (figures.accuracy_by_parameters(results), figures.losses(results), figures.accuracy_by_cost(results)):
        assert len([c for axes in figure.axes for c in axes.containers]) >= len(results.rows)
    assert hollow(figures.accuracy_by_parameters(results)) == 14
    assert hollow(figures.accuracy_by_parameters(Results(results.runs))) == 0


def luminance(colour: np.ndarray) -> float:
    """As WCAG 2.2 defines it."""
    return float(
        np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4) @ (0.2126, 0.7152, 0.0722)
    )


def contrast(first: np.ndarray, second: np.ndarray) -> float:
    darker, lighter = sorted(map(luminance, (first, second)))
    return (lighter + 0.05) / (darker + 0.05)


def test_colours_stand_out_on_white_and_on_the_dark_page():
    css = (Path(study.__file__).parent.parent / "template" / "report.css").read_text()
    assert "filter: invert(1) hue-rotate(180deg); mix-blend-mode: screen;" in css
    paper = np.array(to_rgb(re.findall("--paper: (#[0-9a-f]+)", css)[1]))
    turned = np.array([[-0.574, 1.43, 0.144], [0.426, 0.43, 0.144], [0.426, 1.43, -0.856]])  # hues by 180 degrees
    for colour in (*style.PALETTE, style.FROZEN, style.UNFROZEN, *style.colours(map(str, range(30))).values()):
        colour = np.array(to_rgb(colour))
        assert contrast(colour, np.ones(3)) >= 3
        dark = np.clip(turned @ (1 - colour), 0, 1)
        assert contrast(1 - (1 - dark) * (1 - paper), paper) >= 3


def said(figure) -> list[str]:
    """What the marks of a figure say, each text once."""
    gids = [artist.get_gid() for artist in figure.findobj(lambda artist: artist.get_gid())]
    return list(dict.fromkeys(gid.removeprefix(VALUE) for gid in gids if gid.startswith(VALUE)))


def test_every_mark_says_its_value():
    results = invented(lambda b, s, a, c: 0.9 if b == "resnet50" and (s, a) == (BLOCKS, 10) else 0.7)
    values = said(figures.accuracy_by_parameters(results))
    assert [text for text in values if text.startswith("ResNet50, Strategy B (10 blocks): 90.0% (86.")]
    assert len([text for text in values if "in the original" in text]) == 14
    assert len(said(figures.accuracy_by_cost(results))) == 16
    assert len([text for text in said(figures.losses(results)) if "test loss" in text]) >= 8
    assert any(text.startswith("validation loss: ") for text in said(figures.learning_curves(results)))
    pairs = said(figures.confusion({"run": predicted(40)}, [f"c{i}" for i in range(40)]))
    assert pairs[0] == "c0 → c1: 100 photos"
    cells = said(figures.confusion({"run": predicted(4)}, [f"c{i}" for i in range(4)]))
    assert len(cells) == 16
    assert "c0, predicted c1: 1000 photos" in [text.replace(",0", "0") for text in cells]


def test_a_pair_of_curves_a_seed_of_what_trains_least_and_most_and_of_the_best():
    results = invented(lambda b, s, a, c: 0.93 if s != FROZEN else 0.6, seeds=3)
    figure = figures.learning_curves(results)
    titles = [axes.get_title().split("\n")[-1] for axes in figure.axes]
    assert titles == 2 * ["Frozen, 5 epochs", "Strategy A (5 layers)", "Strategy B (10 blocks)"]
    assert [axes.get_title().split("\n")[0] for axes in figure.axes] == 3 * ["ResNet50"] + 3 * ["MobileNet"]
    colours = {line.get_color() for line in figure.axes[0].lines}
    assert len(colours) == 3, "each seed has its shade"
    assert all(len(axes.lines) == 2 * 3 for axes in figure.axes)
    assert re.match(
        r"Of these, the validation loss ends lowest with .* \(ResNet50\), .* \(MobileNet\)",
        figure.get_suptitle().replace("\n", " "),
    )


def test_folds_have_faint_curves_and_their_mean_and_are_points_beside_their_accuracy():
    results = invented(flat, photos=60, folds=4, swap=0.1)
    figure = figures.learning_curves(results)
    assert all(len(axes.lines) == 2 * (4 + 1) for axes in figure.axes if axes.axison)
    singles = [line for axes in figures.accuracy_by_parameters(results).axes for line in axes.lines]
    singles = [line for line in singles if line.get_markersize() < 3]
    assert len(singles) == 4 * len(results.rows)
    none = [line for axes in figures.accuracy_by_parameters(invented(flat)).axes for line in axes.lines]
    assert min(line.get_markersize() for line in none) > 3


@pytest.mark.parametrize("more, names", [({"folds": 3}, ["fold 2"]), ({"seeds": 2}, ["seed 0", "seed 1"])])
def test_single_folds_and_seeds_say_their_values(more, names):
    results = invented(flat, photos=90, swap=0.3, **more)
    row = results.rows.iloc[0]
    values = said(figures.accuracy_by_parameters(results))
    for run, name in zip(results.of_row(row)[-len(names) :], names):
        assert f"ResNet50, Frozen, 5 epochs, {name}: {run.correct.mean():.1%}" in values
    curves = said(figures.learning_curves(results))
    assert any(text.startswith(f"{names[-1]}: training loss: ") for text in curves)


def test_with_ten_folds_the_marks_are_vectors_and_say_their_values():
    drawn = figures.accuracy_by_parameters(invented(flat, photos=100, folds=10))
    assert len(said(drawn)) > 160
    shown = Figure(drawn, "c", "a")._repr_mimebundle_()["text/html"]
    assert "data:image/svg+xml" in shown and len(shown) < 200_000


def test_rates_are_a_line_a_configuration_with_the_one_taken_marked():
    results = with_rates(invented(flat, photos=60, folds=4), lambda *w: 1e-4, lambda *w: 9.0 if w[2] == 40 else 0.1)
    for axes in figures.rates(results).axes:
        names = [text.get_text() for text in axes.get_legend().get_texts()]
        assert names == ["A-5", "A-10", "B-2", "B-4", "A-40", "B-10", "head alone"]
        assert hollow(SimpleNamespace(axes=[axes])) == 7
        values = [text for text in said(SimpleNamespace(findobj=axes.findobj)) if text.startswith("A-5: ")]
        assert len([text for text in values if "at the rate 0.0003" in text]) == 1 and len(values) == 4
        crosses = [line for line in axes.lines if line.get_marker() == "x"]
        assert sum(len(line.get_xdata()) for line in crosses) == 2, "the two rates at which 40 layers diverge"


def test_the_strip_colours_the_layers_that_train_and_names_blocks_where_they_begin():
    layers = pd.DataFrame({"layer": list("abcd"), "parameters": [1, 2, 3, 4], "block": ["", "x", "x", "y"]})
    top, bottom = figures.strip(layers.assign(trains=[False, False, True, True])).axes
    assert [to_hex(bar.get_facecolor()) for bar in top.patches] == [style.FROZEN] * 2 + [style.UNFROZEN] * 2
    ticks = zip(bottom.get_xticks(), bottom.get_xticklabels())
    assert [(place, label.get_text()) for place, label in ticks] == [(1, "x"), (3, "y")]
    many = pd.DataFrame({"layer": "l", "parameters": 1, "block": [f"b{i}" for i in range(500)], "trains": False})
    assert len(figures.strip(many).axes[1].get_xticks()) <= 24


def test_what_trains_is_a_strip_of_blocks_a_line_for_what_trains_the_same():
    figure = figures.trained(of_somebody_else([9, 9], networks=("efficientnetv2b0",)))
    (axes,) = figure.axes
    frozen, part, trains = (state.get("hatch") or to_hex(state["facecolor"]) for state in study.STATES.values())
    lines = {}
    for bar in axes.patches:
        lines.setdefault(round(bar.get_y()), []).append(
            (bar.get_width(), bar.get_hatch() or to_hex(bar.get_facecolor()))
        )
    assert lines[0] == [(3, frozen), (1, trains)], "the head alone"
    assert [(2, frozen), (2, trains)] in lines.values(), "the last block and the head"
    assert [(3, part), (1, trains)] in lines.values(), "some weights of each block"
    assert "trains in part" in " ".join(said(figure))
    committed = figures.trained(Results.of(Study.load("paper")))
    for axes in committed.axes:
        names = [label.get_text() for label in axes.get_yticklabels()]
        assert names[0] == "frozen 5, frozen 20" and {*names[1:]} == {"A-5", "A-10", "A-40", "B-2", "B-4", "B-10"}
    assert figures.trained(invented(flat)) is None, "records that are older"


def predicted(classes: int, photos: int = 4000) -> pd.DataFrame:
    """Predictions in which class 0 is often taken for class 1, and others at random."""
    labels = np.arange(photos) % classes
    said = np.where(labels == 0, 1, np.where(np.arange(photos) % 7 == 0, (labels + 3) % classes, labels))
    return pd.DataFrame({"label": [f"c{i}" for i in labels], "predicted": [f"c{i}" for i in said]})


def test_few_classes_are_a_matrix_of_counts():
    rows = predicted(5)
    (axes,) = figures.confusion({"run": rows}, [f"c{i}" for i in range(5)]).axes
    assert sum(int(text.get_text()) for text in axes.texts) == len(rows)


@pytest.mark.parametrize("classes", [31, 500])
def test_many_classes_are_the_pairs_confused_most(classes):
    figure = figures.confusion(
        {"one": predicted(classes), "two": predicted(classes)}, [f"c{i}" for i in range(classes)]
    )
    assert len(figure.axes) == 2 and figure.get_size_inches()[1] < 10, "the size is that of the pairs"
    axes = figure.axes[0]
    assert len(axes.patches) == 20
    assert axes.get_yticklabels()[0].get_text() == "c0 → c1"
    rows = predicted(classes)
    assert axes.patches[0].get_width() == ((rows["label"] == "c0") & (rows["predicted"] == "c1")).sum()


def test_no_mistake_at_all_among_many_classes():
    right = predicted(40).assign(predicted=lambda rows: rows["label"])
    assert figures.confusion({"run": right}, [f"c{i}" for i in range(40)]).axes


def test_every_claim_has_a_line_with_its_verdict():
    results = invented(lambda b, s, a, c: 0.9 if b == "resnet50" and s == BLOCKS else 0.8, latency=lambda *which: 10.0)
    replication = results.replication
    figure = figures.claims(replication)
    (axes,) = figure.axes
    assert len(axes.get_yticks()) == len(replication.claims.claims) == 20
    words = [text.get_text().replace("\n", " ").rstrip("*") for text in axes.texts]
    assert all(any(word.startswith(verdict.word) for word in words) for verdict in replication.verdicts.values())
    better = "Unfreezing whole blocks makes ResNet50 better than its frozen base."
    (value,) = [text for text in said(figure) if text.startswith(better)]
    verdict = next(v for c in replication.claims.claims if c.words == better for v in [replication.verdicts[c.id]])
    assert value.split("holds: ")[1] in verdict.effect and "the control" in verdict.effect
    assert "holds" in figure.get_suptitle() or "hold" in figure.get_suptitle()
    drawn = [line for line in axes.lines if line.get_marker() in "oXD"]
    assert {line.get_marker() for line in drawn} >= {"o", "X"}
    theirs = [line for line in axes.lines if line.get_marker() == "|"]
    assert len(theirs) >= 10, "the source's own effects"


def test_verdicts_differ_in_shape_or_filling_not_only_in_colour():
    looks = [(look["marker"], look.get("markerfacecolor")) for look in figures.claims.__globals__["LOOKS"].values()]
    assert len(set(looks)) == len(looks)


def test_the_figure_of_fit_says_which_way_the_loss_goes():
    titles = [axes.get_title() for axes in figures.losses(invented(flat)).axes if axes.get_title()]
    assert titles == [f"{name}\nthe loss shows no clear change from A-5 to B-10" for name in ("ResNet50", "MobileNet")]


@pytest.mark.parametrize("draw", [figures.accuracy_by_parameters, figures.losses, figures.learning_curves])
def test_on_a_phone_panels_stand_below_each_other(draw):
    results = invented(flat)
    wide, phone = Figure(lambda: draw(results), "c", "a").figures
    assert phone.get_figwidth() < wide.get_figwidth() / 2 and phone.get_figheight() > wide.get_figheight()
    columns = [len({axes.get_subplotspec().colspan.start for axes in each.axes}) for each in (wide, phone)]
    assert columns[1] < columns[0]
    assert draw(results).get_figwidth() == wide.get_figwidth(), "and what comes after is wide again"


def test_names_on_the_front_do_not_overlap_and_stay_in_the_frame():
    figure = figures.accuracy_by_cost(invented(lambda b, s, a, c: 0.7 + 0.001 * a))
    figure.draw_without_rendering()
    (axes,) = figure.axes
    boxes = [text.get_window_extent() for text in axes.texts]
    assert len(boxes) > 1
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    frame = axes.get_window_extent()
    assert all(frame.x0 <= box.x0 and box.y1 <= frame.y1 for box in boxes)


def test_claims_of_alikeness_stand_on_the_margin():
    replication = invented(flat).replication
    (axes,) = figures.claims(replication).axes
    grounds = [ground.get_paths()[0].get_extents() for ground in axes.collections if ground.get_alpha() == 0.12]
    assert {(box.x0, box.x1) for box in grounds if box.x0 < 0} == {(-2.0, 2.0)}
    assert all(box.x0 == 0 for box in grounds if box.x0 >= 0) and len(grounds) > 5
