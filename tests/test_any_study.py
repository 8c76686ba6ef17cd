"""Words, verdicts and figures of studies that are small, unfinished or one-sided: none fails, none says nan."""

import re

import pytest
from invented import FROZEN, flat, invented
from test_words import SECTIONS

from thaw.report import figures, tables
from thaw.report.answer import Answer
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
    answer = Answer(results)
    texts = [answer.write(section) for section in SECTIONS if section != "missing"]
    frames = [tables.configurations(results)[0], tables.costs(results), tables.provenance(answer)]
    if results.replication:
        frames.append(results.replication.claims_table())
        texts.append(answer.write("replication"))
    for text in [*texts, *(frame.to_string() for frame in frames)]:
        assert text
        assert not re.search(r"\b(nan|inf)\b", text, re.IGNORECASE)
    shown = [
        figures.accuracy_by_parameters(results),
        figures.training_time(results),
        figures.accuracy_by_cost(results),
        figures.gap(results),
    ]
    if results.latency is not None:
        shown.append(figures.latencies(results))
    if any(len(pairs) for pairs in results.pairs.values()):
        shown.append(figures.differences(results))
    assert all(figure.axes for figure in shown)
