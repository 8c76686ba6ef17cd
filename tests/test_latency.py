"""Latency of all configurations, in one process and in turns."""

import pandas as pd
import pytest
from thaw.experiment import Experiment
from thaw.report.results import Results
from thaw.study import latency

TINY = {"dataset": "demo_flowers", "weights": "none", "image_size": 32, "max_examples": 80}
WHICH = [("mobilenet", "frozen", 0), ("mobilenet", "blocks", 2), ("resnet50", "layers", 5)]


@pytest.fixture(scope="module")
def measured() -> pd.DataFrame:
    experiments = [Experiment.of({"backbone": b, "strategy": s, "amount": a} | TINY) for b, s, a in WHICH]
    return latency.measure(experiments, log=lambda line: None, rounds={1: 6, 4: 2})


def test_every_configuration_has_every_call_in_every_round(measured):
    counts = measured.groupby(["backbone", "strategy", "amount", "call", "photos"]).size()
    assert len(counts) == len(WHICH) * 2 * 2
    assert set(counts.xs(1, level="photos")) == {6} and set(counts.xs(4, level="photos")) == {2}
    assert (measured["milliseconds"] > 0).all() and measured["cores"].nunique() == 1


def test_they_take_turns(measured):
    """No configuration has its calls in a row, and none is always the first."""
    single = measured[measured["photos"] == 1]
    assert single["round"].is_monotonic_increasing
    first = single.groupby("round").head(1)
    assert len(first[["backbone", "strategy", "call"]].drop_duplicates()) > 1


def test_predict_costs_more_than_the_graph(measured):
    """Keras' loop around each call: what the original's times are mostly made of."""
    medians = measured[measured["photos"] == 1].groupby("call")["milliseconds"].median()
    assert medians["predict"] > 2 * medians["graph"]


def test_results_find_a_configuration_s_calls_a_photo(measured):
    results = Results([], latency=measured)
    row = pd.Series({"backbone": "resnet50", "strategy": "layers", "amount": 5, "epochs": 20})
    batch = measured[(measured["backbone"] == "resnet50") & (measured["call"] == "graph") & (measured["photos"] == 4)]
    assert results.calls(row, "graph", 4) == pytest.approx(batch["milliseconds"] / 4)
    assert results.calls(row.replace(5, 6), "graph", 4) is None
    assert Results([]).calls(row, "graph", 4) is None
