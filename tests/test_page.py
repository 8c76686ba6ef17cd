"""The exported page as a tool, in a browser: contents, tables, values in figures, themes; and what it refuses."""

import re
from types import SimpleNamespace

import matplotlib.pyplot as plt
import nbformat.v4 as v4
import pandas as pd
import pypdfium2
import pytest
from browser import assert_clean, chromium, has_chromium
from conftest import ROOT
from PIL import Image
from playwright.sync_api import expect
from test_report import displayed, saved

from thaw.report.display import Box, Figure, Link, Table, TitlePage
from thaw.report.export import export_html, export_pdf
from thaw.report.figures.style import grid, point, says

HOSTILE = "<img src=x onerror=alert(1)> \"' & javascript:alert(2)"
ROWS = [
    # what trains, accuracy, parameters, time, remark
    ("last 5 layers", "94.0% (91.0 to 96.1)", "1,057,797", "4.6 minutes", "+0.5"),
    ("last 40 layers", "94.4% (91.5 to 96.3)", "2,937,339", "1.2 hours", "-1.5"),
    ("last 10 layers", "93.8% (90.8 to 95.9)", "1,593,349", "59 seconds", "−0.5"),
    ("frozen", "–", "5,125", "7.5 seconds", "+2.0"),
    *((f"row {number}", f"{number}.0% (1 to 2)", f"{number}", f"{number} hours", "0") for number in range(7, 14)),
    (HOSTILE, "100.0% (99.0 to 100.0)", "1e-05", "2 minutes", ""),
]
PROSE = "A sentence that is long enough to fill a line of the page. " * 40


def figure() -> plt.Figure:
    drawn, ((axes,),) = grid(3)
    for x, (low, value, high) in enumerate(((0.1, 0.2, 0.3), (0.4, 0.5, 0.7), (0.6, 0.8, 0.9))):
        point(axes, x, value, (low, high), "tab:blue", "layers", value=f"configuration {x}: {value:.1%}")
    says(HOSTILE, axes.text(1, 0.1, HOSTILE))
    return drawn


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A report as wide and as long as a real one."""
    folder = tmp_path_factory.mktemp("page")
    rows = pd.DataFrame(ROWS, columns=["What trains", "Accuracy", "Parameters", "Time", "Points"])
    links = pd.DataFrame([("a run", Link("experiment.ipynb", "runs/a b:c#d/experiment.ipynb"), None)] * 3)
    sections = [v4.new_markdown_cell(f"## Section {n}: 50% of it\n\n{PROSE}") for n in range(1, 8)]
    raw = "<script>document.title = 'run'</script><img src=data:x onerror=\"document.title = 'run'\">"
    notebook = saved(
        folder / "summary.ipynb",
        displayed(TitlePage("How much?", "On flowers")),
        v4.new_markdown_cell("## In *short*\n\nUnfreeze *five layers*."),
        displayed(Box("What to do", {"Device": "a laptop"})),
        *sections[:3],
        displayed(Table(rows, f"Results of {HOSTILE}.")),
        displayed(Figure(figure, "A figure.", f"It rises. {HOSTILE}"), Figure(figure, "Another.", "The same.")),
        *sections[3:],
        v4.new_markdown_cell("## Again\n\n| a | b |\n|--|--|\n| c | d |\n\n### Again"),
        displayed(Table(pd.DataFrame([("It is so.", PROSE[:90])], columns=["Claim", "Why"]), "Claims.", folded=True)),
        displayed(Table(links.set_axis(["Run", "Notebook", "Record"], axis=1), "Files.", folded=True, on_paper=False)),
    )
    export_html(notebook, folder / "report.html")
    export_pdf(notebook, folder / "report.pdf")
    export_html(saved(folder / "raw.ipynb", displayed({"text/html": raw})), folder / "raw.html")
    return SimpleNamespace(html=folder / "report.html", raw=folder / "raw.html", pdf=folder / "report.pdf")


@pytest.fixture(scope="module")
def browser():
    with chromium() as started:
        yield started


@pytest.fixture
def page(report, browser):
    with browser.new_page(viewport={"width": 1280, "height": 800}) as opened:
        opened.goto(report.html.as_uri())
        yield opened


def column(page, number: int) -> list[str]:
    return page.locator(f".report-table tbody tr:visible td:nth-child({number})").all_text_contents()


@has_chromium
def test_it_is_clean_at_both_widths_and_in_both_themes(report, browser):
    assert_clean(browser, report.html)


@has_chromium
@pytest.mark.parametrize(
    "number, first, last",
    [
        (1, [HOSTILE, "frozen", "last 5 layers", "last 10 layers", "last 40 layers"], []),
        (2, ["7.0% (1 to 2)"], ["94.4% (91.5 to 96.3)", "100.0% (99.0 to 100.0)", "–"]),
        (3, ["1e-05", "7", "8"], ["1,057,797", "1,593,349", "2,937,339"]),
        (4, ["7.5 seconds", "59 seconds", "2 minutes", "4.6 minutes", "1.2 hours", "7 hours"], ["13 hours"]),
        (5, ["-1.5", "−0.5", "0"], ["+0.5", "+2.0", ""]),
    ],
)
def test_a_table_sorts_by_keyboard_up_down_and_back(page, number, first, last):
    as_it_was = column(page, number)
    page.locator(f".report-table th:nth-child({number}) button").focus()
    page.keyboard.press("Enter")
    up = column(page, number)
    assert up[: len(first)] == first
    assert up[len(up) - len(last) :] == last
    page.keyboard.press("Space")
    down, blank = column(page, number), [text for text in up if text in ("", "–")]
    assert down == [text for text in up if text not in blank][::-1] + blank
    assert page.locator("th[aria-sort=descending]").count() == 1
    page.keyboard.press("Enter")
    assert column(page, number) == as_it_was
    assert not page.locator("th[aria-sort=descending], th[aria-sort=ascending]").count()


@has_chromium
def test_a_long_table_is_searched_by_keyboard(page):
    page.get_by_role("searchbox").focus()
    page.keyboard.type("LAYERS last 94")
    assert column(page, 1) == ["last 5 layers", "last 40 layers"]
    assert page.get_by_text("2 of 12 rows").is_visible()
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "What trains"
    page.keyboard.press("Enter")
    assert page.locator("tr:visible").count(), "sorted with the rest out of sight"
    page.get_by_role("searchbox").fill("")
    assert len(column(page, 1)) == len(ROWS)


@has_chromium
def test_the_contents_mark_the_section_that_is_read_and_lead_to_each(page):
    marked = page.locator("nav [aria-current]")
    assert marked.all_text_contents() == ["In short"]
    for link in page.locator("nav a").all():
        link.click()
        target = page.locator(f"[id='{page.evaluate('decodeURIComponent(location.hash.slice(1))')}']")
        assert target.text_content() == link.text_content()
        assert target.bounding_box()["y"] < 800
    page.locator("nav a", has_text="Section 5").click()
    expect(marked).to_have_text("Section 5: 50% of it")
    page.mouse.wheel(0, 100_000)
    expect(marked).to_have_text("Again")
    assert page.locator("nav").bounding_box()["y"] >= 0, "beside the text all the time"
    assert page.locator("h2 .anchor").all_text_contents()[0] == "In short", "one link, whatever is in it"
    page.locator("h2 .anchor", has_text="Section 2").click()
    assert page.url.endswith("#Section-2-50-of-it")


@has_chromium
def test_on_a_phone_the_answer_comes_before_the_contents(report, browser):
    with browser.new_page(viewport={"width": 390, "height": 844}) as page:
        page.goto(report.html.as_uri())
        places = [page.get_by_text(text).first.bounding_box()["y"] for text in ("How much?", "five layers", "Contents")]
        assert places == sorted(places)
        assert places[-1] < page.get_by_text("Section 1").last.bounding_box()["y"]
        assert not page.locator("nav a").first.is_visible()
        page.locator("summary", has_text="Contents").press("Enter")
        assert page.locator("nav a").first.is_visible()


@has_chromium
def test_figures_have_a_form_for_phones_and_prose_is_stacked_there(report, browser):
    for width, wide in ((1280, True), (390, False)):
        with browser.new_page(viewport={"width": width, "height": 844}) as page:
            page.goto(report.html.as_uri())
            assert page.locator(".report-wide svg").first.is_visible() == wide
            assert page.locator(".report-phone svg").first.is_visible() != wide
            boxes = "[...document.querySelectorAll('.report-figure .report-scroll')]"
            assert page.evaluate(f"{boxes}.every(box => box.scrollWidth <= box.clientWidth)")
            letters = page.locator(".report-figure svg text").filter(visible=True).first.bounding_box()
            assert letters["height"] >= 9, "readable"
            shown = page.evaluate("getComputedStyle(document.querySelector('.report-prose td')).display")
            assert shown == ("table-cell" if wide else "block")


@has_chromium
def test_marks_say_their_values_under_the_pointer_and_by_keyboard(page):
    tip, box = page.locator(".report-tip"), page.locator(".report-figure .report-scroll").first
    box.focus()
    said = []
    for key in ["ArrowRight"] * 4 + ["ArrowLeft", "Escape"]:
        page.keyboard.press(key)
        said.append(tip.text_content())
    values = [f"configuration {x}: {share:.1%}" for x, share in enumerate((0.2, 0.5, 0.8))]
    assert said == [*values, HOSTILE, values[2], ""]
    mark = page.locator(f"[data-value='{values[1]}']").nth(1).bounding_box()
    page.mouse.move(mark["x"] + mark["width"] + 2, mark["y"] + mark["height"] + 2)  # near is enough
    assert tip.text_content() == values[1]
    page.mouse.move(5, 5)
    assert tip.text_content() == ""


@has_chromium
def test_without_scripts_everything_is_there(report, browser):
    with browser.new_page(java_script_enabled=False) as page:
        page.goto(report.html.as_uri())
        assert page.locator("svg title", has_text="configuration 1: 50.0%").count()
        assert page.locator("nav a", has_text="Section 7").is_visible()
        assert len(column(page, 1)) == len(ROWS)


def corner(page, folder) -> list[tuple]:
    """The colours of the page's and a figure's backgrounds."""
    colours = []
    for name, locator in (("page", page.locator("h1")), ("figure", page.locator(".report-figure svg").first)):
        locator.screenshot(path=folder / f"{name}.png")
        with Image.open(folder / f"{name}.png") as picture:
            colours.append(picture.convert("RGB").getpixel((1, 1)))
    return colours


@has_chromium
def test_the_theme_follows_the_reader_and_figures_go_with_it_but_paper_is_white(page, tmp_path):
    assert corner(page, tmp_path) == [(255, 255, 255)] * 2
    page.emulate_media(color_scheme="dark")
    paper, behind = corner(page, tmp_path)
    assert max(paper) < 60
    assert max(abs(a - b) for a, b in zip(paper, behind)) <= 2
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.locator("nav, .report-search, .report-screen").filter(visible=True).count()


@has_chromium
def test_no_other_script_runs_and_nothing_is_fetched(report, browser):
    with browser.new_page() as page:
        refused = []
        page.on("console", lambda message: refused.append(message.text))
        page.goto(report.raw.as_uri())
        assert page.title() == "raw"
        assert len([text for text in refused if "Content Security Policy" in text]) == 2
        fetched = "fetch('https://example.com').then(() => 'fetched', () => 'refused')"
        assert page.evaluate(fetched) == "refused"
        assert any("connect-src" in text or "example.com" in text for text in refused)


@has_chromium
def test_nothing_in_a_name_is_markup(page):
    for selector in ("td", "figcaption", "svg text"):
        assert HOSTILE in " ".join(page.locator(selector).all_text_contents())
    assert page.locator(".report-figure svg").first.get_attribute("aria-label") == f"It rises. {HOSTILE}"
    assert not page.locator("[onerror], img[src=x]").count()


def test_files_of_runs_are_links_of_the_page_alone(report):
    html = report.html.read_text(encoding="utf-8")
    assert html.count('href="runs/a%20b%3Ac%23d/experiment.ipynb"') == 3
    pages = pypdfium2.PdfDocument(report.pdf)
    assert "experiment.ipynb" not in "".join(page.get_textpage().get_text_range() for page in pages)


def test_ids_are_there_once(report):
    ids = re.findall(r'<[^>]* id="([^"]*)"', report.html.read_text(encoding="utf-8"))
    assert len(ids) > 10
    assert {"Again", "Again-1"} <= set(ids)
    assert len(ids) == len(set(ids))


@has_chromium
def test_a_phone_shows_what_trains_its_accuracy_and_its_time_without_scrolling(browser):
    with browser.new_page(viewport={"width": 390, "height": 844}) as page:
        page.goto((ROOT / "outputs" / "paper" / "report.html").as_uri())
        columns = page.locator(".report-table thead").first.locator("th")
        assert columns.all_text_contents()[:4] == ["Network", "What trains", "Test acc. (95%)", "Training (min)"]
        ends = [cell.bounding_box() for cell in columns.all()[:4]]
        assert max(end["x"] + end["width"] for end in ends) <= 370
