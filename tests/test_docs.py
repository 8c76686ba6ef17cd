"""What can be set or run is in the docs."""

import re

import pytest
from conftest import ROOT

from thaw.__main__ import cli
from thaw.experiment import Experiment
from thaw.study.profile import StudySettings

STUDIES = (ROOT / "docs" / "studies.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", [*Experiment.model_fields, *StudySettings.model_fields])
def test_every_parameter_and_setting_has_a_row(name):
    rows = [line.split("|")[1] for line in STUDIES.splitlines() if line.startswith("| `")]
    assert any(f"`{name}`" in cell for cell in rows)


@pytest.mark.parametrize("name", [name for name, command in cli.commands.items() if not command.hidden])
def test_every_command_is_shown(name):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"thaw {name} " in STUDIES + readme


@pytest.mark.parametrize("code", [f"D{number}" for number in range(1, 15)])
def test_every_data_check_has_a_row(code):
    from thaw.data import checks

    assert code in {*checks.CHECKS, *checks.OF_FEATURES}
    assert f"| {code} |" in STUDIES


def test_links_lead_somewhere():
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page.name}: {link}"
