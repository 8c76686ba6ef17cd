"""The written analysis: every sentence from the numbers it is given."""

from collections.abc import Sequence

import pandas as pd
from statsmodels.stats.multitest import multipletests

from thaw import claims, statistics
from thaw.backbones import REGISTRY, Backbone
from thaw.experiment import Experiment
from thaw.record import Record, Run, in_original

DRAWN = "Drawn flowers, not photos: these numbers say nothing about TF Flowers."


# ---- one experiment -----------------------------------------------------------------------------


def parameters_table(experiment: Experiment) -> pd.DataFrame:
    """The parameters of an experiment, two columns."""
    return pd.DataFrame(
        [(name, "" if value is None else value) for name, value in experiment.model_dump(mode="json").items()],
        columns=["Parameter", "Value"],
    )


def weights(provenance: dict, backbone: Backbone) -> str:
    """Where a network's weights come from."""
    official = "the official ones" if provenance["official"] else "not the official ones"
    return f"**{backbone.title}**: {backbone.about}. Weights: **{provenance['title']}** ({official}). {provenance['description']}"


def data(provenance: dict, classes: Sequence[str]) -> str:
    """What a data set is, and how it is split."""
    photos = provenance["photos"]
    used = photos["train"] + photos["validation"] + photos["test"]
    share = "all" if used == photos["available"] else f"{used:,} of"
    warning = f" **{DRAWN}**" if mark(provenance["dataset"]) else ""
    return (
        f"**{provenance['title']}** ({provenance['dataset']} {provenance['version']}): {share} {photos['available']:,} photos in "
        f"{len(classes)} classes ({', '.join(classes)}); {photos['train']:,} train, {photos['validation']:,} validate, {photos['test']:,} test.{warning}"
    )


def mark(dataset: str) -> str:
    """What a caption must add where the photos are drawn; else nothing."""
    return f" {DRAWN}" if dataset == "drawn_flowers" else ""


def training(counts: dict[str, int], activations: dict[str, dict]) -> str:
    """How much was trained, and on what."""
    lines = ["{trainable_parameters:,} of {total_parameters:,} parameters trained.".format(**counts)]
    for phase, note in activations.items():
        name = {"head": "The head alone", "finetune": "After unfreezing"}[phase]
        layers = " and ".join(f"`{layer}`" for layer in note["frontier"])
        if note["cached"]:
            how = f"trained on the kept activations of {layers}, {note['megabytes']:,.0f} MB"
        else:
            how = "every epoch ran the whole network"
        lines.append(f"{name}: {how} ({note['why']}).")
    return " ".join(lines)


def test_result(predictions: pd.DataFrame) -> str:
    """The test accuracy with its interval."""
    correct, photos = int((predictions["label"] == predictions["predicted"]).sum()), len(predictions)
    low, high = statistics.wilson(correct, photos)
    return f"{correct} of {photos} test photos are named rightly: **{correct / photos:.1%}**, with a 95 % interval from {low:.1%} to {high:.1%} (Wilson)."


def mistake_titles(mistakes: pd.DataFrame) -> list[str]:
    """A title for each photo of `thaw.evaluation.confident_mistakes`."""
    return [f"{row.label}\nsaid: {row.predicted}\n({row.probability:.0%} sure)" for row in mistakes.itertuples()]


def record_table(record: Record) -> pd.DataFrame:
    """The figures of a record, two columns."""
    latency, seconds = record.inference_ms_per_image, record.training_seconds
    rows = [
        ("Training accuracy, loss", f"{record.train_accuracy:.2%}, {record.train_loss:.4f}"),
        ("Validation accuracy, loss", f"{record.validation_accuracy:.2%}, {record.validation_loss:.4f}"),
        ("Test accuracy, loss", f"{record.test_accuracy:.2%}, {record.test_loss:.4f}"),
        ("Trainable parameters", f"{record.trainable_parameters:,} of {record.total_parameters:,}"),
        ("Inference", f"{latency.median:.1f} ms a photo (quartiles {latency.q1:.1f} and {latency.q3:.1f})"),
        (
            "Training time",
            f"{seconds.activations:.1f} s for the frozen part, {seconds.head:.1f} s for the head alone, {seconds.finetune:.1f} s after unfreezing",
        ),
        ("Peak memory", f"{record.peak_memory_mb:,.0f} MB"),
    ]
    return pd.DataFrame(rows, columns=["Figure", "Value"])


# ---- a whole study ------------------------------------------------------------------------------


def facts(profile: str, reason: str, runs: Sequence[Run], planned: int) -> dict[str, str]:
    """The facts of the report's first page."""
    first = runs[0].record
    photos = first.data["photos"]
    networks = {run.record.experiment.backbone: run.record.weights for run in runs}
    return {
        "Profile": f"{profile}. {reason}".strip(),
        "Data": f"{first.data['title']}: {photos['train']:,} photos train, {photos['validation']:,} validate, {photos['test']:,} test",
        **{f"{REGISTRY[name].title} weights": about["title"] for name, about in networks.items()},
        "Experiments": f"{len(runs)} of {planned} finished",
        "Photos": f"{first.parameters['image_size']} pixels square",
        "Device": f"{first.device['name']}, {first.device['cores']} core{'s' * (first.device['cores'] > 1)} a run",
    }


def in_short(table: pd.DataFrame, runs: Sequence[Run]) -> str:
    """The answer to the question, a sentence a network."""
    lines = []
    for backbone, rows in table.groupby("backbone", sort=False):
        best = rows.loc[rows["test_accuracy"].idxmax()]
        like = _not_separated(rows, best, runs)
        cheapest = rows.loc[like].sort_values(["trainable_parameters", "training_seconds"]).iloc[0]
        photos = f"these {best['test_photos']:.0f} photos"
        if len(rows) == 1:
            rest = "It is the only configuration that was run."
        elif len(like) == 1:
            rest = f"By {photos} it is told apart from every other configuration."
        else:
            rest = (
                f"By {photos}, {len(like) - 1} of the other {len(rows) - 1} configurations cannot be told from it; "
                f"of all those, the one with the fewest trainable parameters is **{_name(cheapest)}** "
                f"({cheapest['test_accuracy']:.1%})."
            )
        lines.append(
            f"- **{REGISTRY[backbone].title}** is most accurate with {_name(best)}: {best['test_accuracy']:.1%} "
            f"of the test photos ({best['test_low']:.1%} to {best['test_high']:.1%}). {rest}"
        )
    return "\n".join(lines)


def architectures(runs: Sequence[Run]) -> str:
    """A paragraph a network."""
    paragraphs = []
    for name, record in {run.record.experiment.backbone: run.record for run in runs}.items():
        paragraphs.append(
            f"{weights(record.weights, REGISTRY[name])} With its head it has {record.total_parameters:,} parameters."
        )
    paragraphs.append(
        "Each ends in the same kind of head: global average pooling and one softmax layer. Frozen layers keep their weights, and frozen BatchNorm layers their statistics."
    )
    return "\n\n".join(paragraphs)


def results(table: pd.DataFrame, original: pd.DataFrame | None) -> tuple[pd.DataFrame, list[bool]]:
    """The results in the original's columns, each row of ours followed by the original's.

    Returns
    -------
    frame : DataFrame
    is_original : list of bool
        For each row.
    """
    rows, is_original = [], []
    for _, row in table.iterrows():
        title = REGISTRY[row["backbone"]].title
        accuracy = f"{row['test_accuracy']:.1%} ({100 * row['test_low']:.1f} to {100 * row['test_high']:.1f})"
        rows.append((title, row["label"], *_cells(row, accuracy)))
        is_original.append(False)
        match = in_original(row, original)
        if match is not None:
            rows.append((title, "as in the original", *_cells(match, f"{match['test_accuracy']:.1%}")))
            is_original.append(True)
    columns = [
        "Network",
        "What trains",
        "Train acc.",
        "Train loss",
        "Valid. acc.",
        "Valid. loss",
        "Test acc. (95 %)",
        "Trainable parameters",
        "ms a photo",
    ]
    return pd.DataFrame(rows, columns=columns), is_original


def accuracy(table: pd.DataFrame) -> str:
    """How accurate each network is, frozen and fine-tuned."""
    sentences = []
    for backbone, rows in table.groupby("backbone", sort=False):
        if len(rows) == 1:
            continue
        low, high = rows["test_accuracy"].min(), rows["test_accuracy"].max()
        width = 100 * (rows["test_high"] - rows["test_low"]).mean()
        sentences.append(
            f"**{REGISTRY[backbone].title}** lies between {low:.1%} and {high:.1%} over its {len(rows)} configurations. "
            f"A single interval is {width:.1f} points wide, {'more' if width > 100 * (high - low) else 'less'} than the whole range of {100 * (high - low):.1f} points."
        )
    return "\n\n".join(sentences) or "With one configuration a network there is nothing to compare."


def speed(table: pd.DataFrame) -> str:
    """Latency, and how much of it is noise."""
    sentences = []
    for backbone, rows in table.groupby("backbone", sort=False):
        column = rows["inference_ms_per_image"]
        if len(rows) == 1:
            sentences.append(f"**{REGISTRY[backbone].title}** takes {column.item():.1f} ms a photo.")
            continue
        sentences.append(
            f"**{REGISTRY[backbone].title}** takes {column.median():.1f} ms a photo in the median of its configurations, from {column.min():.1f} to {column.max():.1f} ms. "
            f"All of them run the same graph, so the factor of {column.max() / column.min():.2f} between the two is noise of the machine, not an effect of unfreezing."
        )
    return "\n\n".join(sentences)


def cost(table: pd.DataFrame, runs: Sequence[Run]) -> str:
    """Training time and memory."""
    sentences = []
    for backbone in table["backbone"].unique():
        like = [run.record for run in runs if run.record.experiment.backbone == backbone]
        cached = sum(all(phase.cached for phase in record.activations.values()) for record in like)
        once = max(record.training_seconds.activations for record in like)
        if cached:
            sentences.append(
                f"{cached} of the {len(like)} runs of {REGISTRY[backbone].title} trained on kept activations of the frozen part alone. "
                f"The pass that computes them ({once:.0f} s for the deepest) and the head are made once and shared; below they count in each run that uses them."
            )
    for backbone, rows in table.groupby("backbone", sort=False):
        least, most = rows.loc[rows["training_seconds"].idxmin()], rows.loc[rows["training_seconds"].idxmax()]
        sentences.append(
            f"**{REGISTRY[backbone].title}** trains in {least['training_seconds']:.0f} s ({_name(least)}) to {most['training_seconds']:.0f} s ({_name(most)}), "
            f"with a peak of {rows['peak_memory_mb'].min():,.0f} to {rows['peak_memory_mb'].max():,.0f} MB of memory."
        )
    return "\n\n".join(sentences)


def strategies(runs: Sequence[Run]) -> str:
    """Strategy A against B, network by network."""
    sentences = []
    for backbone in dict.fromkeys(run.record.experiment.backbone for run in runs):
        groups = [
            claims.select(runs, lambda e, b=backbone, s=strategy: e.backbone == b and e.strategy == s)
            for strategy in ("blocks", "layers")
        ]
        if not all(groups):
            continue
        effect = statistics.difference(*([run.predictions for run in group] for group in groups))
        word = {1: "are better than", -1: "are worse than", 0: "cannot be told from"}[effect.sign]
        sentences.append(
            f"**{REGISTRY[backbone].title}**: whole blocks (strategy B) {word} a fixed number of layers (strategy A). Over their amounts, B's "
            f"test accuracy is {100 * effect.mean:+.1f} points from A's on average, with an interval from {100 * effect.low:+.1f} to {100 * effect.high:+.1f}."
        )
    return "\n\n".join(sentences) or "Needs runs of both strategies."


def too_few_too_many(table: pd.DataFrame) -> str:
    """Under- and overfitting: what training and validation say."""
    sentences = []
    for backbone, rows in table.groupby("backbone", sort=False):
        rows = rows.assign(gap=rows["train_accuracy"] - rows["validation_accuracy"])
        lowest, widest = rows.loc[rows["train_accuracy"].idxmin()], rows.loc[rows["gap"].idxmax()]
        least = rows.loc[rows["validation_loss"].idxmin()]
        sentences.append(
            f"**{REGISTRY[backbone].title}** fits its training photos least with {_name(lowest)} ({lowest['train_accuracy']:.1%}); "
            f"training is furthest ahead of validation with {_name(widest)} ({100 * widest['gap']:+.1f} points); "
            f"the validation loss is lowest with {_name(least)} ({least['validation_loss']:.3f})."
        )
    return "\n\n".join(sentences)


def best(table: pd.DataFrame, runs: Sequence[Run]) -> str:
    """The set of configurations that are not told apart from the best, and the cheapest of them."""
    paragraphs = []
    for backbone, rows in table.groupby("backbone", sort=False):
        top = rows.loc[rows["test_accuracy"].idxmax()]
        like = rows.loc[_not_separated(rows, top, runs)].sort_values(["trainable_parameters", "training_seconds"])
        names = ", ".join(_name(row) for _, row in like.iterrows())
        paragraphs.append(
            f"**{REGISTRY[backbone].title}**: {len(like)} of {len(rows)} configurations are as good as the best for all that these photos can show: {names}. "
            f"The cheapest of them trains {like.iloc[0]['trainable_parameters']:,.0f} parameters in {like.iloc[0]['training_seconds']:.0f} s: **{_name(like.iloc[0])}**."
        )
    paragraphs.append(
        "*As good as the best* means: McNemar's exact test on the same test photos (with several seeds, a sign-flip test), after Holm's correction over the network's configurations, does not tell the two apart at 5 %."
    )
    return "\n\n".join(paragraphs)


def provenance(runs: Sequence[Run]) -> pd.DataFrame:
    """How the study was run: parameters, data, weights, versions and device."""
    records = [run.record for run in runs]
    rows: list[tuple[str, str]] = []
    what_differs = ("backbone", "strategy", "amount", "output_dir")
    for name in records[0].parameters:
        if name not in what_differs:
            rows.append((name, _distinct(record.parameters[name] for record in records)))
    rows.append(("optimiser", "Adam, begun afresh after unfreezing"))
    rows.append(
        (
            "data",
            _distinct(
                f"{record.data['dataset']} {record.data['version']}, sha256 {record.data['sha256'][:12]}"
                for record in records
            ),
        )
    )
    for backbone in dict.fromkeys(record.parameters["backbone"] for record in records):
        about = [record.weights for record in records if record.parameters["backbone"] == backbone]
        text = _distinct(f"{weights['title']} (tensors' sha256 {weights['tensors_sha256'][:12]})" for weights in about)
        rows.append((f"weights of {REGISTRY[backbone].title}", text))
    rows.append(
        (
            "versions",
            _distinct(
                ", ".join(f"{name} {version}" for name, version in record.versions.items()) for record in records
            ),
        )
    )
    rows.append(
        (
            "device",
            _distinct(
                f"{record.device['name']}, {record.device['cores']} core(s) a run, {record.device['gpus']} GPU(s)"
                for record in records
            ),
        )
    )
    return pd.DataFrame(rows, columns=["What", "Value"])


def latency_quartiles(table: pd.DataFrame, runs: Sequence[Run]) -> dict[str, list[float]]:
    """The quartiles ``q1`` and ``q3`` of each configuration's first seed, in milliseconds."""
    quartiles = [first_run(row, runs).record.inference_ms_per_image for _, row in table.iterrows()]
    return {"q1": [q.q1 for q in quartiles], "q3": [q.q3 for q in quartiles]}


def classes(runs: Sequence[Run]) -> list[str]:
    """The names of the classes."""
    return [name.removeprefix("p_") for name in runs[0].predictions.columns if name.startswith("p_")]


def networks(runs: Sequence[Run]) -> str:
    """The networks' names, for a title."""
    return " and ".join(REGISTRY[name].title for name in dict.fromkeys(run.record.experiment.backbone for run in runs))


def first_run(row: pd.Series, runs: Sequence[Run]) -> Run:
    """The run of a configuration with its lowest seed."""
    return min(_runs_of(row, runs), key=lambda run: run.record.experiment.seed)


def _runs_of(row: pd.Series, runs: Sequence[Run]) -> list[Run]:
    """The runs of a configuration, one a seed."""
    identity = ("backbone", "strategy", "amount", "epochs")
    return [run for run in runs if all(getattr(run.record.experiment, name) == row[name] for name in identity)]


def _not_separated(rows: pd.DataFrame, top: pd.Series, runs: Sequence[Run]) -> list:
    """The index of the rows that Holm-corrected tests do not tell apart from `top`, itself among them."""
    runs_of = {index: _runs_of(row, runs) for index, row in rows.iterrows()}
    others = [index for index in rows.index if index != top.name]
    if not others:
        return [top.name]
    p = []
    for index in others:
        first, second = ([run.predictions for run in runs_of[i]] for i in (top.name, index))
        one_seed = len(first) == len(second) == 1
        p.append(statistics.compare(first[0], second[0]).p if one_seed else statistics.difference(first, second).p)
    rejected = multipletests(p, alpha=statistics.ALPHA, method="holm")[0]
    return [top.name, *(index for index, separated in zip(others, rejected) if not separated)]


def _cells(row: pd.Series, test_accuracy: str) -> tuple[str, ...]:
    return (
        f"{row['train_accuracy']:.1%}",
        f"{row['train_loss']:.3f}",
        f"{row['validation_accuracy']:.1%}",
        f"{row['validation_loss']:.3f}",
        test_accuracy,
        f"{row['trainable_parameters']:,.0f}",
        f"{row['inference_ms_per_image']:.1f}",
    )


def _name(row: pd.Series) -> str:
    """A configuration in running text."""
    if row["strategy"] == "frozen":
        return f"the base frozen for {row['epochs']} epoch{'s' * bool(row['epochs'] > 1)}"
    return f"the last {row['amount']} {row['strategy']}" if row["amount"] > 1 else f"the last {row['strategy'][:-1]}"


def _distinct(values) -> str:
    """The different values, in their order."""
    return "; ".join(dict.fromkeys("all" if value is None else str(value) for value in values))
