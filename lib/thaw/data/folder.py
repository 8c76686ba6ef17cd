"""A folder of photos: a sub-folder a class, or train, validation and test with class folders in each."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from thaw.data import decoding
from thaw.data.files import Found, class_name, shown, some
from thaw.errors import DataDamaged, DataNotFound, InvalidParameter, did_you_mean

PARTS = {  # by the name of the sub-folder, in any case
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}


def find(dataset: str, folder: Path) -> Found:
    """Find the photos of a folder; none is opened.

    Class folders may have folders in them. Links are followed, but no folder is read twice for one class. Hidden
    files, files that are no photos, and photos outside of class folders are ignored, and their names are given.

    Raises
    ------
    DataDamaged, DataNotFound, InvalidParameter
        If there is no such folder, it cannot be read, or it has no class folders.
    """
    require(dataset, folder, folder.is_dir(), "folder")
    walk = _Walk(folder)
    try:
        tops = walk.folders(folder)
        parts = {top: PARTS[top.name.lower()] for top in tops if top.name.lower() in PARTS}
        divided = any(part == "train" and walk.classes(top) for top, part in parts.items())
        if divided:
            for top in tops:
                if top not in parts and any(walk.photos(top)):
                    raise InvalidParameter(
                        f"dataset = {dataset!r}: photos in {top.name!r}, beside {some(top.name for top in parts)}. "
                        "Beside train, validation and test there can be no class folders: move or remove it."
                    )
            classes = [(child, part) for top, part in parts.items() for child in walk.classes(top)]
        else:
            classes = [(child, "train") for child in walk.classes(folder)]
        rows = [
            (file, file.relative_to(folder).as_posix(), class_name(child.name, f"dataset = {dataset!r}"), part)
            for child, part in classes
            for file in walk.photos(child)
        ]
        walk.beside([folder, *(parts if divided else [])])
    except OSError as error:
        raise DataDamaged(
            f"dataset = {dataset!r}: {error.filename} cannot be read ({error.strerror}). Change its permissions."
        ) from None
    if not rows:
        raise InvalidParameter(
            f"dataset = {dataset!r}: no class folders with photos in {str(folder)!r}"
            f"{f' (found: {some(sorted(walk.ignored), 5)})' if walk.ignored else ''}. "
            "Put the photos of each class into a sub-folder with the class' name."
        )
    # As objects: pandas' own texts hold no name that is not Unicode, and such a file is still to be named.
    photos = pd.DataFrame(rows, columns=["file", "path", "label", "part"], dtype=object).assign(group="")
    return Found(photos, tuple(sorted(walk.ignored)), divided)


def photos_in(folder: Path) -> list[Path]:
    """List the photos in a folder and below, whatever classes they are of.

    Raises
    ------
    OSError
        If a folder cannot be read.
    """
    return _Walk(folder).photos(folder)


def require(dataset: str, path: Path, there: bool, kind: str) -> None:
    """See that a folder or a table is there.

    Raises
    ------
    DataNotFound
        With the nearest name beside it.
    InvalidParameter
        If it is of the other kind.
    """
    if there:
        return
    if path.exists():
        other = {"folder": "a file. Give a folder", "table": "a folder. Give a CSV file"}[kind]
        instead = {"folder": f"table:{path}, if it is a table of photos", "table": f"folder:{path}"}[kind]
        raise InvalidParameter(f"dataset = {dataset!r}: {str(path)!r} is {other}, or write {instead}.")
    above = next((parent for parent in path.absolute().parents if parent.is_dir()), Path("/"))
    missing = path.absolute().relative_to(above).parts[0]
    try:
        beside = [entry.name for entry in above.iterdir() if not entry.name.startswith(".")][:200]
    except OSError:
        beside = []
    near = did_you_mean(missing, beside).split("Allowed:")[0]
    raise DataNotFound(
        f"dataset = {dataset!r}: there is no {kind} {str(path.absolute())!r}; {str(above)!r} has no {missing!r}. {near}"
        "A relative path starts at the project's root, or where there is no project, at the working directory."
    )


@dataclass
class _Walk:
    """Walks through folders once, and notes what is passed over."""

    root: Path
    ignored: dict[str, None] = field(default_factory=dict)
    _found: dict[Path, list[Path]] = field(default_factory=dict)

    def folders(self, folder: Path) -> list[Path]:
        """Give a folder's visible sub-folders, in the order of the alphabet."""
        return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not _hidden(entry.name))

    def classes(self, folder: Path) -> list[Path]:
        """Give the sub-folders with photos in them."""
        return [child for child in self.folders(folder) if self.photos(child)]

    def photos(self, folder: Path) -> list[Path]:
        """Give all photos in a folder and below."""
        if folder not in self._found:
            self._found[folder] = sorted(self._walk(folder))
        return self._found[folder]

    def beside(self, folders: list[Path]) -> None:
        """Note the files that lie in no class folder, and the class folders without photos."""
        for folder in folders:
            for entry in folder.iterdir():
                if entry not in folders and (not entry.is_dir() or _hidden(entry.name) or not self.photos(entry)):
                    self._ignore(entry)

    def _walk(self, folder: Path) -> Iterator[Path]:
        above = [parent.stat() for parent in folder.absolute().parents]
        seen = {(stat.st_dev, stat.st_ino) for stat in above}
        for here, folders, files in os.walk(folder, followlinks=True, onerror=_raise):
            stat = Path(here).stat()
            if (stat.st_dev, stat.st_ino) in seen:  # a link back, or a second one to the same folder
                self._ignore(Path(here))
                folders.clear()
                continue
            seen.add((stat.st_dev, stat.st_ino))
            for hidden in filter(_hidden, folders):
                self._ignore(Path(here, hidden))
            folders[:] = sorted(name for name in folders if not _hidden(name))
            for name in files:
                if not _hidden(name) and Path(name).suffix.lower() in (*decoding.SUFFIXES, *decoding.FOREIGN):
                    yield Path(here, name)
                else:
                    self._ignore(Path(here, name))

    def _ignore(self, path: Path) -> None:
        self.ignored[shown(path.relative_to(self.root).as_posix()) + "/" * path.is_dir()] = None


def _hidden(name: str) -> bool:
    return name.startswith((".", "__MACOSX", "@eaDir"))  # the last two: of macOS' archives, and of a disk station


def _raise(error: OSError) -> None:
    raise error
