"""What a search has found: the values that the validation photos favour. The test photos have no part in it."""

from __future__ import annotations

import pandas as pd

from thaw.study import Study


def table(study: Study) -> pd.DataFrame:
    """What each value came to after the last epoch, the mean over seeds.

    Returns
    -------
    DataFrame
        A value a row: backbone, configuration, label, parameter, value,
        validation_photos, validation_accuracy and validation_loss (NaN where
        a run diverged or is missing), chosen (the most accurate of its
        configuration and parameter; of equal ones that with the lower loss)
        and at_edge (whether no value beyond it was tried).

    Raises
    ------
    InvalidRecord
        If no run of it is finished.
    """
    finished, _ = study.outcomes()
    rows = []
    for job in study.jobs:
        row = {
            "backbone": job.experiment.backbone,
            "configuration": job.configuration,
            "label": job.experiment.label,
            "parameter": job.tried,
            "value": getattr(job.experiment, job.tried),
            "validation_photos": float("nan"),
            "validation_accuracy": float("nan"),
            "validation_loss": float("nan"),
        }
        if job in finished:
            record = finished[job].record
            row["validation_photos"] = record.data["photos"]["validation"]
            row |= {name: getattr(record, name) for name in ("validation_accuracy", "validation_loss")}
        rows.append(row)
    of = ["backbone", "configuration", "label", "parameter"]
    groups = pd.DataFrame(rows).groupby([*of, "value"], sort=False)
    found = groups.agg(lambda seeds: seeds.mean(skipna=False)).reset_index()  # a seed that diverged counts against it
    best = found.sort_values(["validation_accuracy", "validation_loss"], ascending=[False, True])
    best = best[best["validation_accuracy"].notna()].drop_duplicates(of)
    found["chosen"] = found.index.isin(best.index)
    ends = found.groupby(of)["value"].agg(["min", "max"]).loc[list(found[of].itertuples(index=False))].to_numpy()
    found["at_edge"] = (found["value"].to_numpy()[:, None] == ends).any(axis=1)
    return found
