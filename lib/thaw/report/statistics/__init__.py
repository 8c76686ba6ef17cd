"""What the numbers can show: intervals, paired comparisons, and the smallest difference that could be found.

All runs of a study are tested on the same photos. Two things vary by chance in
an accuracy: which photos are in the test set, and the seed of the run. From a
single seed only the first can be estimated.
"""

# ruff: noqa: F401
from thaw.report.statistics.comparisons import (
    Difference,
    Remaining,
    as_good_as_best,
    difference,
    holm,
    matched,
    pairwise,
    rank_correlation,
    remaining_gain,
    upwards,
    what_more_gains,
)
from thaw.report.statistics.intervals import (
    accuracy_interval,
    by_configuration,
    gap_interval,
    loss_interval,
    ratio_of_medians,
    wilson,
)
from thaw.report.statistics.power import detectable, detectable_from, power
from thaw.report.statistics.resampling import ALPHA, LEVEL, by_identity, resampled, rightness, runs_of
