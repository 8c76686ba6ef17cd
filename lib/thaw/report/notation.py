"""How the report writes differences and p values."""

import re
from typing import Any

from thaw.report.statistics import Difference

_POINTS = re.compile(r"([+-][\d.]+) points \(([+-][\d.]+) to ([+-][\d.]+)\)")


def points(effect: Difference) -> str:
    """Write a difference of accuracy with its interval, in percentage points."""
    mean, low, high = (f"{100 * value:+z.1f}" for value in (effect.mean, effect.low, effect.high))  # z: no -0.0
    return f"{mean} points ({low} to {high})"


def narrow(effect: Difference) -> str:
    """Write the interval that decides whether there is no difference that matters."""
    low, high = (f"{100 * end:+z.1f}" for end in effect.narrow)
    return f"90% interval: {low} to {high}"


def times(ratio: float) -> str:
    """Write how many times as much: '4.2', '1.05'."""
    return f"{ratio:.{1 if ratio >= 2 else 2}f}"


def effects(text: str) -> list[tuple[float, float, float]]:
    """Read back, in points, the differences that `points` wrote into a text: one number everywhere."""
    return [(float(mean), float(low), float(high)) for mean, low, high in _POINTS.findall(text)]


def p_value(p: float) -> str:
    """Write a p value, for example 'p = 0.040' or 'p < 0.001'."""
    return "p < 0.001" if p < 0.0005 else "p > 0.999" if p > 0.9995 else f"p = {p:.3f}"


def size(share: float) -> str:
    """Write the size of a difference of accuracy: '2 points'."""
    value = f"{100 * share:z.1f}".removesuffix(".0")
    return f"{value} point{'' if value == '1' else 's'}"


def amount(trend: Any, unit: str, value: float | None = None) -> str:
    """Write how a quantity differs in its own unit, with its interval where it has one; or a value of that unit."""
    if unit == "points":
        return size(value) if value is not None else points(trend)
    if value is not None:
        return f"{value:.2g} {unit}".rstrip()
    digits = ".3f" if abs(trend.mean) < 10 else ",.0f"
    text = f"{trend.mean + 0.0:+{digits}} {unit}".rstrip()
    return text if trend.p is None else f"{text} ({trend.low:+{digits}} to {trend.high:+{digits}})"


def capital(text: str) -> str:
    """Write a sentence's first letter as a capital."""
    return text[:1].upper() + text[1:]
