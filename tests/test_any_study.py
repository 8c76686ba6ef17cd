"""Words, verdicts and figures of studies that are small, unfinished or one-sided: none fails, none says nan."""

import re

import pytest
from invented import FROZEN, flat, invented
from thaw.report import figures, narrative
from thaw.report.results import Results

pytestmark = [pytest.mark.usefixtures("quick_corrections"), pytest.mark.filterwarnings("error")]


def part(keep, seeds: int = 1) -> Results:
    """Of a study the runs for whose experiments `keep` is true."""
    whole = invented(flat, photos=40, seeds=seeds, swap=0.2, latency=lambda *which: 10.0)
    runs = [run for run in whole.runs if keep(run.record.experiment)]
    return Results(runs, whole.latency, whole.margin, whole.planned, claims=whole.claims)


STUDIES = {
    "all right": lambda: invented(lambda *which: 1.0, latency=lambda *which: 10.0),
    "all wrong": lambda: invented(lambda *which: 0.0),
    "one photo": lambda: invented(flat, photos=1),
    "five photos": lambda: invented(flat, photos=5, swap=0.5),
    "one seed of the one, three of the other": lambda: part(lambda e: e.seed == 0 or e.backbone == "mobilenet", 3),
    "no seed in common": lambda: part(lambda e: (e.seed == 1) == (e.backbone == "resnet50"), 2),
    "some seeds missing": lambda: part(lambda e: not (e.seed == 1 and e.amount == 10), 2),
    "no control": lambda: part(lambda e: not e.control),
    "no frozen base": lambda: part(lambda e: e.strategy != FROZEN),
    "frozen bases alone": lambda: part(lambda e: e.strategy == FROZEN),
    "one network": lambda: part(lambda e: e.backbone == "mobilenet"),
    "one configuration": lambda: part(lambda e: e.backbone == "mobilenet" and e.amount == 4, 2),
    "one run": lambda: part(lambda e: e.backbone == "mobilenet" and e.amount == 4),
    "no claims": lambda: Results(invented(flat).runs),
}


@pytest.mark.parametrize("name", STUDIES)
def test_any_study_has_its_report(name):
    results = STUDIES[name]()
    original = results.replication.original if results.replication else None
    words = [
        write(results)
        for write in (
            narrative.method,
            narrative.power,
            narrative.accuracy,
            narrative.speed,
            narrative.cost,
            narrative.strategies,
            narrative.best,
            narrative.hard_words,
        )
    ]
    words += [narrative.too_few_too_many(results), narrative.conclusion(results)]
    words += [narrative.in_short(results)]
    tables = [narrative.table(results)[0], narrative.cost_table(results)]
    if results.replication:
        tables.append(results.replication.claims_table())
        words.append(narrative.verdicts_in_words(results))
    for text in [*words, *(table.to_string() for table in tables)]:
        assert text and not re.search(r"\b(nan|inf)\b", text, re.IGNORECASE)
    rows = results.rows
    shown = [
        figures.accuracy_by_parameters(rows, original),
        figures.training_time(rows),
        figures.accuracy_by_cost(rows),
        figures.gap(rows, results.overfitting),
    ]
    if results.latency is not None:
        shown.append(figures.latencies(rows, results.calls, original))
    if any(len(pairs) for pairs in results.pairs.values()):
        shown.append(figures.differences(rows, results.pairs))
    assert all(figure.axes for figure in shown)
