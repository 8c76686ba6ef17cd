"""The sentences of the reports: one template a section, and how a template writes figures.

A filter writes a figure (``{{ share | percent }}``). Every other value counts
as text from outside and is shown letter by letter, so that no template can
forget to escape a class name, a path or an error.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from thaw.records.runs import Run, runs_table
from thaw.report.display import markdown
from thaw.report.notation import amount, narrow, p_value, points, size, times
from thaw.report.statistics import accuracy_interval


def write(section: str, **values: Any) -> str:
    """Write one section of a report as Markdown.

    Parameters
    ----------
    section : str
        The name of a template in this folder, without ``.md.j2``.
    **values
        What the template speaks of, most often ``answer``, a `thaw.report.answer.Answer`.
    """
    return _joined(_ENVIRONMENT.get_template(section).render(values))


def test_result(runs: Sequence[Run]) -> str:
    """Write the test accuracy of one run, or of the folds of one experiment, with its interval."""
    rows = runs_table(runs)
    correct, photos, accuracy = rows["test_correct"].sum(), rows["test_photos"].sum(), rows["test_accuracy"]
    low, high = accuracy_interval(runs)
    folds = len(runs) if len(runs) > 1 else 0
    figures = {"correct": int(correct), "photos": int(photos), "accuracy": accuracy.mean(), "low": low, "high": high}
    return write("test", **figures, folds=folds, vary=accuracy.nunique() > 1)


def _template(section: str) -> str:
    """Read a template. A blank line and a list item are marked, since only these break the text into lines."""
    lines = (Path(__file__).parent / f"{section}.md.j2").read_text(encoding="utf-8").splitlines()
    return "\n".join("\f" if not line.strip() else "\v" * line.startswith("- ") + line for line in lines)


def _joined(text: str) -> str:
    """Join the lines of a rendered template. Text from outside has neither marks nor bare punctuation."""
    text = re.sub(r"[ \n]+", " ", text)
    text = re.sub(r" (?=[.,;:)])|(?<=\() ", "", text)
    text = re.sub(r"[ \f]*\f[ \f]*\v?", "\n\n", text)
    return re.sub(r" ?\v", "\n", text).strip()


def percent(share: float, digits: int = 1) -> str:
    """Write a share from 0 to 1: '94.4%'."""
    return f"{share:z.{digits}%}"  # z: no -0%


def in_points(share: float) -> str:
    """Write a share, or a difference of shares, in points: '2', '5.3'."""
    return f"{100 * share:z.1f}".removesuffix(".0")


def number(value: float, digits: int = 0) -> str:
    """Write a number with thousands separators: '10,245'."""
    return f"{value:,.{digits}f}"


def signed(value: float, digits: int = 2) -> str:
    """Write a number with its sign: '-0.89'."""
    return f"{value:+.{digits}f}"


def count(value: int, what: str) -> str:
    """Write how many there are: '1 seed', '3 seeds'."""
    return f"{value:,} {what}{'' if value == 1 else 's'}"


def duration(seconds: float) -> str:
    """Write a time in its natural unit: '66 seconds', '4.6 minutes', '2.0 hours'."""
    if seconds < 120:
        return f"{seconds:.{0 if seconds >= 10 else 1}f} seconds"
    return f"{seconds / 60:.1f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"


def parameter(value: object) -> str:
    """Write a parameter's value: '0.00001' rather than 1e-05, 'all' for None."""
    if isinstance(value, float):
        return np.format_float_positional(value, trim="-")
    return "all" if value is None else str(value)


def with_accuracy(row: pd.Series) -> str:
    """Name a configuration with its test accuracy, escaped: 'the last 5 layers (94.0%)'."""
    return f"{markdown(row['phrase'])} ({percent(row['test_accuracy'])})"


def weights_title(weights: Mapping[str, Any]) -> str:
    """Name weights, and say whether they are the official ones; not escaped."""
    which = "" if weights.get("own") else f" ({'' if weights['official'] else 'not '}the official ones)"
    return f"{weights['title']}{which}"


def listed(items: Iterable[Any], most: int = 10) -> Markup:
    """Write a list, escaped: its first ten items, and how many more there are."""
    shown = [escaped(item) for item in items]
    if len(shown) > most:
        shown[most:] = [Markup(f"{len(shown) - most:,} more")]
    return Markup(" and ").join([Markup(", ").join(shown[:-1]), *shown[-1:]] if len(shown) > 1 else shown)


def escaped(value: Any) -> Markup:
    """Return a template's own text as it is, and anything else as Markdown in which nothing means anything."""
    return value if isinstance(value, Markup) else Markup(markdown(value))


def _own(write: Callable[..., str]) -> Callable[..., Markup]:
    return lambda *arguments: Markup(write(*arguments))


_FIGURES = (points, narrow, p_value, size, times, amount, percent, in_points, number, signed, count, duration)
_ENVIRONMENT = Environment(
    loader=FunctionLoader(_template),
    undefined=StrictUndefined,
    autoescape=True,  # so that the text of a macro counts as a template's own
    finalize=escaped,
)
# None of Jinja's own filters: "safe", "join" and others would let text through that is not escaped.
_ENVIRONMENT.filters = {write.__name__: _own(write) for write in (*_FIGURES, with_accuracy)}
_ENVIRONMENT.filters |= {"length": len, "listed": listed, "parameter": parameter}
_ENVIRONMENT.filters |= {"reasons": lambda files: [f"{file['path']} ({file['reason']})" for file in files]}
_ENVIRONMENT.filters |= {"these_runs": lambda verdicts: any(verdict.these_runs for verdict in verdicts)}
_ENVIRONMENT.filters |= {"each": lambda items, name: [_ENVIRONMENT.filters[name](item) for item in items]}
