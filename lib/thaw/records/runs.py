"""The files of finished runs: written, read back, and gathered in one table."""

import hashlib
import io
import json
import math
import re
import shutil
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict

from thaw.disk import places
from thaw.disk.atomic import check_writable, write_atomic
from thaw.errors import InvalidParameter, InvalidRecord
from thaw.experiment import Experiment
from thaw.records.record import FIGURES, LAST, FoldsRecord, Record, migrated

TABLES = ("history.csv", "predictions.csv")
# What a spreadsheet would run. A cell that begins so gets an apostrophe before it, and one that begins with apostrophes
# and then so gets one more: each reads back as it was.
_FORMULA = re.compile("'*[=+\\-@\t\r＝＋－＠]")
PHOTOS = "photos.csv"  # of photos in files of their own
FLOOR = 1e-7  # of a probability whose logarithm is taken, as Keras' own loss has it; and what 32 bits can tell apart
ROUNDING = 1e-5  # in parts of a figure that is computed again from a table
# What identifies a row. The backbone and the hash would do; the others keep rows in a readable order.
IDENTITY = ("backbone", "strategy", "amount", "epochs", "configuration")
NAMES = ("label", "short", "phrase", "plain", "control")  # what else depends on the configuration alone


def output_directory(experiment: Experiment) -> Path:
    """Make an experiment's folder, and see that it is writable.

    Without an ``output_dir`` it is one below the project's ``outputs/lab``.

    Raises
    ------
    OutputNotWritable
    """
    name = f"{Path(experiment.backbone).stem}-{experiment.strategy}-{experiment.amount}"
    directory = experiment.output_dir or places.project() / "outputs" / "lab" / name
    check_writable(directory)
    return directory


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV, whole or not at all."""
    write_atomic(path, as_csv(table))


def save(
    directory: Path,
    record: Record,
    history: pd.DataFrame,
    predictions: pd.DataFrame,
    photos: pd.DataFrame | None = None,
) -> None:
    """Write a run's files; ``record.json`` last, with the hashes of the others.

    Parameters
    ----------
    directory : Path
    record : Record
    history, predictions : DataFrame
        An epoch a row; a test photo a row.
    photos : DataFrame, optional
        A photo a row, where photos are files of their own: path, label, part
        or fold, and sha256.
    """
    tables = [history, predictions]
    if (fold := record.experiment.fold) is not None:
        tables = [table.assign(fold=fold)[["fold", *table]] for table in tables]
    _write(directory, record, dict(zip(TABLES, map(as_csv, tables))), photos)


def _write(
    directory: Path, record: Record | FoldsRecord, tables: dict[str, bytes], photos: pd.DataFrame | None
) -> None:
    if photos is not None:
        tables = tables | {PHOTOS: as_csv(photos)}
    content = record.model_dump(mode="json") | {"files": {name: _hash(tables[name]) for name in tables}}
    content["files"]["record.json"] = _hash_of_record(content)
    contents = tables | {"record.json": json.dumps(content, indent=2, ensure_ascii=False).encode() + b"\n"}
    (directory / "record.json").unlink(missing_ok=True)  # that of an earlier run
    for name, written in contents.items():
        write_atomic(directory / name, written)


def of_fold(directory: Path, fold: int) -> Path:
    """Give the folder in which one fold leaves its files, until all are finished."""
    return directory / "folds" / str(fold)


def gather(directory: Path, experiment: Experiment, photos: pd.DataFrame | None = None) -> None:
    """Make one record and one of each table of all finished folds, and delete the folds' own.

    Parameters
    ----------
    directory : Path
        Of the experiment.
    experiment : Experiment
        Tested on several folds.
    photos : DataFrame, optional
        As for `save`.

    Raises
    ------
    InvalidRecord
        If a fold is missing or cannot be read.
    """
    folders = [of_fold(directory, fold) for fold in experiment.tested_folds]
    folds = [Run.read(folder).record for folder in folders]
    tables = {}
    for name in TABLES:
        parts = [(folder / name).read_bytes().split(b"\n", 1) for folder in folders]
        header = max((header for header, _ in parts), key=len)  # what diverged has no predictions, and fewer columns
        tables[name] = b"\n".join([header, b"".join(rows for _, rows in parts)])
    _write(directory, FoldsRecord(parameters=experiment.model_dump(mode="json"), folds=folds), tables, photos)
    others = {path.parent for path in (directory / "folds").glob("*/record.json")} - set(folders)
    for folder in folders if others else [directory / "folds"]:  # those that are not asked for now may be again
        shutil.rmtree(folder, ignore_errors=True)


def holds_all_folds(directory: Path, experiment: Experiment) -> bool:
    """Whether a record has as many folds as are to be tested; True also of one that is damaged or of no folds."""
    if len(experiment.tested_folds) < 2:
        return True
    try:
        return len(json.loads((directory / "record.json").read_bytes())["folds"]) >= len(experiment.tested_folds)
    except (OSError, ValueError, KeyError, TypeError):
        return True


def take_apart(directory: Path, experiment: Experiment) -> None:
    """Give the folds of one record folders of their own again, where more folds are to be tested than it holds."""
    if holds_all_folds(directory, experiment):
        return
    try:
        found = Run.read_all(directory)
    except InvalidRecord:
        return
    tables = {name: pd.read_csv(directory / name, dtype=str, keep_default_na=False) for name in TABLES}
    for run in found:
        fold = run.record.experiment.fold
        assert fold is not None  # of a record of folds
        rows = {name: table[table["fold"] == str(fold)] for name, table in tables.items()}
        own = {name: table.to_csv(index=False, lineterminator="\n").encode() for name, table in rows.items()}
        _write(of_fold(directory, fold), run.record, own, None)
    (directory / "record.json").unlink()


def read(directory: Path, experiment: Experiment | None = None) -> list["Run"]:
    """Read what an experiment has left: one run, or of several folds those that are finished.

    Parameters
    ----------
    directory : Path
    experiment : Experiment, optional
        The one that is expected there.

    Raises
    ------
    InvalidRecord
        If there is none, or one is damaged, of a newer schema version, or of
        other parameters than those expected.
    """
    if (directory / "record.json").is_file() or experiment is None or not experiment.tested_folds:
        found = Run.read_all(directory)
    else:
        folders = [of_fold(directory, fold) for fold in experiment.tested_folds]
        found = [Run.read(folder) for folder in folders if (folder / "record.json").is_file()]
        if not found:
            raise InvalidRecord(f"{directory}: no fold is finished.")
    if experiment is not None:
        expected = {each.fold: each for each in experiment.in_turn()}
        found = [run for run in found if run.record.experiment.fold in expected] or found  # fewer are tested than were
        for run in found:
            own = run.record.experiment
            if own.fold not in expected or own.digest != expected[own.fold].digest:
                raise InvalidRecord(
                    f"{directory}: the record is of other parameters. Delete the folder to run it again."
                )
    return found


def together(runs: Iterable["Run"]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Put the histories of the folds of one experiment together, and their predictions."""
    histories, predictions = zip(*((run.history, run.predictions) for run in runs))
    return pd.concat(histories, ignore_index=True), pd.concat(predictions, ignore_index=True)


def as_csv(table: pd.DataFrame) -> bytes:
    """Turn a table into a CSV file's content, in which no cell is a formula to a spreadsheet."""
    texts = {name: table[name].map(inert) for name in table.select_dtypes(["object", "string"])}
    return table.assign(**texts).rename(columns=inert).to_csv(index=False, lineterminator="\n").encode()


def inert(cell: Any) -> Any:
    """Write a cell of a CSV file so that no spreadsheet runs it."""
    return f"'{cell}" if isinstance(cell, str) and _FORMULA.match(cell) else cell


def as_it_was(cell: str) -> str:
    """Read a cell that `inert` has written."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


class Run(BaseModel):
    """A finished run, read back."""

    model_config = ConfigDict(arbitrary_types_allowed=True, frozen=True)

    record: Record
    history: pd.DataFrame
    predictions: pd.DataFrame

    @cached_property
    def correct(self) -> pd.Series:
        """Whether each test photo is classified correctly, by its key, in the keys' order."""
        photos = self.predictions.set_index("key").sort_index()
        return photos["label"] == photos["predicted"]

    @cached_property
    def identity(self) -> tuple:
        """The values of `IDENTITY`: runs that differ in their seed alone have the same."""
        return tuple(getattr(self.record.experiment, name) for name in IDENTITY)

    @cached_property
    def recall(self) -> pd.Series:
        """The share of each class's test photos that are classified correctly, by the class's name."""
        return (self.predictions["label"] == self.predictions["predicted"]).groupby(self.predictions["label"]).mean()

    @classmethod
    def read(cls, directory: Path) -> "Run":
        """Read a run's files: `read_all` where there is one fold, or none."""
        (run,) = cls.read_all(directory)
        return run

    @classmethod
    def read_all(cls, directory: Path) -> list["Run"]:
        """Read the files of a run, or of the folds of which it consists.

        Raises
        ------
        InvalidRecord
            If one is missing, damaged, or of a newer schema version.
        """
        try:
            contents = {name: (directory / name).read_bytes() for name in ("record.json", *TABLES)}
            written = dict(json.loads(contents["record.json"]))
            kind = FoldsRecord if "folds" in written else Record
            record = kind.model_validate_json(json.dumps(migrated(written)), strict=True)
            for name in TABLES:
                digest = _hash(contents[name])
                unhashed = digest if written["schema_version"] == 1 else None  # tables had no hashes then
                if record.files.get(name, unhashed) != digest:
                    raise ValueError(f"{name} is not the one that was written")
            text = dict.fromkeys(("key", "label", "predicted"), as_it_was)
            tables = [pd.read_csv(io.BytesIO(contents[name]), converters=text) for name in TABLES]
            runs = []
            for each in record.folds if isinstance(record, FoldsRecord) else [record]:
                fold = each.experiment.fold
                rows = tables if fold is None else [table[table["fold"] == fold] for table in tables]
                history, predictions = (table.reset_index(drop=True) for table in rows)
                _agree(each, history, predictions)
                runs.append(cls(record=each, history=history, predictions=predictions))
            own = _hash_of_record(written)
            if record.files.get("record.json", own) != own:  # older records have no hash of their own
                raise ValueError("record.json is not the one that was written")
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, InvalidParameter) as error:
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise InvalidRecord(
                f"{directory}: not a run's record ({'; '.join(reason[:3])}). Delete the folder to run it again."
            ) from None
        return runs


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _hash_of_record(content: dict[str, Any]) -> str:
    """Hash what ``record.json`` holds, but for this hash itself."""
    files = {name: digest for name, digest in content.get("files", {}).items() if name != "record.json"}
    return _hash(json.dumps(content | {"files": files}, sort_keys=True).encode())


def _agree(record: Record, history: pd.DataFrame, predictions: pd.DataFrame) -> None:
    """Compute a record's figures from its tables, and raise ValueError with those that the record has otherwise."""
    experiment, fold = record.experiment, record.experiment.fold
    last, seconds = history.iloc[-1], history.groupby("phase")["seconds"].sum()
    told: dict[str, Any] = {"diverged": record.diverged}
    found: dict[str, Any] = {"diverged": _diverged(history)}
    for phase in ("head", "finetune"):
        told[f"training_seconds.{phase}"] = getattr(record.training_seconds, phase)
        found[f"training_seconds.{phase}"] = float(seconds.get(phase, 0))
    if not record.diverged:
        told["epochs"], found["epochs"] = experiment.epochs, len(history)
        told |= {name: getattr(record, name) for name in (*LAST, "test_accuracy", "test_loss")}
        found |= {name: float(last[name]) for name in LAST} | scores(predictions)
        told["data.photos.test"], found["data.photos.test"] = record.data["photos"]["test"], len(predictions)
        if record.kept_epoch is not None:
            told["kept_epoch"], found["kept_epoch"] = record.kept_epoch, _kept_epoch(record, history)
    if history["epoch"].tolist() != list(range(1, len(history) + 1)):
        raise ValueError("history.csv does not have an epoch a row")
    wrong = [
        f"{name} is {told[name]}, by the tables {value}"
        for name, value in found.items()
        if told[name] != value
        and (None in (told[name], value) or not math.isclose(told[name], value, rel_tol=ROUNDING, abs_tol=FLOOR))
    ]
    if wrong:
        of_fold = "" if fold is None else f" of fold {fold}"
        raise ValueError(f"record.json and its tables say different things{of_fold}: {'; '.join(wrong)}")


def _diverged(history: pd.DataFrame) -> int | None:
    """Give the first epoch whose loss was no finite number; None if there is none."""
    lost = ~np.isfinite(history[["train_loss", "validation_loss"]].to_numpy(float)).all(axis=1)
    return int(history["epoch"][lost].iloc[0]) if lost.any() else None


def _kept_epoch(record: Record, history: pd.DataFrame) -> int:
    """Give the epoch whose weights a run was tested with."""
    if record.experiment.keep != "best":
        return len(history)
    own = history[history["phase"] == history["phase"].iloc[-1]]
    if record.experiment.gradual:  # it is of the last of several steps; how many there are, the network says
        own = own[own["epoch"] >= (record.kept_epoch or 0)]
    return int(own["epoch"].iloc[own["validation_loss"].argmin()])


def scores(predictions: pd.DataFrame) -> dict[str, float]:
    """Compute the share of correct predictions, and the mean cross-entropy in nats.

    Parameters
    ----------
    predictions : DataFrame
        As `thaw.training.evaluation.predict` returns them.

    Returns
    -------
    dict
        ``test_accuracy``; ``test_loss``, if there are probabilities.
    """
    found = {"test_accuracy": float((predictions["label"] == predictions["predicted"]).mean())}
    position = {name: i for i, name in enumerate(name for name in predictions.columns if name.startswith("p_"))}
    if position:
        right = [position[f"p_{name}"] for name in predictions["label"]]
        probabilities = predictions[list(position)].to_numpy()[np.arange(len(predictions)), right]
        found["test_loss"] = float(-np.log(np.clip(probabilities, FLOOR, 1 - FLOOR)).mean())
    return found


def runs_table(runs: Iterable[Run]) -> pd.DataFrame:
    """Gather many runs in one table.

    Returns
    -------
    DataFrame
        A run a row: `IDENTITY`, `NAMES`, seed, fold (NaN without folds), the record's figures,
        balanced_accuracy (the mean recall of the classes),
        ``inference_ms_per_image`` as its median, and ``training_seconds`` of
        all phases together beside ``activations_seconds``, ``head_seconds``
        and ``finetune_seconds``.
    """
    rows = []
    for run in runs:
        record, experiment = run.record, run.record.experiment
        row = {name: getattr(experiment, name) for name in (*IDENTITY, *NAMES, "seed")}
        row["fold"] = float("nan") if experiment.fold is None else experiment.fold
        row |= record.model_dump(include=set(FIGURES))
        row |= {f"{phase}_seconds": seconds for phase, seconds in record.training_seconds.model_dump().items()}
        row["peak_device_memory_mb"] = record.peak_device_memory_mb or float("nan")
        row["inference_ms_per_image"] = getattr(record.inference_ms_per_image, "median", float("nan"))
        row["training_seconds"] = record.training_seconds.total
        row["test_photos"] = len(run.predictions)
        row["test_correct"] = int((run.predictions["label"] == run.predictions["predicted"]).sum())
        row["balanced_accuracy"] = float(run.recall.mean())
        rows.append(row)
    return pd.DataFrame(rows)
