"""Whether a study's latency, report and network belong to its present records: told by content, never by file times."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from thaw.disk import places
from thaw.disk.hashes import sha256
from thaw.errors import InvalidRecord, first_line
from thaw.experiment import Experiment
from thaw.study.study import FINDINGS, Study

RUN = ("record.json", "history.csv", "predictions.csv")
NAMING = ("report.html", "report.pdf", "answer.json")  # of a report, the files that name what it is made from
TABLES = ("results.csv", "results.md", "results.tex")
REPORTING = Path(__file__).parents[1] / "report"  # the code and the templates that turn records into words
MODEL, NETWORK, ABOUT = "model", "model.keras", "model.json"  # the folder of the network that a study leaves
CALLS = {"backbone", "call", "photos", "round", "milliseconds", "device", "cores"}  # columns of latency.csv


def latency_is_current(study: Study) -> bool:
    """Whether ``latency.csv`` can be read and covers each network of the study."""
    try:
        calls = latency(study)
    except InvalidRecord:
        return False
    if calls is None:
        return False

    def is_covered(experiment: Experiment) -> bool:
        rows = calls[calls["backbone"] == experiment.backbone]
        for name, value in {"image_size": experiment.image_size, "precision": "float32"}.items():
            rows = rows[rows[name] == value] if name in rows else rows  # older files lack them
        return len(rows) > 0

    return all(map(is_covered, study.networks()))


def latency(study: Study) -> pd.DataFrame | None:
    """Read ``latency.csv``, as `thaw.study.latency.measure` makes it; None if there is none.

    Raises
    ------
    InvalidRecord
        If it is damaged.
    """
    path = study.outputs / "latency.csv"
    try:
        calls = pd.read_csv(path)
        if missing := CALLS - set(calls):
            raise ValueError(f"without the columns {', '.join(sorted(missing))}")
        if not (pd.to_numeric(calls["milliseconds"]) > 0).all():
            raise ValueError("milliseconds has a value that is not above 0")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise InvalidRecord(
            f"{path} is damaged ({first_line(error)}). Delete it: thaw report measures the latency again."
        ) from None
    return calls


def report_is_current(study: Study) -> bool:
    """Whether the report is there in all its forms, and each names what it would be made from now."""
    digest = made_from(study).encode()
    try:
        return all(digest in (study.outputs / name).read_bytes() for name in NAMING) and all(
            (study.outputs / name).is_file() for name in TABLES
        )
    except OSError:
        return False


def remove_report(study: Study) -> None:
    """Delete the report, so that no old one can be taken for the new one."""
    for name in (*NAMING, *TABLES, "summary.ipynb"):
        (study.outputs / name).unlink(missing_ok=True)


def model_is_current(study: Study) -> bool:
    """Whether the folder ``model`` holds all that it should, with its card, made from what is there now."""
    return card(study).is_file() and delivered(study).get("made_from") == model_made_from(study)


def card(study: Study) -> Path:
    """Give the path of the model card."""
    return study.outputs / MODEL / "README.md"


def model_made_from(study: Study) -> str:
    """Return a digest of everything that a study's network and its card are made from."""
    return hashlib.sha256(f"{made_from(study)} {study.settings.deliver}".encode()).hexdigest()


def delivered(study: Study) -> dict[str, Any]:
    """Read what the folder ``model`` says of its network; nothing if a file is missing or is not as it was written."""
    folder = study.outputs / MODEL
    try:
        about = dict(json.loads((folder / ABOUT).read_text(encoding="utf-8")))
        files = dict(about["files"])
        whole = all(sha256(folder / name) == digest for name, digest in files.items())
        return about if whole else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def made_from(study: Study) -> str:
    """Return a digest of everything that a study's report is made from."""
    facts = {
        "version": version("thaw"),
        "profile": study.profile,
        "settings": study.settings.model_dump(mode="json", exclude={"hours"}),
        "jobs": [job.name for job in study.jobs],
        "missing": {job.name: [reason, job.unfinished_folds()] for job, reason in study.reasons().items()},
    }
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for path in _files(study):
        digest.update(hashlib.sha256(path.read_bytes()).digest() if path.is_file() else b"missing")
    return digest.hexdigest()


def _files(study: Study) -> Iterator[Path]:
    root = places.project()
    for job in study.jobs:
        yield from (folder / name for folder in job.folders or [job.directory] for name in RUN)
    for choice in study.choices:
        yield choice.path
    yield study.outputs / "latency.csv"
    if (study.outputs / FINDINGS).is_file():
        yield study.outputs / FINDINGS
    yield from sorted(study.outputs.glob("probe-*.json"))
    yield root / "notebooks" / "summary.ipynb"
    yield from sorted(path for path in REPORTING.rglob("*") if path.is_file() and path.suffix != ".pyc")
    if study.claims:
        yield from study.claims.files
