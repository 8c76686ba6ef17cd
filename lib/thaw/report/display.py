"""What a notebook displays between its prose: a `TitlePage`, a `Box`, `Table`s and `Figure`s.

Each has an HTML form, for JupyterLab and the report. ``template/report.css``
and ``template/report.typ`` set how it looks, on a screen and in the PDF.
"""

import base64
import io
import re
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from html import escape
from urllib.parse import quote
from xml.etree import ElementTree

import matplotlib.figure
import matplotlib.pyplot as plt
import pandas as pd
from PIL import Image

VALUE = "value: "  # begins the ids of marks in figures that say what they are: see `thaw.report.figures.style.says`
SHORT, PROSE = 30, 60  # letters: a cell that keeps to one line, and a longer one that is prose
TALL = 0.6  # its height by its width: such a figure may stand elsewhere on paper
PHONE = ContextVar("phone", default=False)  # whether a figure is being drawn for a narrow screen
_DPI = 150  # of figures with photos
_SVG = "http://www.w3.org/2000/svg"
for _prefix, _space in (("", _SVG), ("xlink", "http://www.w3.org/1999/xlink")):
    ElementTree.register_namespace(_prefix, _space)
_WITH_INTERVAL = re.compile(r"[^\w(.,]*\d[\d.,]*[^\w(.,]*\([^()]{1,24}\)")  # 94.0% (91.0 to 96.1)
# Control characters that no format can hold, and those that turn the direction of all text after them.
_UNSEEN = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")


def lines(text: object) -> list[str]:
    """Split a text into lines and show each control character as a replacement character."""
    return [_UNSEEN.sub("\ufffd", line) for line in str(text).strip().splitlines()]


def one_line(text: object) -> str:
    """Write a text as one line."""
    return " ".join(" ".join(lines(text)).split())


@dataclass(frozen=True)
class Link:
    """A cell that leads to a file beside the report; `path` is relative to it."""

    text: str
    path: str

    def __str__(self) -> str:
        return self.text


def _html(text: object) -> str:
    """Escape a text for HTML."""
    written = "<br>".join(escape(line) for line in lines(text))
    return f'<a href="{quote(text.path)}">{written}</a>' if isinstance(text, Link) else written


def markdown(text: object) -> str:
    """Escape a text for Markdown, as one line in which every character stands for itself.

    Use it for whatever others have written: names of classes, data sets,
    weights and devices, and errors. Punctuation becomes character references,
    which neither Markdown nor JupyterLab's formulas give a meaning.
    """
    plain = "<br>".join(
        re.sub(r"[!-/:-@\[-`{-~]", lambda mark: f"&#{ord(mark[0])};", " ".join(line.split())) for line in lines(text)
    )
    # MathJax reads the rendered text, in which the reference has become a dollar again.
    return f'<span class="mathjax_ignore">{plain}</span>' if re.search(r"[$\\]", str(text)) else plain


def latex(text: object) -> str:
    """Escape a text for LaTeX, as one line in which every character stands for itself."""
    words = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return re.sub(r"[\\~^#$%&_{}]", lambda mark: words.get(mark[0], "\\" + mark[0]), one_line(text))


def _is_numeric(column: Sequence[str]) -> bool:
    """Whether a column holds only numbers: digits and signs, with the units in its header."""
    cells = [cell for cell in column if re.search(r"\w", cell) and cell.lower() not in ("n/a", "nan")]
    number = re.compile(r"(?=.*\d)(?:[\W\d_]|(?<=\d)[eE](?=[-+\d]))*", re.DOTALL)
    return bool(cells) and all(number.fullmatch(cell) for cell in cells)


def _cell(cell: object, right: bool, name: str, bold: bool) -> str:
    """Write a cell. Numbers, their intervals and short words keep to one line: a wide table scrolls in its box."""
    short = right or _WITH_INTERVAL.fullmatch(str(cell)) or (not name and len(str(cell)) <= SHORT)
    together = "; white-space: nowrap" if short else ""
    text = _html(cell)
    if _WITH_INTERVAL.fullmatch(str(cell)):
        text = text.replace(" (", ' <span style="white-space: nowrap">(', 1) + "</span>"
    text = f"<strong>{text}</strong>" if bold else text
    named = f' data-name="{escape(name)}"' if name else ""
    return f'<td{named} style="text-align: {"right" if right else "left"}{together}">{text}</td>'


@dataclass(frozen=True, eq=False)
class Table:
    """A table in a notebook. The report gives it a number.

    Parameters
    ----------
    frame : pandas.DataFrame, (rows, columns)
        The cells, with numbers formatted for reading, or `Link`s. The index is
        not shown, a missing value is an empty cell, and columns of numbers are
        aligned to the right.
    caption : str
        What the table shows, without a number.
    notes : tuple of str
        Remarks below the table.
    folded : bool
        Show only the caption until it is clicked, without a number.
    on_paper : bool
        Whether the PDF has it. What leads to other files it need not have.
    bold : sequence of int
        The rows in bold, counted from 0.
    """

    frame: pd.DataFrame
    caption: str
    notes: tuple[str, ...] = ()
    folded: bool = False
    on_paper: bool = True
    bold: Sequence[int] = ()

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, str]:
        header = [str(name) for name in self.frame.columns]
        rows = [["" if pd.isna(cell) else cell for cell in row] for row in self.frame.itertuples(index=False)]
        right = [_is_numeric([str(row[column]) for row in rows]) for column in range(len(header))]
        return {
            "text/plain": one_line(self.caption),
            "text/html": self._to_html(header, rows, right),
        }

    def _to_html(self, header, rows, right) -> str:
        # JupyterLab does not have our style sheet, so what it needs is repeated in the tags.
        align = [f'style="text-align: {"right" if number else "left"}"' for number in right]
        head = "".join(f'<th scope="col" {a}>{_html(name)}</th>' for name, a in zip(header, align))
        # A phone sets cells of prose below each other, each under the name of its column.
        prose = any(len(str(cell)) > PROSE for row in rows for cell in row)
        names = header if prose else [""] * len(header)
        body = "\n".join(
            f"<tr>{''.join(map(_cell, row, right, names, [place in self.bold] * len(row)))}</tr>"
            for place, row in enumerate(rows)
        )
        notes = "".join(f'<p class="report-notes">{_html(note)}</p>' for note in self.notes)
        outer, title = ("details", "summary") if self.folded else ("figure", "figcaption")
        return (
            f'<{outer} class="report-{"folded" if self.folded else "table"}{"" if self.on_paper else " report-screen"} '
            f'mathjax_ignore" style="margin: 1em 0">\n'
            f"<{title}>{_html(self.caption)}</{title}>\n"
            f'<div class="report-scroll" style="overflow-x: auto" tabindex="0" role="group" '
            f'aria-label="{escape(one_line(self.caption))}">\n'
            f"<table{' class=report-prose' * prose}>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n"
            "</table>\n</div>\n"
            f"{notes}</{outer}>"
        )


@dataclass(frozen=True, eq=False)
class Figure:
    """A plot in a notebook. The report gives it a number.

    The plot is closed for pyplot, so that Jupyter does not show it twice.

    Parameters
    ----------
    plot : matplotlib.figure.Figure, or function
        The plot. Its size in inches is its size on paper. A function that
        draws it is called twice, the second time for phones: `PHONE` is then
        set, and `thaw.report.figures.style.grid` sets panels below each other.
    caption : str
        What the figure shows, without a number.
    alt : str
        A description for readers who cannot see it.
    on_paper : bool
        Whether the PDF has it. What it has not got has no number.
    """

    plot: matplotlib.figure.Figure | Callable[[], matplotlib.figure.Figure]
    caption: str
    alt: str
    on_paper: bool = True

    @cached_property
    def figures(self) -> list[matplotlib.figure.Figure]:
        """The plot, and its narrow form if it has one."""
        if isinstance(self.plot, matplotlib.figure.Figure):
            return [self.plot]
        wide, phone = self.plot(), PHONE.set(True)
        try:
            return [wide, self.plot()]
        finally:
            PHONE.reset(phone)

    def __post_init__(self) -> None:
        for figure in self.figures:
            plt.close(figure)

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, str]:
        across, down = self.figures[0].get_size_inches()
        where = " report-tall" * bool(down > TALL * across) if self.on_paper else " report-screen"
        images = []
        for figure, name in zip(self.figures, ("wide" if len(self.figures) > 1 else "", "phone")):
            source, width = self._image(figure)
            # JupyterLab, without our style sheet, shows the wide one alone.
            images.append(
                f'<div class="report-scroll report-{name}"{" hidden" * (name == "phone")}>'
                f'<img src="{source}" alt="{escape(one_line(self.alt))}" width="{width:.0f}" '
                'style="max-width: 100%; height: auto"></div>\n'
            )
        return {
            "text/plain": one_line(self.caption),
            "text/html": (
                f'<figure class="report-figure{where} mathjax_ignore" style="margin: 1em 0">\n'
                f"{''.join(images)}<figcaption>{_html(self.caption)}</figcaption>\n</figure>"
            ),
        }

    def _image(self, figure: matplotlib.figure.Figure) -> tuple[str, float]:
        """Return a plot as a data URI, and its width in CSS pixels."""
        # Lines and letters look best as vectors. Photos and thousands of marks would be too large.
        if not any(axes.images for axes in figure.axes):
            svg = _with_values(
                self._saved(figure, "svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
            )
            if len(svg) < 500_000:
                width = float(re.findall(rb'<svg[^>]* width="([\d.]+)pt"', svg)[0]) * 96 / 72
                return f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}", width
        jpeg = self._saved(figure, "jpeg", dpi=_DPI, pil_kwargs={"quality": 90})
        width = Image.open(io.BytesIO(jpeg)).width * 96 / _DPI
        return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}", width

    def _saved(self, figure: matplotlib.figure.Figure, kind: str, **options) -> bytes:
        file = io.BytesIO()
        # Letters stay text. Of two figures on one page none has the ids of the other.
        with plt.rc_context(
            {"svg.hashsalt": f"{one_line(self.caption)} {figure.get_figwidth()}", "svg.fonttype": "none"}
        ):
            figure.savefig(file, format=kind, bbox_inches="tight", **options)
        return file.getvalue()


def _with_values(svg: bytes) -> bytes:
    """Turn the ids of marks that say what they are into titles, which browsers show under the pointer.

    Nothing refers to the id of a group: all of them go.
    """
    root = ElementTree.fromstring(svg)
    for group in root.iter(f"{{{_SVG}}}g"):
        name = group.attrib.pop("id", "")
        if name.startswith(VALUE):
            title = ElementTree.Element(f"{{{_SVG}}}title")
            title.text = name.removeprefix(VALUE)
            group.insert(0, title)
    return ElementTree.tostring(root)


@dataclass(frozen=True)
class Box:
    """Facts in a frame, for what a reader looks for first.

    Parameters
    ----------
    title : str
    facts : dict of str to str
        A line each.
    """

    title: str
    facts: dict[str, str]

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, str]:
        left = 'style="text-align: left; vertical-align: top"'
        facts = "\n".join(
            f'<tr><th scope="row" {left}>{_html(name)}</th><td {left}>{_html(value)}</td></tr>'
            for name, value in self.facts.items()
        )
        return {
            "text/plain": one_line(self.title),
            "text/html": (
                f'<div class="report-box mathjax_ignore"><p><strong>{_html(self.title)}</strong></p>\n'
                f"<table><tbody>\n{facts}\n</tbody></table>\n</div>"
            ),
        }


@dataclass(frozen=True)
class TitlePage:
    """The head of a report.

    Parameters
    ----------
    title, subtitle : str
    warning : str or None
        What a reader must not overlook.
    """

    title: str
    subtitle: str
    warning: str | None = None

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, str]:
        warning = (
            '<p class="report-warning" role="note" style="border: 1px solid #c77700; border-left-width: 4px; '
            f'padding: 0.7em 1em">{_html(self.warning)}</p>\n'
        )
        return {
            "text/plain": one_line(self.title),
            "text/html": (
                f'<header class="report-title mathjax_ignore">\n<h1>{_html(self.title)}</h1>\n'
                f'<p class="subtitle">{_html(self.subtitle)}</p>\n'
                f"{warning if self.warning else ''}</header>"
            ),
        }
