"""Which learning rates each configuration was trained with to choose one, and what each came to."""

from __future__ import annotations

import pandas as pd

from thaw.study.study import Study


def table(study: Study) -> pd.DataFrame | None:
    """Read all that was tried.

    Returns
    -------
    DataFrame or None
        A rate of a configuration a row: backbone, configuration, label,
        parameter (``head_learning_rate`` or ``finetune_learning_rate``),
        value, loss and accuracy on the photos that choose (how many is in
        ``photos``), epochs, seconds, diverged, extended (whether it was not in
        the profile, but tried because the grid's last rate was best), chosen.
        None where nothing was tried.
    """
    tried = [pd.read_csv(path) for path in sorted((study.outputs / "rates").glob("*.csv"))]
    return pd.concat(tried, ignore_index=True) if tried else None
