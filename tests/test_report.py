"""The exported report: every word of it there, literally, and inside the page."""

import re
from html import escape
from types import SimpleNamespace

import matplotlib.pyplot as plt
import nbformat
import nbformat.v4 as v4
import numpy as np
import pandas as pd
import pypdfium2
import pytest
from browser import assert_clean, chromium, has_chromium
from bs4 import BeautifulSoup
from conftest import ROOT

from thaw.errors import ReportError
from thaw.report.display import Box, Figure, Table, TitlePage
from thaw.report.export import export_html, export_pdf

NASTY = (
    "<script>alert(1)</script> *a* _b_ **c** |d| `e` $f$ #g @h [x](y) ![i](j) \\k \\\\ \"l\" 'm' {n} ~o~ ^p^ "
    "<!-- q --> &amp; ::: 1. -- ... -5 // /* */ :smile: https://example.com <br> é → ± ≤ Δ “q” =r= #let(s)\nsecond line"
)
LONG = "unbreakable" * 8
ROWS, COLUMNS = 32, 10


def displayed(*shown, **metadata) -> nbformat.NotebookNode:
    """A code cell that has run and displayed these objects, or printed these outputs."""
    outputs = [
        output if "output_type" in output else v4.new_output("display_data", data=output)
        for output in (one if isinstance(one, dict) else one._repr_mimebundle_() for one in shown)
    ]
    return v4.new_code_cell("secret_code()", outputs=outputs, execution_count=1, metadata=metadata)


def saved(path, *cells):
    nbformat.write(v4.new_notebook(cells=list(cells)), path)
    return path


def plot(width: float, height: float, photo: bool = False) -> plt.Figure:
    figure, axes = plt.subplots(figsize=(width, height))
    if photo:
        axes.imshow(np.arange(64).reshape(8, 8))
    else:
        axes.plot([1, 2, 3])
    return figure


def wide() -> Table:
    """The largest table of a study: ten columns."""
    names = ["Network", "Trained", "Trainable parameters", "Training accuracy (%)", "Validation accuracy (%)"]
    names += ["Test accuracy (%)", "Test loss", "Inference (ms/photo)", "Training time (s)", "Peak memory (MB)"]
    rows = [
        ["MobileNet" if row % 2 else "original", f"last {row} layers of the network", f"{23_587_712 + row:,}"]
        + [f"{80 + row / 10 + column:.1f} [78.2, 9{row % 10}.4]" for column in range(3)]
        + [f"0.{row:03}", "–" if row % 2 else f"{row}.5", f"{1000 + row}", f"{2000 + row}"]
        for row in range(ROWS)
    ]
    return Table(pd.DataFrame(rows, columns=names), "Every run.", ("Wilson intervals.",))


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A report with all that can be in one, exported both ways."""
    folder = tmp_path_factory.mktemp("report")
    title = TitlePage("How much to unfreeze?", NASTY, NASTY)
    box = Box("What to do", {"Weights": "0123456789abcdef" * 4, NASTY: NASTY})
    nasty = pd.DataFrame({"#1 *n*|_m_": [NASTY, LONG], "$n$": ["1e-05", "–"]})
    words = pd.DataFrame(
        [["unbreakable_configuration"] * COLUMNS],
        columns=[f"{column}_of_trainable_parameters" for column in range(COLUMNS)],
    )
    tables = [wide(), Table(nasty, NASTY, (NASTY,)), Table(words, "Long words.")]
    figures = [
        Figure(plot(6, 3), "Lines.", "A line that rises."),
        Figure(plot(4, 3, photo=True), NASTY, NASTY),
        Figure(plot(12, 30), "Too tall.", "Tall."),
        Figure(plot(30, 3), "Too wide.", "Wide."),
    ]
    prose = "## Method\n\nThe **best** is `blocks-4`, see [below](#Results) or [nowhere](#nope). "
    prose += 'It costs $5 to $6 @home -- "so".\n- one\n- two'
    notebook = saved(
        folder / "summary.ipynb",
        v4.new_markdown_cell("# Not in the report", metadata={"tags": ["remove"]}),
        displayed({"text/plain": "removed output"}, tags=["remove"]),
        displayed(title, box),
        v4.new_markdown_cell(prose),
        v4.new_markdown_cell(f"## Results\n\nA path `{'a_long_path/' * 20}` and {LONG * 3}."),
        displayed(v4.new_output("stream", name="stderr", text="a warning"), *tables),
        displayed(*figures),
        displayed({"text/markdown": "## Words\n\nA claim is *supported*.", "text/plain": "<Markdown>"}),
        displayed(v4.new_output("stream", name="stdout", text=f"printed ``` # text {'wide ' * 60}")),
    )
    export_html(notebook, folder / "report.html")
    export_pdf(notebook, folder / "report.pdf")
    document = pypdfium2.PdfDocument(folder / "report.pdf")
    pages = [page.get_textpage().get_text_range() for page in document]
    html = (folder / "report.html").read_text(encoding="utf-8")
    return SimpleNamespace(
        folder=folder,
        notebook=notebook,
        html=html,
        soup=BeautifulSoup(html, "html.parser"),
        document=document,
        pages=pages,
        tables=tables,
    )


def squeezed(text: str) -> str:
    """Text without what breaking it into lines adds: white space, hyphens, break marks."""
    return re.sub(r"[\s\u200b\u00ad\ufffe\x02-]", "", text)


def test_every_cell_is_in_both_reports(report):
    pdf = squeezed("".join(report.pages))
    for table, shown in zip(report.tables, report.soup.select(".report-scroll table"), strict=True):
        head, *body = ([cell.get_text(" ") for cell in row.select("th, td")] for row in shown.select("tr"))
        assert head == list(table.frame.columns)
        assert body == [[cell.replace("\n", " ") for cell in row] for row in table.frame.values]
        for text in [*table.frame.columns, *table.frame.values.ravel(), table.caption, *table.notes]:
            assert squeezed(text) in pdf


def test_nothing_in_a_text_is_markup(report):
    literally = NASTY.split("\n")
    where = [
        ".subtitle",
        ".report-box th",
        ".report-box td",
        ".report-warning",
        "figcaption",
        "td",
        ".report-notes",
    ]
    for selector in where:
        assert any(list(tag.stripped_strings) == literally for tag in report.soup.select(selector)), selector
    assert " ".join(literally) in [image["alt"] for image in report.soup.select("img")]
    assert not report.soup.select("main script")
    # Subtitle, a fact's name and value, warning, caption, cell and note of the table, caption of the figure.
    assert squeezed("".join(report.pages)).count(squeezed(NASTY)) == 8


def test_only_prose_and_results_are_shown(report):
    for text in (report.soup.get_text(), "".join(report.pages)):
        for hidden in ("secret_code", "a warning", "Not in the report", "removed output", "<Markdown>"):
            assert hidden not in text
        for shown in ("A claim is supported.", "printed ``` # text", 'It costs $5 to $6 @home -- "so".', "one"):
            assert shown in re.sub(r"\s+", " ", text)


def test_columns_of_numbers_stand_to_the_right(report):
    rows = report.soup.select_one(".report-scroll table").select("tbody tr")
    assert all(["right" in cell["style"] for cell in row.select("td")] == [False] * 2 + [True] * 8 for row in rows)


def test_html_has_a_title_and_a_way_to_each_section(report):
    assert report.soup.html["lang"] == "en"
    assert report.soup.title.string == "How much to unfreeze?"
    links = report.soup.select("nav a")
    assert [link.string for link in links] == ["Method", "Results", "Words"]
    assert all(report.soup.find(id=link["href"][1:]) for link in links)


def test_pdf_keeps_everything_inside_the_page(report):
    for page in report.document:
        width, height = page.get_size()
        assert (round(width), round(height)) == (595, 842)
        text = page.get_textpage()
        boxes = [text.get_rect(index) for index in range(text.count_rects())]
        boxes += [shape.get_bounds() for shape in page.get_objects(max_depth=1)]
        # The side margins are 57 points; punctuation may hang into them by a little.
        assert all(
            left > 53 and right < width - 53 and bottom > 25 and top < height - 25 for left, bottom, right, top in boxes
        )


def test_no_two_letters_overlap(report):
    for page in report.document:
        text = page.get_textpage()
        boxes = [
            text.get_charbox(index)
            for index in range(text.count_chars())
            if text.get_text_range(index, 1).strip(" \r\n\u200b")
        ]
        left, bottom, right, top = np.transpose(boxes)
        wide = np.minimum(right[:, None], right) - np.maximum(left[:, None], left)
        high = np.minimum(top[:, None], top) - np.maximum(bottom[:, None], bottom)
        same = left[:, None] == left  # the letter itself, or the other half of a ligature
        assert not ((wide > 2) & (high > 1) & ~same).any()  # points; kerning overlaps by less


def test_pdf_numbers_captions_and_repeats_the_header_row(report):
    text = " ".join("".join(report.pages).split())
    for caption in (
        "Table 1. Every run.",
        "Table 2. <script>",
        "Figure 1. Lines.",
        "Figure 2. <script>",
        "Figure 4. Too wide.",
    ):
        assert caption in text
    assert "Table 4" not in text
    pages = [page for page in report.pages if "23,587,7" in page]
    assert len(pages) > 1
    assert all("Network" in page and "Trained" in page for page in pages)


def test_pdf_has_a_title_bookmarks_a_running_title_and_page_numbers(report):
    assert report.document.get_metadata_dict()["Title"] == "How much to unfreeze?"
    assert [item.get_title() for item in report.document.get_toc()] == ["Method", "Results", "Words"]
    for number, page in enumerate(report.pages, start=1):
        assert f"{number} / {len(report.pages)}" in page
        assert "How much to unfreeze?" in page


def test_pdf_is_the_same_again(report):
    export_pdf(report.notebook, report.folder / "again.pdf")
    assert (report.folder / "again.pdf").read_bytes() == (report.folder / "report.pdf").read_bytes()


@pytest.mark.parametrize("lines", range(33, 40))
def test_a_heading_and_a_caption_stay_with_their_table(tmp_path, lines):
    before = v4.new_markdown_cell("\n\n".join(["A line."] * lines))
    notebook = saved(tmp_path / "n.ipynb", before, v4.new_markdown_cell("## Heading"), displayed(wide()))
    export_pdf(notebook, tmp_path / "n.pdf")
    pages = [page.get_textpage().get_text_range() for page in pypdfium2.PdfDocument(tmp_path / "n.pdf")]
    first = next(number for number, page in enumerate(pages) if "23,587,712" in page)
    assert "Heading" in pages[first]
    assert "Table 1" in pages[first]


def test_figures_are_vectors_unless_they_hold_photos_and_always_the_same(tmp_path):
    first, second = (Figure(plot(4, 3), "c", "a")._repr_mimebundle_() for _ in range(2))
    assert first == second
    assert "data:image/svg+xml" in first["text/html"]
    photo = Figure(plot(4, 3, photo=True), "c", "a")
    assert "data:image/jpeg" in photo._repr_mimebundle_()["text/html"]
    assert not plt.get_fignums(), "a figure left to pyplot is shown twice"


def test_text_is_escaped_for_jupyterlab_too():
    bundle = Table(pd.DataFrame({"a": [NASTY]}), NASTY)._repr_mimebundle_()
    assert escape(NASTY.split("\n", maxsplit=1)[0]) in bundle["text/html"]
    assert "<script" not in bundle["text/html"]


@pytest.mark.parametrize("export", [export_html, export_pdf])
@pytest.mark.parametrize(
    "cell, message",
    [
        (
            v4.new_code_cell("x", outputs=[v4.new_output("error", ename="KeyError", evalue="'rose'")]),
            "Cell 1 .* KeyError: 'rose'",
        ),
        (v4.new_markdown_cell("![](missing.png)"), "missing.png is not inside the report"),
        (v4.new_markdown_cell("![](https://example.com/a.png)"), "example.com/a.png is not inside the report"),
        (None, "No such file"),
    ],
)
def test_a_failed_export_says_why_and_leaves_the_old_report(tmp_path, export, cell, message):
    notebook = saved(tmp_path / "n.ipynb", cell) if cell else tmp_path / "none.ipynb"
    (tmp_path / "report").write_text("old")
    with pytest.raises(ReportError, match=message):
        export(notebook, tmp_path / "report")
    assert (tmp_path / "report").read_text() == "old"
    assert {path.name for path in tmp_path.iterdir()} <= {"n.ipynb", "report"}


@has_chromium
def test_html_in_a_browser(report):
    with chromium() as browser:
        assert_clean(browser, report.folder / "report.html").pdf(path=report.folder / "print.pdf")
    # The numbers are the style sheet's: only what is printed has them as text.
    pages = pypdfium2.PdfDocument(report.folder / "print.pdf")
    text = " ".join(" ".join(page.get_textpage().get_text_range() for page in pages).split())
    for caption in ("Table 1. Every run.", "Table 2. <script>", "Figure 1. Lines.", "Figure 4. Too wide."):
        assert caption in text


def test_the_committed_report_has_ten_pages_at_most_and_none_more_than_a_third_empty():
    document = pypdfium2.PdfDocument(ROOT / "outputs" / "paper" / "report.pdf")
    assert len(document) <= 10
    assert "Figure 1." in document[0].get_textpage().get_text_range(), "the answer in one picture, on the first page"
    for number, page in enumerate(document, start=1):
        grey = np.asarray(page.render(scale=0.4, grayscale=True).to_pil())
        body = grey[round(0.07 * len(grey)) : round(0.935 * len(grey))]  # between the lines at head and foot
        inked = np.flatnonzero((body < 220).any(axis=1))
        assert inked.size and inked[-1] > 2 / 3 * len(body), f"page {number}"
