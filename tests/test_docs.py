"""What can be set or run is in the docs, and what the docs say can be set or run."""

import re
import shlex

import click
import pytest
from conftest import ROOT

from thaw.__main__ import cli
from thaw.experiment import Experiment
from thaw.study.profile import StudySettings

PAGES = {path.name: path.read_text(encoding="utf-8") for path in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]}
COMMANDS = {name: command for name, command in cli.commands.items() if not command.hidden}
INTERNAL = {"THAW_STATUS", "THAW_RUN", "THAW_KERNELS"}  # variables by which our own processes tell each other something


def first_cells(page: str, heading: str = "") -> list[str]:
    """The first cells of the tables of a page, or of one of its sections."""
    text = PAGES[page].partition(heading)[2].partition("\n## ")[0] if heading else PAGES[page]
    return [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]


def options(command: click.Command) -> set[str]:
    return {name for option in command.params for name in option.opts if name.startswith("--")}


@pytest.mark.parametrize(
    "heading, names",
    [
        ("## Parameters of an experiment", Experiment.model_fields),
        ("## The `study` section of a profile", StudySettings.model_fields),
    ],
    ids=["parameters", "settings"],
)
def test_every_parameter_and_setting_has_a_row_and_no_other_has(heading, names):
    described = {name for cell in first_cells("studies.md", heading) for name in re.findall("`([^`]+)`", cell)}
    assert described == set(names)


def test_every_command_has_a_row_with_its_options():
    rows = dict(re.findall(r"^\| `thaw ([a-z]+)(.*)$", PAGES["commands.md"], re.MULTILINE))
    assert rows.keys() == COMMANDS.keys()
    for name, command in COMMANDS.items():
        assert set(re.findall("`(--[a-z-]+)`", rows[name])) == options(command), name


def test_every_target_of_make_has_a_row():
    targets = set(re.findall("^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    cells = " ".join(first_cells("commands.md"))
    assert set(re.findall("`make ([a-z-]+)`", cells)) == targets


def test_every_variable_has_a_row():
    code = "".join(path.read_text(encoding="utf-8") for path in [*(ROOT / "lib").rglob("*.py"), ROOT / "Snakefile"])
    used = set(re.findall(r"\b(?:THAW|TFDS)_[A-Z_]+\b", code)) - INTERNAL
    assert used == set(re.findall("`([A-Z_]+)`", " ".join(first_cells("studies.md", "## Variables"))))


def commands_in(text: str) -> list[str]:
    """The commands of a page: in lines of code, and in the text."""
    lines = re.findall(r"^ {4}(?:\$ )?((?:thaw|make) .*?)(?: +#.*)?$", text, re.MULTILINE)
    return lines + re.findall(r"`((?:thaw|make) [^`]+)`", text)


@pytest.mark.parametrize("page", PAGES)
def test_what_the_docs_call_a_command_is_one(page):
    targets = set(re.findall("^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for line in commands_in(PAGES[page]):
        program, name, *rest = shlex.split(line.partition(" > ")[0])
        if program == "make":
            assert name in targets, line
            continue
        assert name == "COMMAND" or name in COMMANDS, line
        allowed = {"--help"} | (options(COMMANDS[name]) if name in COMMANDS else set())
        assert {word for word in rest if word.startswith("--")} <= allowed, line


def test_every_file_of_the_catalogue_has_a_row():
    files = {path.stem for path in (ROOT / "params" / "configurations" / "catalogue").glob("*.yaml")}
    assert set(re.findall("`([^`]+)`", " ".join(first_cells("strategies.md")))) == files


@pytest.mark.parametrize("code", [f"D{number}" for number in range(1, 15)])
def test_every_data_check_has_a_row(code):
    from thaw.data import checks

    assert code in {*checks.CHECKS, *checks.OF_FEATURES}
    assert f"| {code} |" in PAGES["your-photos.md"]


def anchors(text: str) -> set[str]:
    """What GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    folder = ROOT if (ROOT / page).exists() else ROOT / "docs"
    for link, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", PAGES[page]):
        path = folder / link if link else folder / page
        assert path.exists(), f"{page}: {link}"
        if anchor:
            assert anchor in anchors(path.read_text(encoding="utf-8")), f"{page}: {link}#{anchor}"


def test_nothing_is_said_twice():
    """No sentence of ten words or more stands in two places."""
    found: dict[str, str] = {}
    for page, text in PAGES.items():
        if page == "CHANGELOG.md":
            continue
        for sentence in re.split(r"(?<=[.:!?])\s+|\n|\|", text):
            words = " ".join(re.findall(r"[^\W\d]+", sentence.lower()))
            if words.count(" ") >= 9:
                assert words not in found, f"{page} and {found[words]}: {sentence}"
                found[words] = page


def test_the_readme_is_short():
    assert len(PAGES["README.md"].splitlines()) <= 120
