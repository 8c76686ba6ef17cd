"""What may import what, and what is declared: the floors of the library, and its dependencies."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions

import pytest
from conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
HEAVY = {"tensorflow", "keras", "tensorflow_datasets"}
IMPORT_ALL = """
import importlib, pkgutil, sys
room = importlib.import_module(sys.argv[1])
for module in pkgutil.walk_packages(getattr(room, "__path__", []), room.__name__ + "."):
    importlib.import_module(module.name)
print(*sys.modules)
"""


def test_no_room_imports_what_it_must_not(tmp_path):
    """The contracts stand in pyproject.toml, under ``tool.importlinter``."""
    code = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    command = [sys.executable, "-c", code, "--cache-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "room", ["errors", "disk", "experiment", "records", "study.study", "study.plan", "report", "__main__"]
)
def test_a_room_that_trains_nothing_loads_no_tensorflow(room):
    """These rooms start fast: TensorFlow takes seconds to import."""
    command = [sys.executable, "-c", IMPORT_ALL, f"thaw.{room}"]
    loaded = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert f"thaw.{room}" in loaded
    assert not HEAVY & set(loaded)


def imported(source: str) -> Iterator[str]:
    """Yield the packages that `source` imports, those inside functions included."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.partition(".")[0]


def sources(folder: str) -> Iterator[str]:
    """Yield the code of each module and each notebook in `folder`."""
    for path in (ROOT / folder).rglob("*.py"):
        yield path.read_text(encoding="utf-8")
    for path in (ROOT / folder).glob("*.ipynb"):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        yield from ("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")


def declared(*extras: str) -> set[str]:
    """Return the names that pyproject.toml requires, with those of `extras`."""
    groups = [PROJECT["dependencies"], *(PROJECT["optional-dependencies"][extra] for extra in extras)]
    return {canonical(requirement) for group in groups for requirement in group}


def canonical(requirement: str) -> str:
    """Return the name in `requirement` as package registries compare it."""
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement)[0]).lower()


@pytest.mark.parametrize("folder, extras", [("lib", []), ("notebooks", []), ("benchmarks", []), ("tests", ["test"])])
def test_every_import_is_declared(folder, extras):
    ours = {"thaw"} | {path.stem for path in (ROOT / folder).rglob("*.py")}
    ours |= {"torch"} if folder == "benchmarks" else set()  # only its comparison needs it, and says so
    packages = {name for source in sources(folder) for name in imported(source)} - ours - sys.stdlib_module_names
    assert packages, f"no imports found in {folder}"
    known, distributions = declared(*extras), packages_distributions()
    undeclared = [name for name in packages if not known & set(map(canonical, distributions.get(name, [name])))]
    assert not undeclared, f"{folder} imports {sorted(undeclared)}, which pyproject.toml does not declare"


@pytest.mark.parametrize(
    "lock, extras", [("", []), ("-cluster", ["cluster"]), ("-lab", ["lab"]), ("-test", ["cluster", "lab", "test"])]
)
def test_a_lock_pins_all_that_is_declared_with_hashes(lock, extras):
    """Where it does not: run ``make lock``."""
    lines = (ROOT / f"requirements{lock}.lock").read_text(encoding="utf-8").splitlines()
    pinned = [line for line in lines if re.match(r"\w", line)]
    assert declared(*extras) <= set(map(canonical, pinned))
    assert all("==" in line and line.endswith("\\") for line in pinned)
    assert not [line for line in lines if "://" in line]  # no registry's address
