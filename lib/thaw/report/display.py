"""What a report shows.

A notebook displays a `TitlePage`, `Table`s and `Figure`s between its prose.
Each carries its HTML, for JupyterLab and the HTML report, and its Markdown,
from which pandoc and Typst make the PDF. How they look in the exported report
is said in ``template/``: ``report.css`` and ``report.typ``.
"""

import base64
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import matplotlib.figure
import matplotlib.pyplot as plt
import pandas as pd
from PIL import Image

_DPI = 150  # of figures with photos
# Stands in a figure's Markdown for the image, which is in its HTML: a notebook need not hold it twice.
IMAGE = "image-of-this-figure"
_MUTED = ' class="muted" style="opacity: 0.7; font-style: italic"'
# What no format can hold; and what turns the direction of all text after it, our own as well.
_UNSEEN = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")


def lines(text: object) -> list[str]:
    """The lines of a text, each control character in it shown as one that is not."""
    return [_UNSEEN.sub("\ufffd", line) for line in str(text).strip().splitlines()]


def one_line(text: object) -> str:
    """A text as one line."""
    return " ".join(" ".join(lines(text)).split())


def _html(text: object) -> str:
    """Text as HTML."""
    return "<br>".join(escape(line) for line in lines(text))


def markdown(text: object) -> str:
    """Text as Markdown of one line, in which nothing means anything but itself.

    For whatever others have named or written: classes, data sets, weights,
    devices, errors. Marks are character references, which no Markdown takes for
    marks, and no JupyterLab for the beginning of a formula.
    """
    plain = "<br>".join(
        re.sub(r"[!-/:-@\[-`{-~]", lambda mark: f"&#{ord(mark[0])};", " ".join(line.split())) for line in lines(text)
    )
    # MathJax reads what has been rendered, where a reference is a dollar again.
    return f'<span class="mathjax_ignore">{plain}</span>' if re.search(r"[$\\]", str(text)) else plain


def latex(text: object) -> str:
    """Text as LaTeX of one line, in which nothing means anything but itself."""
    words = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return re.sub(r"[\\~^#$%&_{}]", lambda mark: words.get(mark[0], "\\" + mark[0]), one_line(text))


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
            "text/plain": one_line(self.caption),
            "text/html": self._to_html(header, rows, muted, right),
            "text/markdown": self._to_markdown(header, rows, muted, right),
        }

    def _to_html(self, header, rows, muted, right) -> str:
        # The styles repeat what JupyterLab, which has no style sheet of ours, needs.
        align = [f'style="text-align: {"right" if number else "left"}"' for number in right]
        head = "".join(f'<th scope="col" {a}>{_html(name)}</th>' for name, a in zip(header, align))
        # A number does not break; a table too wide for its box scrolls in it.
        cell_align = [a[:-1] + '; white-space: nowrap"' if number else a for a, number in zip(align, right)]
        body = "\n".join(
            f"<tr{_MUTED if grey else ''}>"
            + "".join(f"<td {a}>{_html(cell)}</td>" for cell, a in zip(row, cell_align))
            + "</tr>"
            for row, grey in zip(rows, muted)
        )
        notes = "".join(f'<p class="report-notes">{_html(note)}</p>' for note in self.notes)
        return (
            '<figure class="report-table mathjax_ignore" style="margin: 1em 0">\n'
            f"<figcaption>{_html(self.caption)}</figcaption>\n"
            f'<div class="report-scroll" style="overflow-x: auto" tabindex="0" role="region" '
            f'aria-label="{escape(one_line(self.caption))}">\n'
            f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>\n</div>\n"
            f"{notes}</figure>"
        )

    def _to_markdown(self, header, rows, muted, right) -> str:
        cells = [
            [f"[{markdown(cell)}]{{.muted}}" if grey and cell else markdown(cell) for cell in row]
            for row, grey in zip(rows, muted)
        ]
        table = _pipe_table([markdown(name) for name in header], cells, right)
        blocks = [_div("table", markdown(self.caption), table)]
        if self.notes:
            blocks.append(_div("notes", *map(markdown, self.notes)))
        return "\n\n".join(blocks)


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
        alt = one_line(self.alt)
        caption = markdown(self.caption)
        return {
            "text/plain": one_line(self.caption),
            "text/html": (
                '<figure class="report-figure mathjax_ignore" style="margin: 1em 0">\n'
                f'<img src="{source}" alt="{escape(alt)}" width="{width:.0f}" '
                'style="max-width: 100%; height: auto">\n'
                f"<figcaption>{_html(self.caption)}</figcaption>\n</figure>"
            ),
            "text/markdown": _div("figure", f"![{markdown(alt)}]({IMAGE})", caption),
        }

    def _image(self) -> tuple[str, float]:
        """The plot as a data URI, and its width in CSS pixels."""
        svg = self._saved("svg", metadata={"Date": None, "Creator": None})
        # Lines and letters are best as vectors; photos and clouds of thousands of marks are not.
        if len(svg) < 500_000 and not any(axes.images for axes in self.figure.axes):
            width = float(re.search(rb'<svg[^>]* width="([\d.]+)pt"', svg)[1]) * 96 / 72
            return f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}", width
        jpeg = self._saved("jpeg", dpi=_DPI, pil_kwargs={"quality": 90})
        width = Image.open(io.BytesIO(jpeg)).width * 96 / _DPI
        return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}", width

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
        rows = [[markdown(name), markdown(value)] for name, value in self.facts.items()]
        parts = [_div("title", markdown(self.title)), _div("subtitle", markdown(self.subtitle))]
        if rows:
            parts.append(_div("facts", _pipe_table(["", ""], rows, [False, False])))
        if self.warning:
            parts.append(_div("warning", markdown(self.warning)))
        return {
            "text/plain": one_line(self.title),
            "text/html": (
                f'<header class="report-title mathjax_ignore">\n<h1>{_html(self.title)}</h1>\n'
                f'<p class="subtitle">{_html(self.subtitle)}</p>\n<table><tbody>\n{facts}\n</tbody></table>\n'
                f"{warning if self.warning else ''}</header>"
            ),
            "text/markdown": _div("titlepage", *parts),
        }
