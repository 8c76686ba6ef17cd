"""The committed study: its page, paper, tables, answer and README say the same, and its links lead somewhere."""

import json
import re
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pandas as pd
import pypdfium2
import pytest
from bs4 import BeautifulSoup
from conftest import ROOT

from thaw.report import words
from thaw.report.results import Results
from thaw.study.study import Study

PAPER = ROOT / "outputs" / "paper"
ORIGINAL = ROOT / "params" / "original" / "results.csv"
ACCURACY = re.compile(r"\d+\.\d%? \(\d+\.\d to \d+\.\d\)")


@cache
def page() -> BeautifulSoup:
    return BeautifulSoup((PAPER / "report.html").read_text(encoding="utf-8"), "html.parser")


def flat(text: str) -> str:
    return " ".join(text.split())


@cache
def texts() -> dict[str, str]:
    """The report as text, by where it is."""
    document = pypdfium2.PdfDocument(PAPER / "report.pdf")
    sheets = [sheet.get_textpage().get_text_range() for sheet in document]
    head = sheets[1].splitlines()[0]  # above each page but the first; below each stands its number
    paper = "\n".join(re.sub(r"\d+ / \d+$", "", sheet.removeprefix(head)) for sheet in sheets)
    return {"page": flat(page().select_one("main").get_text(" ")), "paper": flat(paper)}


@cache
def answer() -> dict:
    return json.loads((PAPER / "answer.json").read_text(encoding="utf-8"))


@cache
def readme() -> str:
    """What README says of the study."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return text[text.index("## The answer for flowers") : text.index("## Why it is fast")]


def markdown_table(text: str) -> pd.DataFrame:
    """Read the one table of a Markdown text."""
    lines = re.findall(r"^\|.*\|$", text, re.MULTILINE)
    head, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    return pd.DataFrame(rows, columns=head)


@cache
def rows() -> pd.DataFrame:
    """A row a configuration: its network's title and label, and the means of the figures of its runs."""
    runs = pd.read_csv(PAPER / "results.csv")
    titles = {network["network"]: network["title"] for network in answer()["networks"]}
    names = ["test_accuracy", "training_seconds", "validation_accuracy", "validation_loss", "latency"]
    names += ["trainable_parameters", "fold"]
    found = runs.groupby(["backbone", "label"], sort=False)[names].agg(["mean", "count"])
    means = found.xs("mean", axis=1, level=1).assign(folds=found["fold", "count"]).reset_index()
    return means.assign(title=means["backbone"].map(titles))


def of_page() -> pd.DataFrame:
    """The page's table of results, a row a configuration."""
    (table,) = [each for each in page().select("main table") if "Test acc. (95%)" in each.get_text()]
    cells = [[flat(cell.get_text(" ")) for cell in row.select("th, td")] for row in table.select("tr")]
    return pd.DataFrame(cells[1:], columns=cells[0])


def of_readme() -> dict[tuple[str, str], tuple[str, str]]:
    """README's table: accuracy with interval, and the original's, by network and label."""
    table = markdown_table(readme())
    found = {}
    for column in range(1, table.shape[1], 2):
        title = table.columns[column].partition(",")[0]
        found |= {(title, row.iloc[0]): (row.iloc[column], row.iloc[column + 1]) for _, row in table.iterrows()}
    return found


def test_the_table_has_the_same_figures_in_all_files():
    shown, md = of_page(), markdown_table((PAPER / "results.md").read_text(encoding="utf-8"))
    assert len(shown) == len(md) == len(rows()) == len(of_readme())
    for (_, row), (_, cells), (_, lines) in zip(rows().iterrows(), shown.iterrows(), md.iterrows(), strict=True):
        label = cells["What trains"]
        assert (cells["Network"], label.removesuffix(" (control)")) == (row["title"], row["label"])
        tested = cells["Test acc. (95%)"]
        assert ACCURACY.fullmatch(tested) and tested.startswith(words.percent(row["test_accuracy"]))
        assert of_readme()[row["title"], label][0] == tested.replace("%", "")
        assert cells["Parameters"] == words.number(row["trainable_parameters"])
        assert cells["Training (min)"] == f"{row['training_seconds'] / 60:.2f}"
        assert cells["ms a photo"] == f"{row['latency']:.1f}"
        assert cells["Valid. acc."] == words.percent(row["validation_accuracy"])
        assert cells["Valid. loss"] == f"{row['validation_loss']:.3f}"
        assert {name: cells[name] for name in md.columns} == dict(lines)
        assert f"{row['title']}, {row['label']}: {tested}" in texts()["page"], "in the figure, under the pointer"
        line = [cells[name] for name in shown.columns if name != "The original"]
        assert re.search(r" (\S+ )?".join(map(re.escape, line)).replace(r"\ ", " "), texts()["paper"]), line


def test_the_original_s_figures_in_readme_are_its_own():
    theirs = pd.read_csv(ORIGINAL)
    titles = dict(zip(rows()["backbone"], rows()["title"]))
    names = {"frozen": "Frozen, 5 epochs", "layers": "Strategy A ({} layers)", "blocks": "Strategy B ({} blocks)"}
    said = {key: cells[1] for key, cells in of_readme().items() if cells[1] != "–"}
    assert said == {
        (titles[row.backbone], names[row.strategy].format(row.amount)): f"{row.test_accuracy:.1%}".removesuffix("%")
        for row in theirs.itertuples()
    }


@pytest.mark.parametrize("where", ["page", "paper"])
def test_the_answer_for_programs_is_that_of_the_report(where):
    text = texts()[where]
    for network in answer()["networks"]:
        for row in (network["recommended"], network["most_accurate"]):
            mine = rows()[(rows()["backbone"] == network["network"]) & (rows()["label"] == row["label"])].iloc[0]
            for name in ("accuracy", "training_seconds", "trainable_parameters"):
                assert row[name] == pytest.approx(mine[name.replace("accuracy", "test_accuracy")])
            assert f"{row['accuracy']:.1%} ({100 * row['low']:.1f} to {100 * row['high']:.1f})" in text
        row = network["recommended"]
        accuracy, low, high = (words.percent(row[name]) for name in ("accuracy", "low", "high"))
        assert re.search(rf"{network['title']}:.{{,80}} {accuracy} of the photos .{{,60}} \({low} to {high}\)", text)
        assert re.search(rf"{network['title']} takes {network['milliseconds_a_photo']:.1f} ms", text)
        apart = network["most_accurate_less_recommended"]
        assert f"{apart['points']:+.1f} points ({apart['low']:+.1f} to {apart['high']:+.1f})" in text
    assert sum(answer()["claims"].values()) - answer()["claims"]["standing"] == 19


def test_what_readme_says_in_words_is_in_the_report():
    claims, said = answer()["claims"], flat(readme())
    assert (
        f"of its 19 claims {claims['holds']} hold and {claims['refuted']} are refuted, in "
        f"{claims['no difference that matters']} there is no difference that matters, {claims['impossible']} are "
        f"impossible, and {claims['too close to call']} are too close to call" in said
    )
    runs = pd.read_csv(PAPER / "results.csv")
    spent = [json.loads(path.read_text(encoding="utf-8")) for path in PAPER.glob("runs/*/record.json")]
    spent = [fold["training_seconds"] for record in spent for fold in record["folds"]]  # those in float32, too
    shared = {seconds["activations"] for seconds in spent}  # computed once for all runs of a network and precision
    hours = (sum(shared) + sum(seconds["head"] + seconds["finetune"] for seconds in spent)) / 3600
    assert f"{hours:.1f} core-hours of training" in texts()["page"]
    assert f"These {len(runs)} trainings, and 8 of them once more in float32, took {hours:.1f} core-hours" in said
    for title, folds in rows().groupby("title")["folds"].first().items():
        assert re.search(rf"\*\*{title}\*\* \({folds} folds, {folds * 367:,} test photos[,)]", said)
    effects = re.findall(r"([+-]?[\d.]+) points(?: \(|, )([+-]?[\d.]+) to ([+-]?[\d.]+)", said)
    assert len(effects) >= 3
    for values in effects:
        mean, low, high = (f"{float(value):+.1f}" for value in values)
        assert f"{mean} points ({low} to {high})" in texts()["page"], values
    for network in answer()["networks"]:
        last = {
            "Strategy A": "The last {} layers",
            "Strategy B": "the last {} blocks",
            "Frozen,": "frozen for {} epochs",
        }
        way, amount = re.fullmatch(r"(\D+) \(?(\d+).*", network["recommended"]["label"]).groups()
        assert last[way].format(amount) in said.partition(f"**{network['title']}**")[2].partition("**")[0]


def dead_links(html: Path) -> list[str]:
    """List the relative links of a page that lead to no file, and those to no place in it."""
    soup = BeautifulSoup(html.read_text(encoding="utf-8"), "html.parser")
    places = {element["id"] for element in soup.select("[id]")}
    dead = []
    for link in soup.select("a[href]"):
        parts = urlsplit(link["href"])
        if parts.scheme:
            continue
        found = (html.parent / unquote(parts.path)).exists() if parts.path else unquote(parts.fragment) in places
        if not found:
            dead.append(link["href"])
    return dead


def test_every_link_of_the_report_leads_somewhere():
    assert dead_links(PAPER / "report.html") == []
    files = [urlsplit(link["href"]).path for link in page().select("a[href]")]
    for name in ("experiment.ipynb", "record.json", "history.csv", "predictions.csv"):
        assert {path for path in files if path.endswith(f"/{name}")} == {
            f"runs/{folder.name}/{name}" for folder in (PAPER / "runs").iterdir()
        }


def test_what_is_said_of_the_solar_cells_is_what_was_found():
    folder = ROOT / "outputs" / "solar-cells"
    text = (ROOT / "docs" / "your-photos.md").read_text(encoding="utf-8")
    said = flat(text[text.index("## An example: solar cells") : text.index("## How many photos")])
    (network,) = json.loads((folder / "answer.json").read_text(encoding="utf-8"))["networks"]
    choice, runs = network["recommended"], pd.read_csv(folder / "results.csv")
    assert choice["configuration"] == "mobilenet-frozen-long" and "train only the new last layer of MobileNet" in said
    for name in ("accuracy", "low", "high"):
        assert words.percent(choice[name]).removesuffix("%") in said
    assert f"after {choice['training_seconds']:.0f} seconds of training" in said
    every = runs[runs["label"] == "All layers"]
    assert f"all layers gives {every['test_accuracy'].mean():.1%} and takes six minutes" in said
    assert every["training_seconds"].mean() / 60 == pytest.approx(6, abs=0.1)
    report = BeautifulSoup((folder / "report.html").read_text(encoding="utf-8"), "html.parser")
    report = flat(report.select_one("main").get_text(" "))
    assert "-1.5 points (-3.5 to +0.4)" in said and "-1.5 points (-3.5 to +0.4) in MobileNet: too close" in report
    assert "865 cells look nearly like" in said and "865 photos nearly as in another fold" in report
    assert dead_links(folder / "report.html") == []


def test_what_is_said_of_the_catalogue_is_what_was_found():
    text = (ROOT / "docs" / "strategies.md").read_text(encoding="utf-8")
    text = text[text.index("## What is often said") : text.index("## Details")]
    replication = Results.of(Study.load("catalogue")).replication
    claims = {claim.words: replication.verdicts[claim.id] for claim in replication.claims.claims}
    table = markdown_table(text).set_index("what is said")
    assert set(claims) - set(table.index) == {
        "Fine-tuning is more accurate than a base that stays frozen for as many epochs."
    }
    for said, row in table.iterrows():
        assert row["the answer here"] == claims[said].word and claims[said].effect.endswith(row["difference"]), said
    assert replication.verdicts["control"].word == "holds" and "that claim holds" in text
    needed = sorted(float(v.found.split()[0]) for v in claims.values() if v.found)
    assert f"had to be {needed[0]} points at the least, and {needed[-1]} where BatchNorm's statistics stay" in flat(
        text
    )
    assert dead_links(ROOT / "outputs" / "catalogue" / "report.html") == []
