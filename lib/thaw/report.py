"""What a report shows, and its export as one HTML file and as a PDF.

A notebook displays a `TitlePage`, `Table`s and `Figure`s between its prose.
Each carries its HTML, for JupyterLab and the HTML report, and its Markdown,
from which pandoc and Typst make the PDF. How they look in the exported report
is said in ``template/``: ``report.css`` and ``report.typ``.
"""

import base64
import io
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from pathlib import Path

import matplotlib.figure
import matplotlib.pyplot as plt
import nbformat
import pandas as pd
import pypandoc
import typst
from bs4 import BeautifulSoup
from nbconvert import HTMLExporter, MarkdownExporter
from traitlets.config import Config

from thaw.errors import ReportError

_TEMPLATE = Path(__file__).parent / "template"
_IMAGES = ["image/svg+xml", "image/png", "image/jpeg", "text/plain"]
# The Markdown of JupyterLab, without what could turn plain text into markup
# (formulas, citations, typographic quotes), and with the divs of `_div`.
_DIALECT = (
    "commonmark+pipe_tables+strikeout+task_lists+footnotes+autolink_bare_uris"
    "+fenced_divs+bracketed_spans"
)


def _clean(text: object) -> list[str]:
    """The lines of a text, without the control characters that no format can hold."""
    lines = str(text).strip().splitlines()
    return [re.sub(r"[\x00-\x08\x0e-\x1f\x7f-\x9f\ud800-\udfff]", "\ufffd", line) for line in lines]


def _html(text: object) -> str:
    """Text as HTML."""
    return "<br>".join(escape(line) for line in _clean(text))


def _markdown(text: object) -> str:
    """Text as Markdown of one line: every mark that could mean something is escaped."""
    lines = (" ".join(line.split()) for line in _clean(text))
    return "<br>".join(re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", line) for line in lines)


def _div(name: str, *parts: str) -> str:
    """Markdown blocks as a named part of the report (see ``report.lua``)."""
    # A div ends with as many colons as it began with; none of ours is deeper.
    fence = ":::::" if name == "titlepage" else ":::"
    return "\n\n".join([f"{fence} {{.{name}}}", *parts, fence])


def _pipe_table(header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[bool]) -> str:
    """Markdown cells as a pipe table."""
    rule = ["--:" if number else ":--" for number in right]
    return "\n".join(f"| {' | '.join(row)} |" for row in [header, rule, *rows])


def _is_numeric(column: Sequence[str]) -> bool:
    """Whether a column holds numbers: digits and signs, units left to its header."""
    cells = [cell for cell in column if re.search(r"\w", cell) and cell.lower() not in ("n/a", "nan")]
    number = re.compile(r"(?=.*\d)(?:[\W\d_]|(?<=\d)[eE](?=[-+\d]))*", re.DOTALL)
    return bool(cells) and all(number.fullmatch(cell) for cell in cells)


@dataclass(frozen=True, eq=False)
class Table:
    """A table of a notebook; the report numbers it.

    Parameters
    ----------
    frame : pandas.DataFrame, (rows, columns)
        The cells, numbers formatted as they are to be read. The index is not
        shown, a missing value is an empty cell, and a column of numbers
        stands to the right.
    caption : str
        What the table shows, without a number.
    notes : tuple of str
        Remarks under the table.
    muted : sequence of bool, (rows,)
        The rows of second rank, shown in grey; empty for none.

    Raises
    ------
    ValueError
        If `muted` does not have one value a row.
    """

    frame: pd.DataFrame
    caption: str
    notes: tuple[str, ...] = ()
    muted: Sequence[bool] = ()

    def __post_init__(self) -> None:
        if len(self.muted) not in (0, len(self.frame)):
            raise ValueError(f"muted has {len(self.muted)} values for {len(self.frame)} rows.")

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, str]:
        header = [str(name) for name in self.frame.columns]
        rows = [["" if pd.isna(cell) else str(cell) for cell in row] for row in self.frame.itertuples(index=False)]
        muted = list(self.muted) or [False] * len(rows)
        right = [_is_numeric([row[column] for row in rows]) for column in range(len(header))]
        return {
            "text/plain": self.caption,
            "text/html": self._to_html(header, rows, muted, right),
            "text/markdown": self._to_markdown(header, rows, muted, right),
        }

    def _to_html(self, header, rows, muted, right) -> str:
        # The styles repeat what JupyterLab, which has no style sheet of ours, needs.
        align = [f'style="text-align: {"right" if number else "left"}"' for number in right]
        head = "".join(f'<th scope="col" {a}>{_html(name)}</th>' for name, a in zip(header, align))
        body = "\n".join(
            f"<tr{_MUTED if grey else ''}>"
            + "".join(f"<td {a}>{_html(cell)}</td>" for cell, a in zip(row, align))
            + "</tr>"
            for row, grey in zip(rows, muted)
        )
        notes = "".join(f'<p class="report-notes">{_html(note)}</p>' for note in self.notes)
        return (
            '<figure class="report-table mathjax_ignore" style="margin: 1em 0">\n'
            f"<figcaption>{_html(self.caption)}</figcaption>\n"
            f'<div class="report-scroll" style="overflow-x: auto" tabindex="0" role="region" '
            f'aria-label="{escape(self.caption)}">\n'
            f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>\n</div>\n"
            f"{notes}</figure>"
        )

    def _to_markdown(self, header, rows, muted, right) -> str:
        cells = [
            [f"[{_markdown(cell)}]{{.muted}}" if grey and cell else _markdown(cell) for cell in row]
            for row, grey in zip(rows, muted)
        ]
        table = _pipe_table([_markdown(name) for name in header], cells, right)
        blocks = [_div("table", _markdown(self.caption), table)]
        if self.notes:
            blocks.append(_div("notes", *map(_markdown, self.notes)))
        return "\n\n".join(blocks)


_MUTED = ' class="muted" style="opacity: 0.7; font-style: italic"'


@dataclass(frozen=True, eq=False)
class Figure:
    """A plot of a notebook; the report numbers it.

    The plot is closed as far as pyplot is concerned, so that Jupyter does not
    show it a second time.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        The plot; its size in inches is its natural size on paper.
    caption : str
        What the figure shows, without a number.
    alt : str
        What a reader who cannot see it should know.
    """

    figure: matplotlib.figure.Figure
    caption: str
    alt: str

    def __post_init__(self) -> None:
        plt.close(self.figure)

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, str]:
        source, width = self._image()
        alt = " ".join(_clean(self.alt))
        caption = _markdown(self.caption)
        return {
            "text/plain": self.caption,
            "text/html": (
                '<figure class="report-figure mathjax_ignore" style="margin: 1em 0">\n'
                f'<img src="{source}" alt="{escape(alt)}" width="{width:.0f}" '
                'style="max-width: 100%; height: auto">\n'
                f"<figcaption>{_html(self.caption)}</figcaption>\n</figure>"
            ),
            "text/markdown": _div("figure", f"![{_markdown(alt)}]({source})", caption),
        }

    def _image(self) -> tuple[str, float]:
        """The plot as a data URI, and its width in CSS pixels."""
        svg = self._saved("svg", metadata={"Date": None, "Creator": None})
        # Lines and letters are best as vectors; photos and clouds of thousands of marks are not.
        if len(svg) < 500_000 and not any(axes.images for axes in self.figure.axes):
            width = float(re.search(rb'<svg[^>]* width="([\d.]+)pt"', svg)[1]) * 96 / 72
            return f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}", width
        png = self._saved("png", dpi=200, metadata={"Software": None})
        width = int.from_bytes(png[16:20]) * 96 / 200
        return f"data:image/png;base64,{base64.b64encode(png).decode()}", width

    def _saved(self, kind: str, **options) -> bytes:
        file = io.BytesIO()
        with plt.rc_context({"svg.hashsalt": "thaw"}):
            self.figure.savefig(file, format=kind, bbox_inches="tight", **options)
        return file.getvalue()


@dataclass(frozen=True)
class TitlePage:
    """The head of a report.

    Parameters
    ----------
    title, subtitle : str
    facts : dict of str to str
        What to know at first sight, for example the data set, the device and
        the date.
    warning : str or None
        What a reader must not overlook.
    """

    title: str
    subtitle: str
    facts: dict[str, str]
    warning: str | None = None

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, str]:
        left = 'style="text-align: left; vertical-align: top"'
        facts = "\n".join(
            f'<tr><th scope="row" {left}>{_html(name)}</th><td {left}>{_html(value)}</td></tr>'
            for name, value in self.facts.items()
        )
        warning = (
            '<p class="report-warning" role="note" style="border: 1px solid #c77700; border-left-width: 4px; '
            f'padding: 0.7em 1em">{_html(self.warning)}</p>\n'
        )
        rows = [[_markdown(name), _markdown(value)] for name, value in self.facts.items()]
        parts = [_div("title", _markdown(self.title)), _div("subtitle", _markdown(self.subtitle))]
        if rows:
            parts.append(_div("facts", _pipe_table(["", ""], rows, [False, False])))
        if self.warning:
            parts.append(_div("warning", _markdown(self.warning)))
        return {
            "text/plain": self.title,
            "text/html": (
                f'<header class="report-title mathjax_ignore">\n<h1>{_html(self.title)}</h1>\n'
                f'<p class="subtitle">{_html(self.subtitle)}</p>\n<table><tbody>\n{facts}\n</tbody></table>\n'
                f"{warning if self.warning else ''}</header>"
            ),
            "text/markdown": _div("titlepage", *parts),
        }


def export_html(notebook: Path, html: Path) -> None:
    """Export an executed notebook as one HTML file that needs no other.

    Code, warnings and cells tagged ``remove`` are left out. The file appears
    whole or not at all.

    Parameters
    ----------
    notebook : Path
        The executed notebook.
    html : Path
        The file to write; its folder is made if need be.

    Raises
    ------
    ReportError
        If the notebook cannot be read, has a failed cell, shows an image that
        is not in its folder, or if the file cannot be written.
    """
    with _explained(notebook, html):
        exporter = HTMLExporter(
            config=_config(["text/html", "text/markdown", *_IMAGES]),
            template_file=str(_TEMPLATE / "report.html.j2"),
            exclude_input=True,
            exclude_output_prompt=True,
            exclude_anchor_links=True,
            embed_images=True,
        )
        place = {"metadata": {"path": str(Path(notebook).parent)}}
        page, _ = exporter.from_notebook_node(_executed(notebook), place)
        _write(html, _finished(page, Path(notebook).stem).encode())


def export_pdf(notebook: Path, pdf: Path) -> None:
    """Export an executed notebook as a PDF.

    The way is Markdown by nbconvert, Typst by pandoc, PDF by Typst, with the
    fonts that Typst brings. The same notebook gives the same file.

    Parameters
    ----------
    notebook : Path
        The executed notebook.
    pdf : Path
        The file to write; its folder is made if need be.

    Raises
    ------
    ReportError
        If the notebook cannot be read, has a failed cell, shows an image that
        is not to be had, or if the file cannot be written.
    """
    with _explained(notebook, pdf), tempfile.TemporaryDirectory() as folder:
        exporter = MarkdownExporter(
            config=_config(["text/markdown", *_IMAGES]),
            template_file=str(_TEMPLATE / "report.md.j2"),
            exclude_input=True,
        )
        markdown, _ = exporter.from_notebook_node(_executed(notebook))
        source = pypandoc.convert_text(
            markdown,
            "typst-smart-citations",
            format=_DIALECT,
            cworkdir=folder,
            extra_args=[
                "--standalone",
                f"--template={_TEMPLATE / 'report.typ'}",
                f"--lua-filter={_TEMPLATE / 'report.lua'}",
                f"--metadata=title:{Path(notebook).stem}",
                f"--resource-path={Path(notebook).parent.resolve()}",
                "--extract-media=.",
                "--syntax-highlighting=none",
                "--fail-if-warnings",
            ],
        )
        main = Path(folder, "report.typ")
        main.write_text(source, encoding="utf-8")
        _write(pdf, typst.compile(main, root=folder, ignore_system_fonts=True, timestamp=0))


def _config(priority: list[str]) -> Config:
    """nbconvert's options: which of an output's forms to show, and no cell tagged ``remove``."""
    return Config(
        {
            "NbConvertBase": {"display_data_priority": priority},
            "TagRemovePreprocessor": {"enabled": True, "remove_cell_tags": ["remove"]},
            "ExtractOutputPreprocessor": {"enabled": False},
        }
    )


def _executed(notebook: Path) -> nbformat.NotebookNode:
    """Read a notebook that has been run to its end."""
    content = nbformat.read(notebook, as_version=4)
    for number, cell in enumerate(content.cells, start=1):
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                raise ReportError(
                    f"Cell {number} of {notebook} failed with {output.ename}: {output.evalue}. "
                    "Mend it and run the notebook again before exporting it."
                )
    return content


def _finished(page: str, name: str) -> str:
    """The page with its title and its table of contents, all its images inside."""
    soup = BeautifulSoup(page, "html.parser")
    for element in soup.select("[src]"):
        if not element["src"].startswith("data:"):
            raise ReportError(f"{element['src']} is not inside the report: save it in the notebook's folder.")
    title, names = soup.select_one("main h1"), set()
    soup.title.string = title.get_text(" ") if title else name
    for heading in soup.select("main :is(h1, h2, h3)"):
        heading["id"] = anchor = heading.get_text().replace(" ", "-")
        if heading is not title and anchor not in names:
            item = soup.new_tag("li", attrs={"class": heading.name})
            item.append(soup.new_tag("a", href=f"#{anchor}", string=heading.get_text(" ")))
            soup.nav.ul.append(item)
        names.add(anchor)
    if not soup.nav.ul.contents:
        soup.nav.decompose()
    return str(soup)


@contextmanager
def _explained(notebook: Path, target: Path) -> Iterator[None]:
    """Turn whatever an engine raises into one error that says which export failed."""
    try:
        yield
    except ReportError:
        raise
    except Exception as error:
        raise ReportError(f"{notebook} could not be exported as {target}: {error}") from error


def _write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(content)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
