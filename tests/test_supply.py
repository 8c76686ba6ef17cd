"""What Thaw is made of: the packages that it needs are used, locked with hashes, and have licences."""

import re
from importlib import metadata

import licences
import yaml
from conftest import ROOT
from test_rooms import canonical, declared, imported, sources

# Declared for others: TFDS, pandas, pydantic and papermill import them; a kernel and Snakemake are started by name.
FOR_OTHERS = {"importlib-resources", "tabulate", "typing-extensions", "jsonschema", "ipykernel", "snakemake"}


def test_what_is_declared_is_imported():
    """The other way round, see tests/test_rooms.py."""
    homes = metadata.packages_distributions()
    modules = {name for folder in ("lib", "notebooks") for source in sources(folder) for name in imported(source)}
    used = {canonical(home) for module in modules for home in homes.get(module, [])}
    assert declared() - used <= FOR_OTHERS


def test_no_tool_of_the_tests_comes_with_the_report():
    report, tests = (set(licences.locked(lock)) for lock in ("requirements.lock", "requirements-test.lock"))
    assert report < tests
    assert not report & {"playwright", "pytest", "jupyterlab", "mypy", "snakemake-executor-plugin-slurm"}
    assert "playwright" not in licences.locked("requirements-lab.lock") + licences.locked("requirements-cluster.lock")


def test_every_environment_is_made_of_a_lock():
    """Of the hashes, and with no build tools that are not locked."""
    makefile, environment = ((ROOT / name).read_text(encoding="utf-8") for name in ("Makefile", "environment.yml"))
    installs = re.findall(r"\$\(INSTALL\) (.*)", makefile)
    assert len(installs) == 3
    assert all("--no-deps --require-hashes -r" in line or "--no-deps --no-build-isolation" in line for line in installs)
    assert {"setuptools", "wheel"} <= set(licences.locked("requirements.lock"))
    assert yaml.safe_load(environment)["dependencies"] == ["python >=3.11,<3.14", "make", "pip"]
    commands = [line for line in environment.splitlines() if line.startswith("# pip install ")]
    assert commands == [
        "# pip install --no-deps --require-hashes -r requirements.lock",
        "# pip install --no-deps --no-build-isolation --editable .",
    ]


def test_the_workflow_may_read_alone_and_its_actions_are_pinned():
    text = (ROOT / ".github" / "workflows" / "test.yml").read_text(encoding="utf-8")
    workflow = yaml.safe_load(text)
    assert workflow["permissions"] == {"contents": "read"}
    assert all("permissions" not in job for job in workflow["jobs"].values())
    for action in re.findall(r"uses: (.*)", text):
        assert re.fullmatch(r"[\w/-]+@[0-9a-f]{40}  # v[\d.]+", action), action


def test_the_page_of_licences_is_current():
    page = licences.PAGE.read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| ([a-z0-9.-]+) \| (.*?) \|", page, re.MULTILINE))
    names = set().union(*map(licences.locked, licences.LOCKS))
    assert set(rows) - {"package"} == names, "make licences"
    assert "unknown" not in rows.values()
    texts = (ROOT / "requirements-test.lock").read_text(encoding="utf-8")
    for name, said in rows.items():
        version = re.findall(rf"^{re.escape(name)}==(\S+)", texts, re.MULTILINE)
        if name in names and (own := licences.licence(name)) and metadata_is(name, version):
            assert said == own, "make licences"


def metadata_is(name: str, versions: list[str]) -> bool:
    """Whether a package is installed in the only version that is locked."""
    try:
        return [metadata.version(name)] == versions
    except metadata.PackageNotFoundError:
        return False
