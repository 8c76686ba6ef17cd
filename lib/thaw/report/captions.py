"""The captions of the report's figures and tables: true of the study that they show."""

from thaw.report.answer import Answer
from thaw.report.figures.study import MOST
from thaw.report.tables import PAIRS
from thaw.report.words import count


def _names(answer: Answer) -> str:
    """Explain the short names, with one of each kind that occurs."""
    rows = answer.results.rows[answer.results.rows["plain"]]
    said = [
        f"{row['short']}: {row['phrase']}"
        for strategy in ("layers", "blocks")
        for _, row in rows[rows["strategy"] == strategy].head(1).iterrows()
    ]
    if (rows["strategy"] == "frozen").any():
        said.append("a frozen base is named by its epochs")
    return f" ({'; '.join(said)})" if said else ""


def accuracy(answer: Answer) -> str:
    """Of the accuracies by configuration."""
    several = len(answer.results.runs) > len(answer.results.rows)
    small = f"Small points are single {'folds' if answer.folds else 'seeds'}. " if several else ""
    alone = answer.results.rows.query("seeds == 1 and folds == 0")["backbone"].unique()
    narrow = ""
    if len(alone):
        titles = ", ".join(answer.results.title(name) for name in alone)
        narrow = f"With one seed ({titles}) intervals leave out how runs differ, and are too narrow. "
    same = "folds" if answer.folds else "photos"
    pairs = any(len(pairs) for pairs in answer.results.pairs.values())
    compared = (
        "Grey marks those that are enough: no other is clearly more accurate, and training more did not clearly help. "
        f"That is judged on the same {same}, so two can differ clearly although their intervals overlap."
    )
    return (
        "Test accuracy of each configuration with its 95% interval, from the one that trains least to the one that "
        f"trains most{_names(answer)}. {_shown(answer)}{small}{narrow}{compared if pairs else ''}{_own_folds(answer)}"
    ).strip()


def _own_folds(answer: Answer) -> str:
    """Say where networks were not tested on the same photos."""
    if not answer.results.have_own_folds:
        return ""
    tested = ", ".join(f"{network.title} on {count(len(network.folds), 'fold')}" for network in answer.networks)
    return f" Networks were tested on different photos ({tested}): the text compares them on the folds that they share."


def _shown(answer: Answer) -> str:
    """Say which configurations a figure shows that cannot show all of a network."""
    many = [f"{len(network.rows)} of {network.title}" for network in answer.networks if len(network.rows) > MOST]
    if not many:
        return ""
    return (
        f"Of the configurations ({', '.join(many)}) {MOST} are shown: what trains least and most, the recommended one, "
        "the most accurate, and some between. The table of results has all. "
    )


def trained(answer: Answer) -> str:
    """Of what trains."""
    return (
        "What trains in each configuration, block by block from the photo to the new last layer, the head. A block "
        "trains in part where only some of its layers or weights do. Beside it: how many parameters train. "
        f"{_shown(answer)}"
    ).strip()


def differences(answer: Answer) -> str:
    """Of the differences of every two configurations."""
    counts = "how far they move from fold to fold" if answer.folds else "on how many photos the two disagree"
    runs = "" if answer.folds or answer.results.rows["seeds"].max() == 1 else ", and how far runs move"
    pairs = sum(map(len, answer.results.pairs.values()))
    few = f" Of {pairs:,} pairs {PAIRS} are here: clear ones, and the largest." if pairs > PAIRS else ""
    return (
        "Every two configurations of a network: the accuracy of the first less that of the second. Clear ones are "
        "corrected for all pairs of the network. All others may be chance. Of two equal numbers one can be clear and "
        f"the other not: what counts is {counts}{runs}.{few}"
    )


def curves(answer: Answer) -> str:
    """Of the learning curves."""
    shaded = " The shaded epochs come after unfreezing." if (answer.results.rows["strategy"] != "frozen").any() else ""
    if answer.folds:
        pairs = " Each fold has a pair of faint lines; the strong ones are their mean."
    else:
        pairs = (
            " Each seed has a pair of lines, the first seed the lightest."
            if answer.results.rows["seeds"].max() > 1
            else ""
        )
    return (
        "Loss over epochs, from what trains least to what trains most. Dashed: on the training photos, a running mean "
        f"over the epoch. Solid: on the validation photos, after the epoch.{pairs}{shaded} A solid line that rises "
        "while its dashed line falls means overfitting."
    )


def confusion(answer: Answer) -> str:
    """Of the confused classes."""
    several = answer.results.rows["seeds"].max() > 1
    together = " All folds are counted together." if answer.folds else ""
    seeds = " All seeds are counted together, so a photo counts once for each seed." if several else ""
    return "Test photos by class and prediction, for the recommended configuration of each network." + together + seeds


def hard(answer: Answer) -> str:
    """Of the hardest photos."""
    what = "most configurations get" if answer.folds else "are"
    runs = "wrong" if answer.folds else "wrong in most runs (configurations weigh the same)"
    return f"The test photos that {what} {runs}, with their class and the class that they are most often taken for."


def costs(answer: Answer) -> str:
    """Of the table of times and memory."""
    means = " Figures are means over folds: what one training costs." if answer.folds else ""
    return (
        "Training time by phase, and peak memory of the process. The phases are the one pass over the frozen part, the "
        f"head alone, and the epochs after unfreezing.{means}"
    )


def cost(answer: Answer) -> str:
    """Of accuracy over training time."""
    of = "one training, the mean over folds" if answer.folds else "training"
    return (
        f"Accuracy and the time of {of}. The named configurations, on the line, are the most accurate for their time: "
        "no other is both more accurate and faster to train. The line goes through the measured values; given their "
        f"intervals, others may belong on it too.{_own_folds(answer)}"
    )


def losses(answer: Answer) -> str:
    """Of the losses on unseen photos."""
    chance = "are over folds" if answer.folds else "cover the choice of photos, not seeds"
    return (
        "The loss on photos that training has not seen, by the share of the network that trains. "
        f"{_shown(answer)}The 95% intervals {chance}. With overfitting, it would rise to the right."
    )


def claims(answer: Answer) -> str:
    """Of all claims."""
    replication = answer.replication
    if replication is None:
        return ""
    named = replication.called
    thin = f" Thin: {named}'s own, as if measured on different photos." if replication.original is not None else ""
    alone = any(verdict.these_runs for verdict in replication.verdicts.values())
    runs = " These runs: with one seed, another run may come out otherwise." if alone else ""
    star = " *: the verdict also stands when all are corrected together." if replication.standing else ""
    verdicts = [each for v in replication.verdicts.values() for each in (v, *(part for _, part in v.parts))]
    off = " A verdict is corrected for all parts of a claim, so a bar by itself can look clearer." * any(
        verdict.though for verdict in verdicts
    )
    return (
        "Every claim with its effect in this study: positive is as the claim says. Where the effect is not in points "
        "of accuracy, it stands in words. Bars are 95% intervals. Blue ground: where the claim is right."
        f"{off} No difference that matters: the 90% interval is between the dotted lines, on blue or not.{thin} "
        f"A claim of several parts has a mark for each part that is an accuracy, by its own verdict.{star}{runs}"
    )


def rates(answer: Answer) -> str:
    """Of the loss over the learning rate."""
    tried = answer.rates.networks if answer.rates else []
    dashed = " Dashed: the head alone." if any(of.is_head for of in tried) else ""
    crosses = any(trials.table["diverged"].any() for of in tried for trials in of.trials)
    return (
        "The loss on the choosing photos over the learning rate, a line a configuration. Circles: the rate that was "
        f"taken.{dashed}{' A cross at the upper edge: the loss was no finite number.' if crosses else ''} "
        "Where a line rises steeply away from its circle, the rate needs care; where it is flat, most rates do."
    )
