"""What the numbers can show: intervals, paired comparisons, and the smallest difference that could be found.

Two things vary by chance in an accuracy: which photos are in the test set, and
the run. Where photos are in folds, each fold has both anew. Without folds all
runs of a study are tested on the same photos. From a single seed, only the
choice of photos can then be estimated: what it shows is true of these runs
only.
"""

# ruff: noqa: F401
from thaw.report.statistics.differences import (
    Difference,
    Remaining,
    difference,
    like_pairs,
    matched,
    over_photos,
    remaining_gain,
)
from thaw.report.statistics.families import (
    Family,
    Step,
    as_good_as_best,
    holm,
    pairwise,
    upwards,
    what_more_gains,
)
from thaw.report.statistics.folds import by_photo, folds_of, has_folds, of_record
from thaw.report.statistics.intervals import (
    accuracy_interval,
    by_configuration,
    gap_difference,
    lead,
    loss_interval,
    ratio_of_medians,
    wilson,
)
from thaw.report.statistics.photos import (
    ALPHA,
    LEVEL,
    Spread,
    by_identity,
    losses,
    most_confused,
    rightness,
    runs_of,
    spreads,
)
from thaw.report.statistics.power import POWER, detectable, detectable_from, power
