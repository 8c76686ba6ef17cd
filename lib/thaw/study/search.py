"""What a search has found: the values that the validation photos favour. The test photos have no part in it."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from thaw.errors import InvalidParameter
from thaw.study.study import Study


def of(study: Study, root: Path | None = None) -> Study | None:
    """Load the search that a study's values come from, if it names one.

    Raises
    ------
    InvalidParameter
        If that is no search, or one with other photos or weights: its
        validation photos could be the study's test photos.
    """
    if study.settings.search is None:
        return None
    found = Study.load(study.settings.search, study.outputs.parent, root)
    named = f"{study.path}: study.search = {study.settings.search!r}"
    if not found.is_search:
        raise InvalidParameter(f"{named}: no search, for it has no study.tries. Name a profile with tries.")
    for name in ("dataset", "splits", "on_damaged", "max_examples", "image_size", "weights"):
        theirs, ours = ({getattr(job.experiment, name) for job in jobs} for jobs in (found.jobs, study.jobs))
        if theirs != ours:
            raise InvalidParameter(
                f"{named}: its {name} is {theirs.pop()}, the study's {ours.pop()}. Search on the same photos: "
                "otherwise test photos of the study may take part in the choice."
            )
    return found


def table(study: Study) -> pd.DataFrame:
    """Tabulate what each value came to after the last epoch, the mean over seeds.

    Returns
    -------
    DataFrame
        A value a row: backbone, configuration, label, parameter, value,
        validation_photos, validation_accuracy and validation_loss (NaN if a
        run diverged or is missing), chosen (the most accurate of its
        configuration and parameter; ties: the lower loss) and at_edge (whether
        no value beyond it was tried).

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
            **dict.fromkeys(("validation_photos", "validation_accuracy", "validation_loss"), float("nan")),
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
