"""Text that others have written: it is shown letter by letter, and does nothing."""

import shutil
from types import SimpleNamespace

import nbformat.v4 as v4
import numpy as np
import pandas as pd
import pypdfium2
import pytest
from browser import assert_clean, chromium, has_chromium
from bs4 import BeautifulSoup
from hypothesis import given, settings
from hypothesis import strategies as st
from invented import flat, invented
from IPython.display import Markdown
from papermill.parameterize import parameterize_notebook
from test_lab import lab  # noqa: F401 (a fixture)
from test_report import displayed, saved, squeezed

from thaw.records.record import Activations
from thaw.records.runs import Run
from thaw.report import advice, explore, figures, tables, words
from thaw.report import display as report
from thaw.report.answer import Answer
from thaw.report.display import Box, Figure, Table, TitlePage
from thaw.report.export import export_html, export_pdf
from thaw.report.results import Results

NAMES = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "a|b",
    "**x** _y_ ~~z~~",
    "$x^2$ costs $5",
    r"\(x\) \[y\] \begin{z}",
    "$\\frac{1$",
    "[l](javascript:alert(1))",
    "![i](https://example.com/i.png)",
    "https://example.com/a www.example.com a@example.com",
    '#import "x"; #panic("y")',
    "back`tick ```{=typst} #panic()```",
    "two\nlines\n\n# no heading\n- no item\n::: {.title}",
    r"\input{/etc/passwd} \\ 5 % & ~ ^ _",
    "{{x}} {% raw %}",
    "&lt; &#36; &amp;",
    "ورد بلدي",
    "tulip 🌷 émile",
    "image-of-this-figure",
    "p_label",
    "NA",
]
TITLE, DESCRIPTION = f"T {NAMES[0]} {NAMES[4]}", " ".join(NAMES)


def hostile(names: list[str] = NAMES) -> Results:
    """A study in which every text from outside is hostile."""
    made = invented(flat, photos=4 * len(names), latency=flat, swap=0.1)
    labels = names * 4
    runs = []
    for run in made.runs:
        right = (run.predictions["label"] == run.predictions["predicted"]).to_numpy()
        # The last photos are named wrongly by every run: some must be shown as hard.
        said = [name if ok else labels[number - 1] for number, (name, ok) in enumerate(zip(labels, right))]
        predictions = pd.DataFrame({"key": run.predictions["key"], "label": labels, "predicted": said})
        predictions = predictions.assign(**{f"p_{name}": 1 / len(names) for name in names})
        data = {"title": TITLE, "dataset": NAMES[4], "version": NAMES[5], "description": DESCRIPTION}
        weights = {"title": NAMES[12], "official": False, "description": DESCRIPTION}
        device = run.record.device | {"name": NAMES[1]}
        record = run.record.model_copy(
            update={
                "data": run.record.data | data,
                "weights": run.record.weights | weights,
                "device": device,
                "parameters": run.record.parameters | {"weights": NAMES[8]},
                "versions": {"python": NAMES[9]},
            }
        )
        runs.append(Run(record=record, history=run.history, predictions=predictions))
    return Results(runs, made.latency.assign(device=NAMES[1]), made.margin, len(runs), claims=made.claims)


def prose(text: str) -> dict:
    return {"text/markdown": text, "text/plain": "<Markdown>"}


def cells(results: Results) -> list:
    """What both notebooks show that has text from outside in it."""
    record = results.runs[0].record
    answer = Answer(results)
    hard = answer.hard
    row = results.rows.iloc[0]
    grid = np.zeros((len(NAMES), 8, 8, 3), np.uint8)
    caption = f"Of {TITLE}. {DESCRIPTION}"
    note = Activations(frontier=["pooled"], cached=False, why=DESCRIPTION, megabytes=1.0)
    trained = results.runs[0].model_copy(update={"record": record.model_copy(update={"activations": {"head": note}})})
    return [
        TitlePage(
            "How much?",
            answer.title,
            warning=DESCRIPTION,
        ),
        Box(TITLE, answer.facts(DESCRIPTION)),
        Box(TITLE, advice.box(answer)),
        prose(words.write("weights", network=record.network, weights=record.weights)),
        prose(words.write("data", data=record.data, classes=results.classes)),
        prose(words.write("training", runs=[trained])),
        *(
            prose(answer.write(name))
            for name in (
                "explained",
                "answer",
                "method",
                "networks",
                "speed",
                "conclusion",
            )
        ),
        Table(tables.parameters(record.experiment), caption),
        Table(tables.provenance(answer), caption),
        Table(results.replication.claims_table(), caption, notes=(DESCRIPTION, *answer.caveats)),
        Table(tables.hard(hard), caption),
        Figure(
            figures.photo_grid(grid, figures.photo_titles(NAMES, NAMES[::-1], ["90% sure"] * len(NAMES))),
            caption,
            DESCRIPTION,
        ),
        Figure(
            figures.photo_grid(grid[: len(hard)], figures.photo_titles(hard["label"], hard["said"], hard["key"])),
            caption,
            DESCRIPTION,
        ),
        Figure(figures.confusion({TITLE: results.predictions(row)}, results.classes), caption, DESCRIPTION),
    ]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """All of it in a notebook, exported both ways."""
    folder, results = tmp_path_factory.mktemp("hostile"), hostile()
    notebook = saved(folder / "n.ipynb", *map(displayed, cells(results)))
    export_html(notebook, folder / "n.html")
    export_pdf(notebook, folder / "n.pdf")
    document = pypdfium2.PdfDocument(folder / "n.pdf")
    return SimpleNamespace(
        results=results,
        folder=folder,
        soup=BeautifulSoup((folder / "n.html").read_text(encoding="utf-8"), "html.parser"),
        pdf=squeezed("".join(page.get_textpage().get_text_range() for page in document)),
    )


def assert_harmless(soup: BeautifulSoup) -> None:
    assert not soup.select("main script, main iframe, main object, main [style*=javascript]")
    for element in soup.find_all(True):
        assert not [name for name in element.attrs if name.lower().startswith("on")], element
        for name in ("href", "src"):
            assert element.get(name, "#").startswith(("#", "data:image/")), element
    assert not soup.select("main :is(h2, h3, del, s, code:-soup-contains('tick'), a)")


def test_nothing_in_html_runs_or_leads_anywhere(exported):
    assert_harmless(exported.soup)


def test_the_explorer_shows_it_as_it_was_written(tmp_path, monkeypatch):
    names = [*NAMES, "x" * 3000]
    photos = np.zeros((len(names), 8, 8, 3), np.uint8)
    there = [True]
    monkeypatch.setattr(explore.pictures, "find", lambda record, keys: photos[: len(keys)] if there[0] else None)
    monkeypatch.setattr("thaw.study.looks.looks", lambda model, image: (names[0], 0.5, np.ones((2, 2))))
    chosen = explore.Explorer({NAMES[0]: hostile(names)})
    monkeypatch.setattr(explore.freshness, "model_is_current", lambda study: True)
    shown = []
    for name in names:
        chosen.of_class.value = name
        pair = chosen.value
        assert pair.of_class == name and set(pair.photos["label"]) == {name}
        shown += [pair.in_words(2), pair.said(1)]
        if name == names[0]:
            shown += [pair.picture(1), explore.attention(pair, 1, SimpleNamespace(outputs=tmp_path))]
    chosen.of_class.value = ""
    shown += [chosen.value.confusion(), chosen.value.grid()]
    there[0] = False
    shown.append(chosen.value.grid())
    displays = [prose(one.data) if isinstance(one, Markdown) else one for one in shown]
    export_html(saved(tmp_path / "n.ipynb", *map(displayed, displays)), tmp_path / "n.html")
    soup = BeautifulSoup((tmp_path / "n.html").read_text(encoding="utf-8"), "html.parser")
    assert_harmless(soup)
    assert not soup.select("main .jp-RenderedMarkdown :is(em, img, li)"), "strong is the template's own"
    text = squeezed(soup.select_one("main").get_text())
    for name in names:  # in words, and in the caption and the header of what was said
        assert text.count(squeezed(name)) >= 3, name


@has_chromium
def test_a_browser_runs_none_of_it_and_finds_nothing_to_complain_about(exported):
    with chromium() as browser:
        assert_clean(browser, exported.folder / "n.html")


@pytest.mark.parametrize("name", NAMES)
def test_every_text_is_there_as_it_was_written(exported, name):
    shown = squeezed(exported.soup.select_one("main").get_text())
    # Title page and its warning, weights, why, captions and notes of tables, captions of figures.
    assert shown.count(squeezed(name)) >= 14
    for part in [name] if name.isascii() else name.split():  # words of Arabic stand from right to left
        assert exported.pdf.count(squeezed(part)) >= 14


def test_tables_for_another_text(exported):
    tables.write_tables(exported.results, exported.folder)
    latex = (exported.folder / "results.tex").read_text(encoding="utf-8")
    assert r"T <script>alert(1)</script> \$x\textasciicircum{}2\$ costs \$5" in latex
    shown = BeautifulSoup(report.markdown(TITLE), "html.parser").get_text()
    markdown = (exported.folder / "results.md").read_text(encoding="utf-8")
    assert shown == TITLE
    assert report.markdown(TITLE) in markdown
    assert "<script" not in markdown


def test_latex_specials():
    assert report.latex(r"\input{x} 5 % & # $ _ ~ ^" + "\ny") == (
        r"\textbackslash{}input\{x\} 5 \% \& \# \$ \_ \textasciitilde{} \textasciicircum{} y"
    )


@pytest.mark.parametrize("name", [*NAMES, "\x00\x1b[31m", "\u202eevil", "x" * 5000, "$", r"\$", "", " "], ids=ascii)
def test_a_figure_shows_a_name_and_no_formula(name):
    figure = figures.photo_grid(np.zeros((1, 8, 8, 3), np.uint8), [f"{name}\nsaid"])
    title = figure.axes[0].title
    assert not title._preprocess_math(title.get_text())[1], "a formula"
    rows = pd.DataFrame({"label": [name, "b"], "predicted": ["b", "b"]})
    for made in (figure, figures.confusion({name: rows}, [name, "b"])):
        svg = Figure(made, name, name)._repr_mimebundle_()["text/html"]
        assert svg.startswith("<figure")
    ticks = list(made.axes[0].get_xticklabels() + made.axes[0].get_yticklabels())
    assert not any(label._preprocess_math(label.get_text())[1] for label in ticks)


@given(st.text(max_size=60))
@settings(deadline=None, derandomize=True)
def test_any_text_as_markdown_is_itself(text):
    from nbconvert.filters import markdown2html

    shown = BeautifulSoup(markdown2html(f"a **{report.markdown(text)}** b"), "html.parser")
    assert squeezed(shown.get_text()) in (f"a{squeezed(report.one_line(text))}b", "a****b")
    assert {tag.name for tag in shown.find_all(True)} <= {"p", "strong", "span", "br"}


HARMFUL = st.sampled_from(
    ['"', "'", '"""', "\\", "\n", "\r", "`", "\x00", "\u2028", "#", "{", "}", "$(x)", "\\N{DASH}", "\\x41"]
    + ["__import__('os').system('x')", '"+boom()+"', "'+boom()+'", '\\"+boom()#', "%run x", "!x", "?", "🌷"]
)
WORDS = st.lists(HARMFUL | st.text(max_size=5), max_size=6).map("".join)


@pytest.mark.parametrize(
    "names",
    [("weights", "dataset", "output_dir"), ("profile", "outputs", "reason")],
    ids=("experiment", "summary"),
)
@settings(deadline=None, derandomize=True, max_examples=300)
@given(data=st.data())
def test_papermill_writes_parameters_that_are_just_their_values(names, data):
    given_values = {name: data.draw(WORDS, label=name) for name in names}
    kernel = {"name": "python3", "language": "python", "display_name": "Python"}
    notebook = v4.new_notebook(metadata={"kernelspec": kernel, "papermill": {}})
    notebook.cells.append(v4.new_code_cell("", metadata={"tags": ["parameters"]}))
    made = parameterize_notebook(notebook, given_values)
    cell = next(cell for cell in made.cells if "injected-parameters" in cell.metadata.tags)
    code = compile(cell.source, "cell", "exec")
    assert not {"system", "boom", "__import__"} & set(code.co_names)
    namespace = {"__builtins__": {}}  # in which nothing can be called
    exec(code, namespace)
    assert {name: namespace[name] for name in names} == given_values


@has_chromium
def test_jupyterlab_shows_it_as_it_was_written(lab, exported, tmp_path):  # noqa: F811
    """As nbconvert does; and MathJax, which the report is without, finds no formula in it."""
    shutil.copy(exported.folder / "n.ipynb", tmp_path / "notebooks")
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        asked = []
        page.on("dialog", lambda dialog: (asked.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: asked.append(request.url) if "example.com" in request.url else None)
        page.goto(f"{lab}/lab/tree/notebooks/n.ipynb?reset")
        outputs = page.locator(".jp-OutputArea-output")
        outputs.nth(14).wait_for(state="attached", timeout=60_000)
        page.wait_for_timeout(2000)  # MathJax is fetched when it is wanted
        assert not asked
        assert not page.locator(".jp-OutputArea-output :is(mjx-container, script, a, h2, del, [onerror])").count()
        shown = squeezed(" ".join(outputs.all_text_contents()))
        for name in NAMES:
            assert shown.count(squeezed(name)) >= 14, name
