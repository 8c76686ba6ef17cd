"""The pictures of the reports: those of one run, and those of a study."""
# ruff: noqa: F401

from thaw.report.figures.claims import claims
from thaw.report.figures.run import confusion, curves, heat, photo_grid, photo_titles, strip
from thaw.report.figures.study import (
    accuracy_by_cost,
    accuracy_by_parameters,
    learning_curves,
    learning_curves_of,
    losses,
    probe,
    rates,
    trained,
)
from thaw.report.figures.style import FROZEN, UNFROZEN
