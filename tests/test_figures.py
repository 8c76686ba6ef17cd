"""Figures show what they are given: every configuration, its interval, and what is told apart."""

import numpy as np
import pytest
from invented import BLOCKS, flat, invented
from matplotlib.patches import Rectangle
from thaw.report import figures

pytestmark = pytest.mark.usefixtures("quick_corrections")


def texts(figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def test_the_front_holds_what_nothing_beats_in_both():
    costs, values = np.array([1, 2, 3, 4, 4]), np.array([0.5, 0.7, 0.6, 0.7, 0.9])
    assert figures._pareto(costs, values) == [0, 1, 4]
    for position in set(range(5)) - {0, 1, 4}:
        assert any(
            costs[other] <= costs[position] and values[other] >= values[position]
            for other in range(5)
            if other != position
        )


def test_what_is_told_apart_is_framed_and_nothing_else():
    results = invented(lambda b, s, a, c: 0.9 if b == "resnet50" and (s, a) == (BLOCKS, 10) else 0.7)
    figure = figures.differences(results.rows, results.pairs)
    frames = [
        sum(isinstance(patch, Rectangle) and not patch.get_fill() for patch in axes.patches) for axes in figure.axes
    ]
    assert frames == [7, 0]
    assert texts(figure).count("+20.0") == 7 and texts(figure).count("+0.0") == 2 * 28 - 7


@pytest.mark.parametrize("latency", [None, lambda b, s, a, c: 10.0])
def test_accuracy_by_cost_has_a_panel_for_each_cost_that_was_measured(latency):
    figure = figures.accuracy_by_cost(invented(flat, latency=latency).rows)
    assert len(figure.axes) == (1 if latency is None else 2)


def test_latencies_are_a_box_a_configuration_and_call_with_the_original_s_marks():
    results = invented(flat, latency=lambda b, s, a, c: 10.0)
    figure = figures.latencies(results.rows, results.calls, results.replication.original)
    assert len(figure.axes) == 8
    assert all(len(axes.patches) == 8 for axes in figure.axes)
    hollow = [line for axes in figure.axes for line in axes.lines if line.get_markerfacecolor() == "none"]
    assert len(hollow) == 14, "one for each row of the original's table"


def test_every_accuracy_has_its_interval():
    results = invented(flat)
    for figure in (
        figures.accuracy_by_parameters(results.rows, None),
        figures.gap(results.rows, results.overfitting),
        figures.accuracy_by_cost(results.rows),
    ):
        bars = [c for axes in figure.axes for c in axes.containers]
        assert len(bars) >= len(results.rows)


def test_the_time_of_training_is_stacked_by_phase():
    rows = invented(flat).rows
    figure = figures.training_time(rows)
    ends = [max(patch.get_x() + patch.get_width() for patch in axes.patches) for axes in figure.axes]
    assert ends == pytest.approx([6.0, 6.0])


def test_a_pair_of_curves_a_seed():
    results = invented(flat, seeds=3)
    row = results.rows.iloc[0]
    figure = figures.learning_curves({row["label"]: [run.history for run in results.of_row(row)]}, "resnet50")
    assert len(figure.axes[0].lines) == 2 * 3
