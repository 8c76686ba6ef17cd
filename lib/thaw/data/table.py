"""A table of photos: a CSV file with the columns path and label, and if need be split and group."""

import csv
import os
from pathlib import Path

import pandas as pd

from thaw.data.files import Found, class_name, some
from thaw.data.folder import PARTS, require
from thaw.errors import DataDamaged, InvalidParameter, did_you_mean

COLUMNS = ("path", "label", "split", "group")


def find(dataset: str, file: Path) -> Found:
    """Read a table of photos; none is opened.

    Paths are relative to the table. Other columns are ignored. The columns
    may be parted by commas, semicolons or tabs.

    Raises
    ------
    DataDamaged, DataNotFound, InvalidParameter
        If there is no such file, or it is no such table.
    """
    require(dataset, file, file.is_file(), "table")
    wrong = f"dataset = {dataset!r}: "
    table = _read(wrong, file)
    missing = [name for name in ("path", "label") if name not in table]
    if missing:
        hint = did_you_mean(missing[0], table.columns).partition("Allowed:")[0]
        raise InvalidParameter(
            f"{wrong}no column {some(missing)} (columns: {some(table.columns)}). {hint}"
            "The first line has to name the columns: path and label, and if need be split and group."
        )
    for name in ("path", "label"):
        _refuse(wrong, f"no {name}", table.index[table[name].str.strip() == ""])
    places = table["path"].map(lambda path: _file(file.parent, path))
    _refuse(wrong, "the same photo again", table.index[places.duplicated()])
    given = table["split"].str.strip().str.lower() if "split" in table else pd.Series("", table.index)
    divided = bool((given != "").any())
    if divided:
        for value in sorted(set(given) - set(PARTS)):
            raise InvalidParameter(
                f"{wrong}split = {value!r} in line {given.index[given == value][0]}. {did_you_mean(value, PARTS)} "
                "Give each photo one of these, or none to all."
            )
        if "train" not in set(given):
            raise InvalidParameter(f"{wrong}no photo's split is train. Give some photos to train on.")
    photos = pd.DataFrame(
        {
            "file": places,
            "path": table["path"].str.strip(),
            "label": [class_name(label, f"{wrong}line {line}") for line, label in table["label"].items()],
            "part": given.map(PARTS) if divided else "train",
            "group": table["group"].str.strip() if "group" in table else "",
        }
    )
    return Found(photos.reset_index(drop=True), divided=divided)


def _read(wrong: str, file: Path) -> pd.DataFrame:
    """Read all cells as text: a class may be called NA or 007. The index is the line in the file."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as opened:
            header = opened.readline()
            separator = max(",;\t", key=header.count)
            opened.seek(0)
            rows = list(csv.reader(opened, delimiter=separator, strict=True))
    except OSError as error:
        raise DataDamaged(f"{wrong}the table cannot be read ({error.strerror}). Change its permissions.") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InvalidParameter(f"{wrong}not a CSV file in UTF-8 ({error}). Save it as one.") from None
    names = [name.strip().lower() for name in rows[0]] if rows else []
    lines = {line: row for line, row in enumerate(rows[1:], start=2) if any(row)}
    if not lines:
        raise InvalidParameter(
            f"{wrong}a table without photos. Give a line with the names of the columns, path and label, "
            "and then a line for each photo."
        )
    _refuse(wrong, f"not {len(names)} cells", [line for line, row in lines.items() if len(row) != len(names)])
    table = pd.DataFrame(list(lines.values()), index=list(lines), columns=names)
    return table.loc[:, ~table.columns.duplicated()]


def _refuse(wrong: str, what: str, lines) -> None:
    if len(lines):
        raise InvalidParameter(
            f"{wrong}{what} in line{'s' * (len(lines) > 1)} {some(map(str, lines), 5)}. Correct the table."
        )


def _file(folder: Path, path: str) -> Path:
    """Find a photo: its path is relative to the table, and may have been written on Windows."""
    file = folder / path.strip()
    there = os.path.exists(file)  # noqa: PTH110 - unlike Path.exists, it accepts any text
    return file if there or "\\" not in path else folder / path.strip().replace("\\", "/")
