"""Latency of each network of a study, in one process and in turns."""

import pandas as pd
import pytest

from thaw.experiment import Experiment
from thaw.report.results import Results
from thaw.study import latency

TINY = {"strategy": "frozen", "dataset": "demo_flowers", "weights": "none", "image_size": 32, "max_examples": 80}
NETWORKS = ("mobilenet", "resnet50")


@pytest.fixture(scope="module")
def measured() -> pd.DataFrame:
    precisions = "mixed_bfloat16", "float32"
    experiments = [Experiment.of({"backbone": n, "precision": p} | TINY) for n, p in zip(NETWORKS, precisions)]
    return latency.measure(experiments, log=lambda line: None, rounds={1: 6, 4: 2})


def test_every_network_has_every_call_in_every_round(measured):
    counts = measured.groupby(["backbone", "image_size", "precision", "call", "photos"]).size()
    assert len(counts) == len(NETWORKS) * 2 * 2
    assert set(counts.xs(1, level="photos")) == {6}
    assert set(counts.xs(4, level="photos")) == {2}
    assert (measured["milliseconds"] > 0).all()
    assert measured["cores"].nunique() == 1
    assert set(measured["precision"]) == {"float32"}, "as the network is left, whatever it was trained in"


def test_they_take_turns(measured):
    """No network has its calls in a row, and none is always the first."""
    single = measured[measured["photos"] == 1]
    assert single["round"].is_monotonic_increasing
    first = single.groupby("round").head(1)
    assert len(first[["backbone", "call"]].drop_duplicates()) > 1


def test_predict_costs_more_than_the_graph(measured):
    """Keras' loop around each call: what the original's times are mostly made of."""
    medians = measured[measured["photos"] == 1].groupby("call")["milliseconds"].median()
    assert medians["predict"] > 2 * medians["graph"]


@pytest.mark.parametrize("strategy, amount", [("layers", 5), ("frozen", 0)])
def test_results_find_the_calls_of_a_configuration_s_network(measured, strategy, amount):
    results = Results([], latency=measured)
    row = pd.Series({"backbone": "resnet50", "strategy": strategy, "amount": amount, "epochs": 20})
    batch = measured[(measured["backbone"] == "resnet50") & (measured["call"] == "graph") & (measured["photos"] == 4)]
    assert results.calls(row, "graph", 4) == pytest.approx(batch["milliseconds"] / 4)
    assert results.calls(row.replace("resnet50", "another"), "graph", 4) is None
    assert Results([]).calls(row, "graph", 4) is None
