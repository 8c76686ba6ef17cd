"""How the report writes differences and p values."""

from thaw.report.statistics import Difference


def points(effect: Difference) -> str:
    """Write a difference of accuracy with its interval, in percentage points."""
    mean, low, high = (round(100 * value, 1) + 0.0 for value in (effect.mean, effect.low, effect.high))  # no -0.0
    return f"{mean:+.1f} points ({low:+.1f} to {high:+.1f})"


def p_value(p: float) -> str:
    """Write a p value, for example 'p = 0.040' or 'p < 0.001'."""
    return "p < 0.001" if p < 0.0005 else "p > 0.999" if p > 0.9995 else f"p = {p:.3f}"
