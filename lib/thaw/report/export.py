"""Export an executed notebook as one HTML page, and that page as a PDF.

`thaw.report.display` holds what a notebook shows, ``template/`` how it looks.
"""

import base64
import hashlib
import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib
import nbformat
import pypandoc
import typst
from bs4 import BeautifulSoup
from nbconvert import HTMLExporter
from traitlets.config import Config

from thaw.disk.atomic import write_atomic
from thaw.errors import ReportError, explained

_TEMPLATE = Path(__file__).parent / "template"
# DejaVu Sans has letters that Typst's own fonts lack, such as Arabic ones, for names of classes.
_FONTS = Path(matplotlib.get_data_path(), "fonts", "ttf")
_CONFIG = Config(
    {
        "NbConvertBase": {
            "display_data_priority": [
                *("text/html", "text/markdown", "image/svg+xml", "image/png", "image/jpeg", "text/plain")
            ]
        },
        "TagRemovePreprocessor": {"enabled": True, "remove_cell_tags": ["remove"]},
    }
)
# Parts of the page that have a function of their own in report.typ: how they are found, and its name.
_PARTS = {
    "header h1": "title",
    "header .subtitle": "subtitle",
    ".report-box table": "facts",
    ".report-box": "box",
    ".report-warning": "warning",
    ".report-notes": "notes",
    "header": "titlepage",
}


def export_html(notebook: Path, html: Path) -> None:
    """Export an executed notebook as one HTML file that needs no other.

    Code, warnings and cells tagged ``remove`` are left out. Only the page's own
    script runs in it, and nothing in it can ask for an address. The file
    appears whole or not at all.

    Raises
    ------
    ReportError
        If the notebook cannot be read, has a failed cell or shows an image that
        is not in its folder, or if the file cannot be written.
    """
    with _explained(notebook, html):
        page = _page(notebook)
        _for_screens(page)
        content = str(page)
        write_atomic(html, lambda partial: partial.write_text(content, encoding="utf-8"))


def export_pdf(notebook: Path, pdf: Path) -> None:
    """Export the page that `export_html` makes as a PDF.

    pandoc turns the page into Typst, and Typst into a PDF, with the fonts that
    Typst and matplotlib bring. The same notebook always gives the same file.

    Raises
    ------
    ReportError
        As `export_html`.
    """
    with _explained(notebook, pdf), tempfile.TemporaryDirectory() as folder:
        page = _page(notebook)
        for part in page.select("main nav, main .report-screen, main .report-phone"):
            part.decompose()
        for part in page.select("main .report-folded"):
            part.name = "figure"
            part.attrs["class"] = "report-table report-small"
            part.select("summary")[0].name = "figcaption"
        for link in page.select("main td a"):  # to files beside the page
            link.unwrap()
        for selector, name in _PARTS.items():  # pandoc tells divs apart, by their class
            for part in page.select(f"main {selector}"):
                part.wrap(page.new_tag("div", attrs={"class": f"typst-{name}"}))
        source = pypandoc.convert_text(
            str(page.select("main")[0]),
            "typst",
            format="html",
            cworkdir=folder,
            extra_args=[
                "--standalone",
                f"--template={_TEMPLATE / 'report.typ'}",
                f"--lua-filter={_TEMPLATE / 'report.lua'}",
                f"--metadata=title:{page.select('title')[0].get_text()}",
                *(f"--variable=facts:{one['name']} {one['content']}" for one in page.select("meta[name^=thaw-]")),
                "--extract-media=.",
                "--syntax-highlighting=none",
                "--fail-if-warnings",
            ],
        )
        main = Path(folder, "report.typ")
        main.write_text(source, encoding="utf-8")
        content = typst.compile(main, root=Path(folder), font_paths=[_FONTS], ignore_system_fonts=True, timestamp=0)
        write_atomic(pdf, lambda partial: partial.write_bytes(content))


def _page(notebook: Path) -> BeautifulSoup:
    """Make the page, with a title, facts for programs and a table of contents, and all images inside it."""
    executed = nbformat.read(notebook, as_version=4)
    for number, cell in enumerate(executed.cells, start=1):
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                raise ReportError(
                    f"Cell {number} of {notebook} failed with {output.ename}: {output.evalue}. "
                    "Fix the cell and run the notebook again before you export it."
                )
    exporter = HTMLExporter(
        config=_CONFIG,
        template_file=str(_TEMPLATE / "report.html.j2"),
        exclude_input=True,
        exclude_output_prompt=True,
        exclude_anchor_links=True,
        embed_images=True,
    )
    page, _ = exporter.from_notebook_node(executed, {"metadata": {"path": str(Path(notebook).parent)}})
    soup = BeautifulSoup(page, "html.parser")
    head = soup.select("head")[0]
    for key, value in executed.metadata.get("thaw", {}).items():
        head.append(soup.new_tag("meta", attrs={"name": f"thaw-{key.replace('_', '-')}", "content": value}))
    for element in soup.select("[src]"):
        if not str(element["src"]).startswith("data:"):
            raise ReportError(f"{element['src']} is not inside the report: save it in the notebook's folder.")
    title, about = soup.select_one("main h1"), soup.select("main :is(p, li):not(.report-warning)")
    soup.select("title")[0].string = title.get_text(" ") if title else Path(notebook).stem
    description = " ".join(part.get_text() for part in about[:2])  # the subtitle, and how the answer begins
    head.append(soup.new_tag("meta", attrs={"name": "description", "content": description[:300]}))
    names: Counter[str] = Counter()
    for heading in soup.select("main :is(h1, h2, h3)"):
        name = re.sub(r"\W+", "-", heading.get_text()).strip("-") or "section"
        heading["id"] = f"{name}-{names[name]}" if names[name] else name
        names[name] += 1
    for cell in soup.select("main thead th"):
        cell["scope"] = "col"
    return soup


def _for_screens(page: BeautifulSoup) -> None:
    """Add what only a browser can use: contents, links to sections, figures that can be pointed at, and a script."""
    main, nav = page.select("main")[0], page.select("nav")[0].extract()
    sections = [heading for heading in main.select(":is(h1, h2, h3)") if heading is not main.select_one("h1")]
    for heading in sections:
        item = page.new_tag("li", attrs={"class": heading.name})
        item.append(page.new_tag("a", href=f"#{heading['id']}", string=" ".join(heading.get_text(" ").split())))
        nav.select("ul")[0].append(item)
        if not heading.select("a"):
            link = page.new_tag("a", attrs={"class": "anchor", "href": f"#{heading['id']}"})
            link.extend(list(heading.contents))
            heading.append(link)
    # The contents come after the title and the first section, which is the answer.
    front, rest = page.new_tag("div"), page.new_tag("div")
    for cell in main.find_all(True, recursive=False):
        later = rest.contents or len(front.select("h2")) + len(cell.select("h2")) > 1
        (rest if later else front).append(cell.extract())
    main.extend([front, nav, rest] if sections else [front, rest])
    # What is too wide for a narrow screen scrolls in its box, also by keyboard.
    for code in main.select("pre"):
        code["tabindex"] = "0"
    for wide in main.select(":is(.jp-RenderedMarkdown, .jp-RenderedHTML) > table"):
        wide.wrap(page.new_tag("div", attrs={"class": "report-scroll"}))
    for wide in main.select(".report-scroll"):
        wide["tabindex"] = "0"
    for narrow in main.select(".report-phone"):
        del narrow["hidden"]
    for image in main.select(".report-figure img[alt][width][src^='data:image/svg']"):
        svg = BeautifulSoup(base64.b64decode(str(image["src"]).partition(",")[2]), "html.parser").select("svg")[0]
        svg.attrs |= {"role": "img", "aria-label": image["alt"], "width": f"{1.35 * float(str(image['width'])):.0f}"}
        del svg["height"]
        image.replace_with(svg)
    script, policy = page.select("body > script")[0], page.select("meta[http-equiv]")[0]
    digest = hashlib.sha256(str(script.string).encode()).digest()
    policy["content"] = f"{policy['content']}; script-src 'sha256-{base64.b64encode(digest).decode()}'"


@contextmanager
def _explained(notebook: Path, target: Path) -> Iterator[None]:
    """Turn any error of an engine into one that says which export failed."""
    try:
        yield
    except ReportError:
        raise
    except Exception as error:
        raise ReportError(
            f"{notebook} could not be exported as {target}: {explained(type(error).__name__, str(error))}"
        ) from error
