"""Export an executed notebook as one HTML file and as a PDF.

`thaw.report.display` holds what a notebook shows, ``template/`` how it looks.
"""

import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import matplotlib
import nbformat
import pypandoc
import typst
from bs4 import BeautifulSoup
from nbconvert import HTMLExporter, MarkdownExporter
from traitlets.config import Config

from thaw.disk.atomic import write_atomic
from thaw.errors import ReportError
from thaw.report.display import IMAGE

_TEMPLATE = Path(__file__).parent / "template"
# DejaVu Sans has letters that Typst's own fonts lack, such as Arabic ones, for names of classes.
_FONTS = Path(matplotlib.get_data_path(), "fonts", "ttf")
_IMAGES = ["image/svg+xml", "image/png", "image/jpeg", "text/plain"]
# JupyterLab's Markdown with the divs of `display`, but without formulas, citations and typographic quotes,
# which could turn plain text into markup.
_DIALECT = "commonmark+pipe_tables+strikeout+task_lists+footnotes+autolink_bare_uris+fenced_divs+bracketed_spans"


def export_html(notebook: Path, html: Path) -> None:
    """Export an executed notebook as one HTML file that needs no other.

    Code, warnings and cells tagged ``remove`` are left out. The file appears
    whole or not at all.

    Raises
    ------
    ReportError
        If the notebook cannot be read, has a failed cell or shows an image that
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
        executed = _executed(notebook)
        page, _ = exporter.from_notebook_node(executed, place)
        content = _finished(page, Path(notebook).stem, executed.metadata.get("thaw", {}))
        write_atomic(html, lambda partial: partial.write_text(content, encoding="utf-8"))


def export_pdf(notebook: Path, pdf: Path) -> None:
    """Export an executed notebook as a PDF.

    nbconvert writes Markdown, pandoc turns it into Typst, and Typst into a PDF,
    with the fonts that Typst and matplotlib bring. The same notebook always
    gives the same file.

    Raises
    ------
    ReportError
        As `export_html`.
    """
    with _explained(notebook, pdf), tempfile.TemporaryDirectory() as folder:
        exporter = MarkdownExporter(
            config=_config(["text/markdown", *_IMAGES]),
            template_file=str(_TEMPLATE / "report.md.j2"),
            exclude_input=True,
        )
        markdown, resources = exporter.from_notebook_node(_executed(notebook))
        for name, attachment in resources.get("outputs", {}).items():
            Path(folder, name).write_bytes(attachment)
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
                f"--resource-path={folder}{os.pathsep}{Path(notebook).parent.resolve()}",
                "--extract-media=.",
                "--syntax-highlighting=none",
                "--fail-if-warnings",
            ],
        )
        main = Path(folder, "report.typ")
        main.write_text(source, encoding="utf-8")
        content = typst.compile(main, root=Path(folder), font_paths=[_FONTS], ignore_system_fonts=True, timestamp=0)
        write_atomic(pdf, lambda partial: partial.write_bytes(content))


def _config(priority: list[str]) -> Config:
    """Set nbconvert's options: which form of an output to show, and to leave out cells tagged ``remove``."""
    return Config(
        {
            "NbConvertBase": {"display_data_priority": priority},
            "TagRemovePreprocessor": {"enabled": True, "remove_cell_tags": ["remove"]},
            "ExtractOutputPreprocessor": {"enabled": False},
        }
    )


def _executed(notebook: Path) -> nbformat.NotebookNode:
    """Read a notebook and check that no cell failed."""
    content = nbformat.read(notebook, as_version=4)
    for number, cell in enumerate(content.cells, start=1):
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                raise ReportError(
                    f"Cell {number} of {notebook} failed with {output.ename}: {output.evalue}. "
                    "Fix the cell and run the notebook again before you export it."
                )
            shown = output.get("data", {})
            if IMAGE in shown.get("text/markdown", ""):
                source = re.findall(r'<img src="([^"]+)"', shown["text/html"])[0]
                shown["text/markdown"] = shown["text/markdown"].replace(IMAGE, source)
    return content


def _finished(page: str, name: str, facts: Mapping[str, str]) -> str:
    """Add a title, facts for programs and a table of contents, and check that all images are inside the page."""
    soup = BeautifulSoup(page, "html.parser")
    head, contents = soup.select("head")[0], soup.select("nav ul")[0]
    for key, value in facts.items():
        head.append(soup.new_tag("meta", attrs={"name": f"thaw-{key.replace('_', '-')}", "content": value}))
    for element in soup.select("[src]"):
        if not str(element["src"]).startswith("data:"):
            raise ReportError(f"{element['src']} is not inside the report: save it in the notebook's folder.")
    title, names = soup.select_one("main h1"), set()
    soup.select("title")[0].string = title.get_text(" ") if title else name
    for heading in soup.select("main :is(h1, h2, h3)"):
        heading["id"] = anchor = heading.get_text().replace(" ", "-")
        if heading is not title and anchor not in names:
            item = soup.new_tag("li", attrs={"class": heading.name})
            item.append(soup.new_tag("a", href=f"#{anchor}", string=heading.get_text(" ")))
            contents.append(item)
        names.add(anchor)
    if not contents.contents:
        soup.select("nav")[0].decompose()
    return str(soup)


@contextmanager
def _explained(notebook: Path, target: Path) -> Iterator[None]:
    """Turn any error of an engine into one that says which export failed."""
    try:
        yield
    except ReportError:
        raise
    except Exception as error:
        raise ReportError(f"{notebook} could not be exported as {target}: {error}") from error
