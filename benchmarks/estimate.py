"""Does a study take as long as `thaw init` says?

    python benchmarks/estimate.py PHOTOS [--minutes 3 6 12] [--backbone mobilenet ...]

For each time it lets `thaw init` write a profile, runs the study with an empty cache, and compares. The ratio of what
it took to the estimate should be between 1/1.5 and 1.5. Nothing else may run on the machine meanwhile.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
THAW = [sys.executable, "-m", "thaw"]


def main() -> None:
    """Print a line for each time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos")
    parser.add_argument("--minutes", type=float, nargs="+", default=[3, 6, 12])
    parser.add_argument("--backbone", nargs="+", default=["mobilenet"])
    options = parser.parse_args()
    print("| given, min | estimated, min | took, min | ratio | what |\n|--:|--:|--:|--:|---|", flush=True)
    for minutes in options.minutes:
        estimated, took, what = compare(options.photos, options.backbone, minutes)
        print(f"| {minutes:g} | {estimated:.1f} | {took:.1f} | {took / estimated:.2f} | {what} |", flush=True)


def compare(photos: str, networks: list[str], minutes: float) -> tuple[float, float, str]:
    """Estimate a study and run it.

    Returns
    -------
    estimated, took : float
        In minutes.
    what : str
        What the study is, in words.
    """
    name = f"estimate-{minutes:g}".replace(".", "-")
    profile = ROOT / "params" / "profiles" / f"{name}.yaml"
    profile.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"THAW_CACHE_DIR": f"{folder}/cache"}
        chosen = [word for network in networks for word in ("--backbone", network)]
        command = [*THAW, "init", photos, *chosen, "--minutes", str(minutes), "--name", name]
        subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
        text = profile.read_text(encoding="utf-8")
        number, unit, what = re.search(r"^# Cost: about ([\d.]+) (minutes?|hours) on .*?: (.*)\.$", text, re.M).groups()
        began = time.perf_counter()
        command = [*THAW, "report", name, "--outputs", f"{folder}/outputs"]
        subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
        took = (time.perf_counter() - began) / 60
    profile.unlink()
    return float(number) * (60 if unit == "hours" else 1), took, what


if __name__ == "__main__":
    main()
