"""What a delivered network says of photos, as a table for people, as CSV or as JSON."""

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from thaw.data import decoding, folder
from thaw.data.files import shown
from thaw.network.saved import Saved
from thaw.records.runs import inert


@dataclass
class Predictions:
    """What a network says of photos, told photo by photo.

    Attributes
    ----------
    network : Saved
    write : callable
        Takes the lines of the answer.
    warn : callable
        Takes a line on each file that cannot be read.
    form : {'table', 'csv', 'json'}
    """

    network: Saved
    write: Callable[[str], None]
    warn: Callable[[str], None]
    form: str = "table"
    rows: list[dict] = field(default_factory=list)
    unreadable: list[dict[str, str]] = field(default_factory=list)
    summaries: dict[str, Counter[str]] = field(default_factory=dict)  # by folder: how many photos of each class

    def predict(self, given: Sequence[str]) -> None:
        """Predict files, and all photos in folders; a file that cannot be read is named, and the rest goes on."""
        if self.form == "csv":
            self.write(_csv("path", "class", "probability"))
        for name in given:
            place = Path(name).expanduser()
            before = len(self.rows)
            for photo in self._photos(place):
                self._one(photo)
            if place.is_dir():
                counts = Counter(row["class"] for row in self.rows[before:])
                self.summaries[shown(name)] = Counter({each: counts[each] for each in self.network.classes})
        self._end()

    def _photos(self, place: Path) -> Iterator[Path]:
        if not place.is_dir():
            yield place
            return
        try:
            photos = folder.photos_in(place)
        except OSError as error:
            self._cannot(Path(error.filename), decoding.reason(error))
            return
        if not photos:
            self._cannot(place, "no photos in this folder")
        yield from photos

    def _one(self, path: Path) -> None:
        if path.exists() and not path.is_file():  # a pipe would be waited for without end
            self._cannot(path, "not a file")
            return
        try:
            photo = decoding.read(path)
        except decoding.Unreadable as error:
            self._cannot(path, str(error))
            return
        probabilities = self.network.probabilities(photo)
        best = int(probabilities.argmax())
        named = self.network.classes[best]
        self.rows.append(
            {
                "path": shown(str(path)),
                "class": named,
                "probability": round(float(probabilities[best]), 6),
                "probabilities": dict(zip(self.network.classes, (round(float(p), 6) for p in probabilities))),
            }
        )
        if self.form == "csv":
            self.write(_csv(shown(str(path)), shown(named), f"{probabilities[best]:.6f}"))
        elif self.form == "table":
            width = max(map(len, self.network.classes))
            self.write(f"{probabilities[best]:6.1%}  {shown(named):<{width}}  {shown(str(path))}")

    def _cannot(self, path: Path, reason: str) -> None:
        self.unreadable.append({"path": shown(str(path)), "reason": reason})
        self.warn(f"{shown(str(path))}: cannot be read: {reason}")

    def _end(self) -> None:
        if self.form == "json":
            about = {"photos": self.rows, "unreadable": self.unreadable, "folders": self.summaries}
            self.write(json.dumps(about, indent=1, ensure_ascii=False))
        for name, counts in self.summaries.items() if self.form == "table" else ():
            self.write(f"\n{name}: {counts.total():,} photos")
            self.write("\n".join(f"{count:6,}  {shown(each)}" for each, count in counts.most_common() if count))


def _csv(*cells: str) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(map(inert, cells))
    return text.getvalue()
