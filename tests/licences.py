"""Write docs/licences.md: `make licences`, after `make lock`. tests/test_supply.py checks that it is current."""

import re
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "licences.md"
LOCKS = {  # which lock a package is in first, and what that is for
    "requirements.lock": "report",
    "requirements-cluster.lock": "cluster",
    "requirements-lab.lock": "lab",
    "requirements-test.lock": "tests",
}
# Of packages that do not say it in their metadata, from the licence file in them; of packages for other systems or
# versions of Python, from their pages; and of what a package brings along.
KNOWN = {
    "aiohappyeyeballs": "PSF-2.0",
    "aiohttp": "Apache-2.0 AND MIT",
    "aiosignal": "Apache-2.0",
    "appnope": "BSD",
    "axe-playwright-python": "MIT; brings axe-core, MPL-2.0",
    "colorama": "BSD",
    "conda-inject": "MIT",
    "frozenlist": "Apache-2.0",
    "multidict": "Apache-2.0",
    "namex": "Apache-2.0",
    "propcache": "Apache-2.0",
    "pypandoc-binary": "MIT; brings pandoc, a program of its own, GPL-2.0-or-later",
    "pyreadline3": "BSD",
    "pywinpty": "MIT",
    "simple-parsing": "MIT",
    "snakemake-interface-common": "MIT",
    "snakemake-interface-logger-plugins": "MIT",
    "snakemake-interface-report-plugins": "MIT",
    "snakemake-interface-scheduler-plugins": "MIT",
    "snakemake-interface-storage-plugins": "MIT",
    "throttler": "MIT",
    "yarl": "Apache-2.0",
}
COPYLEFT = re.compile(r"\b(A?GPL|LGPL|General Public|MPL|Mozilla|EUPL|CDDL|EPL)")
TEXT = """\
# Licences of what Thaw uses

Thaw itself is under [Apache-2.0](../LICENSE); its photos and weights have [licences of their own](../lib/thaw/demo/\
NOTICE.md). The packages below are installed from the locks, and none is part of Thaw's own files. A licence is what \
the package's metadata say. `make licences` writes this page, and a test fails if a locked package is missing in it.

**With a copyleft licence**, which binds who changes and hands on the package itself: {copyleft}. {unknown}

| package | licence | for |
|---|---|---|
{rows}
"""


def locked(lock: str) -> list[str]:
    """List the packages of a lock by name."""
    lines = (ROOT / lock).read_text(encoding="utf-8").splitlines()
    return sorted({found[0] for line in lines if (found := re.match("[a-z0-9.-]+", line))})


def licence(name: str) -> str | None:
    """Tell a package's licence; None if it is neither installed nor known, and 'unknown' if it does not say."""
    if name in KNOWN:
        return KNOWN[name]
    try:
        about = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        return None
    kinds = [kind.split(" :: ")[-1] for kind in about.get_all("Classifier") or [] if kind.startswith("License ::")]
    kinds = [kind for kind in kinds if kind != "OSI Approved"]
    words = (about.get("License") or "").strip().partition("\n")[0]
    return about.get("License-Expression") or ", ".join(kinds) or words or "unknown"


def page() -> str:
    """Write the whole page."""
    rows: dict[str, tuple[str, str]] = {}
    for lock, use in LOCKS.items():
        for name in locked(lock):
            rows.setdefault(name, (licence(name) or "unknown", use))
    copyleft = [f"{name} ({said})" for name, (said, _) in sorted(rows.items()) if COPYLEFT.search(said)]
    unknown = [name for name, (said, _) in sorted(rows.items()) if said == "unknown"]
    lines = [f"| {name} | {said} | {use} |" for name, (said, use) in sorted(rows.items())]
    said = f"Of these no licence is known: {', '.join(unknown)}." if unknown else "No licence is unknown."
    return TEXT.format(copyleft=", ".join(copyleft), unknown=said, rows="\n".join(lines))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
