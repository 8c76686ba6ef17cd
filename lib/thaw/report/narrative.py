"""The written analysis: every sentence from the numbers it is given."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from thaw.disk.atomic import write_atomic
from thaw.experiment import Experiment
from thaw.network.backbones import REGISTRY, Backbone
from thaw.records.record import Record, in_original, write_csv
from thaw.records.record import table as record_rows
from thaw.report import claims, statistics
from thaw.report.claims import CONTRADICTED, SUPPORTED, Verdict, points, select
from thaw.report.display import latex, markdown, one_line
from thaw.report.results import Results
from thaw.report.statistics import Difference

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
    return f"**{backbone.title}**: {backbone.about}. Weights: **{markdown(provenance['title'])}** ({_official(provenance)}). {markdown(provenance['description'])}"


def data(provenance: dict, classes: Sequence[str]) -> str:
    """What a data set is, and how it is split."""
    photos = provenance["photos"]
    used = photos["train"] + photos["validation"] + photos["test"]
    share = "all" if used == photos["available"] else f"{used:,} of"
    warning = f" **{DRAWN}**" if mark(provenance["dataset"]) else ""
    return (
        f"**{markdown(provenance['title'])}** ({markdown(provenance['dataset'])} {markdown(provenance['version'])}): {share} {photos['available']:,} photos in "
        f"{len(classes)} classes ({', '.join(map(markdown, classes))}); {photos['train']:,} train, {photos['validation']:,} validate, {photos['test']:,} test.{warning}"
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
        lines.append(f"{name}: {how} ({markdown(note['why'])}).")
    return " ".join(lines)


def test_result(predictions: pd.DataFrame) -> str:
    """The test accuracy with its interval."""
    correct, photos = int((predictions["label"] == predictions["predicted"]).sum()), len(predictions)
    low, high = statistics.wilson(correct, photos)
    return f"{correct} of {photos} test photos are named rightly: **{correct / photos:.1%}**, with a 95 % interval from {low:.1%} to {high:.1%} (Wilson)."


def mistake_titles(mistakes: pd.DataFrame) -> list[str]:
    """A title for each photo of `thaw.training.evaluation.confident_mistakes`."""
    return [
        f"{one_line(row.label)}\nsaid: {one_line(row.predicted)}\n({row.probability:.0%} sure)"
        for row in mistakes.itertuples()
    ]


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
    if record.peak_device_memory_mb is not None:
        rows.append(("Peak memory of the GPU", f"{record.peak_device_memory_mb:,.0f} MB"))
    return pd.DataFrame(rows, columns=["Figure", "Value"])


# ---- a whole study ------------------------------------------------------------------------------


def facts(profile: str, results: Results) -> dict[str, str]:
    """The facts of the report's first page."""
    first = results.runs[0].record
    photos = first.data["photos"]
    weights_of = {run.record.experiment.backbone: run.record.weights for run in results.runs}
    return {
        "Profile": profile,
        "Data": f"{first.data['title']}: {photos['train']:,} photos train, {photos['validation']:,} validate, {photos['test']:,} test",
        **{
            f"{REGISTRY[name].title} weights": f"{about['title']} ({_official(about)})"
            for name, about in weights_of.items()
        },
        "Experiments": f"{len(results.runs)} of {results.planned} finished, {results.seeds} a configuration",
        "Photos": f"{first.parameters['image_size']} pixels square",
        "Device": f"{first.device['name']}, {first.device['cores']} core{'s' * (first.device['cores'] > 1)} a run",
    }


def in_short(results: Results, verdicts: dict[str, Verdict]) -> str:
    """The answer to the question, a sentence a network; what fine-tuning gains at all; what of the original holds."""
    lines = []
    for backbone, rows in results.backbones.items():
        like = results.best(backbone)
        top, cheapest = like.iloc[0], results.cheapest(backbone)
        photos = f"these {top['test_photos']:.0f} photos"
        if len(rows) == 1:
            rest = "It is the only configuration that was run."
        elif len(like) == 1:
            rest = f"By {photos} every other configuration is shown to be worse than some other."
        else:
            others = f"{len(like) - 1} of the other {len(rows) - 1} configurations {_is(len(like) - 1)} not shown to be worse than any other"
            if len(like) == len(rows):
                others = f"none of the other {len(rows) - 1} configurations is shown to be worse than any other"
            rest = f"By {photos}, {others}"
            if cheapest.name == top.name:
                rest += "; it is also the least that is not ruled out."
            else:
                rest += f"; the least that is not ruled out is **{_name(cheapest)}** ({cheapest['test_accuracy']:.1%}): that all that train more, taken together, gain on it is not shown."
        lines.append(
            f"- **{REGISTRY[backbone].title}** is most accurate with {_name(top)}: {top['test_accuracy']:.1%} "
            f"of the test photos ({top['test_low']:.1%} to {top['test_high']:.1%}). {rest}"
        )
    lines += [f"- **Unfreezing or training longer?** {text}" for text in [remaining(results)] if text]
    lines.append(f"- **What of the original holds?** {_counted(verdicts)}")
    return "\n".join([*lines, *(f"- {markdown(text)}" for text in caveats(results))])


def architectures(results: Results) -> str:
    """A paragraph a network."""
    paragraphs = []
    for name, record in {run.record.experiment.backbone: run.record for run in results.runs}.items():
        paragraphs.append(
            f"{weights(record.weights, REGISTRY[name])} With its head it has {record.total_parameters:,} parameters."
        )
    paragraphs.append(
        "Each ends in the same kind of head: global average pooling and one softmax layer. Frozen layers keep their weights, and frozen BatchNorm layers their statistics."
    )
    return "\n\n".join(paragraphs)


def method(results: Results) -> str:
    """How it was measured: the split, the phases, what is counted, and what an interval is."""
    experiments = [run.record.experiment for run in results.runs]
    head, more = min(e.head_epochs for e in experiments), max(e.finetune_epochs for e in experiments)
    rates = (
        "Learning rates are the profile's."
        if results.search is None
        else "Learning rates were tried on the validation photos (see the appendix)."
    )
    phases = (
        f"**Two phases.** The head alone is trained for {_count(head, 'epoch')} on the frozen base, at a learning rate of {_of_networks(results, 'head_learning_rate')}, "
        f"then it and what is unfrozen for {more} more, at {_of_networks(results, 'finetune_learning_rate')}, by Adam, begun afresh for the second phase, in batches of {_of_networks(results, 'batch_size')}."
    )
    if any(e.strategy == "frozen" and not e.control for e in experiments):
        phases += f" *Frozen, {_count(head, 'epoch')}* stops after the first phase, as the original's base does."
    if any(e.control for e in experiments):
        phases += f" The **control**, *frozen, {head + more} epochs*, trains the head for as long as the others train, at the head's rate throughout."
    lines = [
        f"**Data.** {data(results.data, results.classes)} The split is by position in the data set's own order. {rates} Configurations are compared on the test photos.",
        phases,
        "**Layers and blocks.** Strategy A counts Keras' layers from the end of the base, those without weights too; strategy B counts whole blocks, the units that the architecture repeats. "
        "What is unfrozen trains with its BatchNorm.",
        f"**Seeds.** A seed sets the head's first weights and the order of the training photos; all configurations of a seed begin with the same head. Configurations were run with {results.seeds}.",
        f"**Intervals and tests.** Intervals hold at 95 %, each by itself: of one run's accuracy Wilson's, of several seeds a bootstrap over photos and seeds. Two configurations are compared on the same test photos: "
        f"with one seed by McNemar's exact test, with several by that bootstrap. A difference within {100 * results.margin:g} points would not matter (the *margin*).",
        "**The original** is an earlier analysis of ResNet50 and MobileNet on TF Flowers in 14 configurations: for each network a frozen base, the last 5, 10 and 40 layers, and the last 2, 4 and 10 blocks. "
        "It gives a table of results, but neither optimiser, learning rates nor predictions.",
    ]
    return "\n\n".join(lines)


def table(results: Results, with_original: bool = True) -> tuple[pd.DataFrame, list[bool]]:
    """The results in the original's columns, each row of ours followed by the original's.

    Returns
    -------
    frame : DataFrame
    is_original : list of bool
        For each row.
    """
    rows, is_original = [], []
    for _, row in results.rows.iterrows():
        title = REGISTRY[row["backbone"]].title
        accuracy = f"{row['test_accuracy']:.1%} ({100 * row['test_low']:.1f} to {100 * row['test_high']:.1f})"
        latency = row["latency"] if row["latency"] == row["latency"] else row["inference_ms_per_image"]
        rows.append((title, _label(row), *_cells(row, accuracy, latency)))
        is_original.append(False)
        match = in_original(row, results.original) if with_original else None
        if match is not None:
            cells = _cells(match, f"{match['test_accuracy']:.1%}", match["inference_ms_per_image"])
            rows.append((title, "as in the original", *cells))
            is_original.append(True)
    for job, reason in results.missing.items():
        title, label = REGISTRY[job.experiment.backbone].title, job.experiment.label
        if not any(row[0] == title and row[1].startswith(label) for row in rows):
            word = "diverged" if reason.startswith("diverged") else "not finished"
            rows.append((title, f"{label}: {word}", *["–"] * 7))
            is_original.append(False)
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


def missing(results: Results) -> str:
    """Which experiments the report is without, and why; nothing where there are all."""
    if not results.missing:
        return ""
    lines = [
        f"- {markdown(job.label)} ({REGISTRY[job.experiment.backbone].title}, {job.experiment.label}): {markdown((reason.splitlines() or ['unknown'])[0])}"
        for job, reason in results.missing.items()
    ]
    number = len(results.missing)
    heading = f"{number} of the {_count(results.planned, 'experiment')} {'has' if number == 1 else 'have'} no figures"
    return "\n".join([f"**{heading}**, and {_is(number)} in no mean and no comparison:", "", *lines])


def write_tables(results: Results, folder: Path) -> None:
    """Write ``results.csv``, a run a row with every figure, and `table` as ``results.md`` and ``results.tex``."""
    note = mark(results.data["dataset"]).strip()
    write_csv(run_table(results), folder / "results.csv")
    frame, _ = table(results, with_original=False)
    caption, title = f"Test accuracy with 95 % intervals, {{}}. {note}".strip(), results.data["title"]
    as_markdown = f"{caption.format(markdown(title))}\n\n{frame.to_markdown(index=False, disable_numparse=True)}\n"
    as_latex = frame.to_latex(index=False, escape=True, caption=latex(caption.format(title)), label="tab:results")
    for name, text in ("results.md", as_markdown), ("results.tex", as_latex):
        write_atomic(folder / name, lambda partial, text=text: partial.write_text(text, encoding="utf-8"))


def run_table(results: Results) -> pd.DataFrame:
    """A run a row, with every figure."""
    note = mark(results.data["dataset"]).strip()
    return record_rows(results.runs).assign(dataset=results.data["dataset"], note=note)


def power(results: Results) -> str:
    """What a test set of this size can show at all, and what so many seeds can."""
    sentences = []
    for backbone, pairs in results.pairs.items():
        if not len(pairs):
            continue
        effects = pairs["difference"]
        disagree = float(np.median([effect.disagree for effect in effects]))
        least, count = statistics.detectable_from(pairs), effects.iloc[0].photos
        several = min(effect.seeds for effect in effects) > 1
        text = (
            f"**{REGISTRY[backbone].title}**: on {disagree:.1%} of the {count} test photos the runs of two configurations "
            "are not all right or all wrong (median over all pairs). "
            if several
            else f"**{REGISTRY[backbone].title}**: two configurations differ on {disagree:.1%} of the {count} test photos in "
            "whether they are right (median over all pairs). "
        )
        if np.isnan(least):
            text += "So few photos show no difference in 8 of 10 studies, however large it is."
        else:
            text += (
                f"A single comparison of such runs finds a true difference of {100 * least:.1f} points in 8 of 10 studies; "
                "smaller ones are missed more often."
            )
        if len(pairs) > 1:
            text += f" Corrected for all {len(pairs)} pairs, it takes more."
        sentences.append(text)
    return "\n\n".join([*sentences, seeds(results)])


def seeds(results: Results) -> str:
    """What the seeds tell, or what one alone cannot."""
    several = results.rows[results.rows["seeds"] > 1]
    if several.empty:
        return (
            "Each configuration was run with one seed. How far another one, with other initial weights of the head and another order of "
            "photos, would move an accuracy cannot be told from that: intervals and tests speak of the choice of test photos alone."
        )
    pooled = float(np.sqrt((several["test_sd"] ** 2).mean()))
    single = results.rows[results.rows["seeds"] == 1]
    text = f"Configurations were run with {results.seeds}. From seed to seed an accuracy varies with a standard deviation of {100 * pooled:.1f} points (pooled over "
    if single.empty:
        return f"{text}configurations); intervals and tests take that in."
    names = " and ".join(dict.fromkeys(REGISTRY[name].title for name in single["backbone"]))
    return (
        f"{text}the {_count(len(several), 'configuration')} with several); their intervals and tests take that in. Those of the {len(single)} with one seed ({names}) speak of the choice of "
        "test photos alone, and are too narrow by what seeds would add; so is their part in comparisons with others."
    )


def accuracy(results: Results) -> str:
    """How accurate each network is over its configurations, and which of the two is more accurate."""
    sentences = []
    for backbone, rows in results.backbones.items():
        if len(rows) == 1:
            continue
        low, high = rows["test_accuracy"].min(), rows["test_accuracy"].max()
        width = 100 * (rows["test_high"] - rows["test_low"]).mean()
        apart = int(results.pairs[backbone]["separated"].sum())
        total = len(results.pairs[backbone])
        sentences.append(
            f"**{REGISTRY[backbone].title}** lies between {low:.1%} and {high:.1%} over its {len(rows)} configurations. "
            f"A single interval is {width:.1f} points wide, {_than(width, 100 * (high - low))} the whole range of {100 * (high - low):.1f} points. "
            f"Of its {total} pairs of configurations, {apart or 'none'} {'is' if apart == 1 else 'are'} told apart."
        )
    effect = networks_compared(results)
    if effect is not None:
        sentences.append(
            f"Configuration by configuration, {_order(effect, 'ResNet50', 'MobileNet')}: {points(effect)} on average."
        )
    return "\n\n".join(sentences) or "With one configuration a network there is nothing to compare."


def networks_compared(results: Results) -> Difference | None:
    """ResNet50 less MobileNet, over the configurations that both have; None without any."""
    sides = (select(results.runs, claims.network(name)) for name in ("resnet50", "mobilenet"))
    first, second = claims.matching(*sides, lambda e: (e.strategy, e.amount))
    return statistics.difference(first, second) if first and second else None


def speed(results: Results) -> str:
    """Latency: the graph, what ``predict`` adds, how noisy the machine is, and the original's scale."""
    if results.latency is None:
        return "Latency was not measured in a job of its own; the table has what each run measured at its end, with others beside it. `make report` measures it."
    sentences = []
    machine = results.latency.iloc[0]
    sentences.append(
        f"All configurations were measured in one process with nothing beside it ({markdown(machine['device'])}, {_count(machine['cores'], 'core')}), "
        "in turns, after warm-up; figures are medians."
    )
    for backbone, rows in results.backbones.items():
        rows = rows[rows["latency"].notna()]
        if rows.empty:
            sentences.append(f"**{REGISTRY[backbone].title}** was not measured.")
            continue
        title, graph, predict = REGISTRY[backbone].title, rows["latency"].median(), rows["latency_predict"].median()
        batch = _median_call(results, rows, "graph", 32)
        text = (
            f"**{title}** takes {graph:.1f} ms for a single photo as a compiled graph, and {batch:.1f} ms a photo in batches of 32. "
            f"By Keras' `predict()` a single photo takes {predict:.0f} ms, {predict / graph:.1f} times as long: "
            f"{predict - graph:.0f} ms are spent on the call itself."
        )
        if len(rows) > 1:
            factor = claims.same_graph(results, backbone)
            text += (
                f" Its {len(rows)} configurations run the same graph, and yet their medians lie between {rows['latency'].min():.1f} and {rows['latency'].max():.1f} ms, "
                f"a factor of {factor:.2f}: that is the machine's noise, and no effect of unfreezing that is smaller could be seen."
            )
        own = results.original[results.original["backbone"] == backbone] if results.original is not None else ()
        if len(own):
            ms = own["inference_ms_per_image"]
            nearer = (
                "`predict()`" if abs(np.log(ms.median() / predict)) < abs(np.log(ms.median() / graph)) else "the graph"
            )
            text += (
                f" The original's {ms.min():.0f} to {ms.max():.0f} ms, on another machine and for photos of 224 pixels, are nearer to {nearer} here, "
                f"and differ by a factor of {ms.max() / ms.min():.1f} for the same graph."
            )
        sentences.append(text)
    return "\n\n".join(sentences)


def _median_call(results: Results, rows: pd.DataFrame, call: str, photos: int) -> float:
    calls = [results.calls(row, call, photos) for _, row in rows.iterrows()]
    return float(np.median([np.median(of_row) for of_row in calls if of_row is not None]))


def cost(results: Results) -> str:
    """Training time and memory."""
    sentences = []
    for backbone, rows in results.backbones.items():
        title = REGISTRY[backbone].title
        least, most = rows.loc[rows["training_seconds"].idxmin()], rows.loc[rows["training_seconds"].idxmax()]
        if len(rows) == 1:
            sentences.append(
                f"**{title}** trains in {least['training_seconds']:,.0f} s, with a peak of {least['peak_memory_mb']:,.0f} MB of memory."
            )
            continue
        sentences.append(
            f"**{title}** trains in {least['training_seconds']:,.0f} s ({_name(least)}) to {most['training_seconds']:,.0f} s ({_name(most)}), "
            f"with a peak of {rows['peak_memory_mb'].min():,.0f} to {rows['peak_memory_mb'].max():,.0f} MB of memory."
        )
    cached = sum(all(phase.cached for phase in run.record.activations.values()) for run in results.runs)
    if cached:
        sentences.append(
            f"{cached} of {len(results.runs)} runs trained on kept activations of the frozen part alone. The pass that computes them, and the head, "
            "are made once and shared; they count in each row that uses them, so that rows can be compared."
        )
    return "\n\n".join(sentences)


def cost_table(results: Results) -> pd.DataFrame:
    """Training time by phase and memory, a configuration a row; means over seeds."""
    frame = []
    for _, row in results.rows.iterrows():
        epochs = results.of_row(row)[0].record.experiment.finetune_epochs
        frame.append(
            {
                "Network": REGISTRY[row["backbone"]].title,
                "What trains": row["label"],
                "Frozen part (s)": f"{row['activations_seconds']:,.1f}",
                "Head (s)": f"{row['head_seconds']:,.1f}",
                "Unfrozen (s)": f"{row['finetune_seconds']:,.1f}" if row["strategy"] != "frozen" else "–",
                "an epoch (s)": f"{row['finetune_seconds'] / epochs:,.1f}" if row["strategy"] != "frozen" else "–",
                "All (s)": f"{row['training_seconds']:,.1f}",
                "Peak MB": f"{row['peak_memory_mb']:,.0f}",
            }
        )
        if results.rows["peak_device_memory_mb"].notna().any():
            frame[-1]["GPU MB"] = f"{row['peak_device_memory_mb']:,.0f}"
    return pd.DataFrame(frame)


def strategies(results: Results) -> str:
    """Strategy A against B and against the frozen bases, network by network."""
    sentences = []
    for backbone in results.backbones:
        of = {name: select(results.runs, claims.network(backbone, name)) for name in ("blocks", "layers", "frozen")}
        title, parts = REGISTRY[backbone].title, []
        if of["blocks"] and of["layers"]:
            effect = statistics.difference(of["blocks"], of["layers"])
            parts.append(
                f"over their amounts, {_order(effect, 'whole blocks (strategy B)', 'a fixed number of layers (strategy A)', plural=True)}: "
                f"{points(effect)} on average"
            )
        control = claims.controls(results.runs, claims.network(backbone))
        for name, words in ("layers", "strategy A"), ("blocks", "strategy B"):
            if of[name] and control:
                effect = statistics.difference(of[name], control)
                parts.append(f"{_order(effect, words, 'the base frozen for as many epochs')}: {points(effect)}")
        if parts:
            sentences.append(f"**{title}**: {'; '.join(parts)}.")
    like = claims.like_parameters(results)
    if like is not None:
        word = {SUPPORTED: "blocks are still more accurate", CONTRADICTED: "layers are more accurate"}.get(
            like.verdict, "neither is told from the other"
        )
        sentences.append(f"At like numbers of trainable parameters {word}: {like.effect}.")
    return "\n\n".join(sentences) or "Needs runs of both strategies, or of one and the control."


def too_few_too_many(results: Results, verdicts: dict[str, Verdict]) -> str:
    """Under- and overfitting: what training and validation say."""
    sentences = []
    for backbone, rows in results.backbones.items():
        rows = rows.assign(gap=rows["train_accuracy"] - rows["validation_accuracy"])
        lowest, widest = rows.loc[rows["train_accuracy"].idxmin()], rows.loc[rows["gap"].idxmax()]
        least = rows.loc[rows["validation_loss"].idxmin()]
        if len(rows) == 1:
            sentences.append(
                f"**{REGISTRY[backbone].title}**, {_name(least)}: {least['train_accuracy']:.1%} of the training photos are named rightly, "
                f"{100 * least['gap']:+.1f} points from validation; the validation loss is {least['validation_loss']:.3f}."
            )
            continue
        sentences.append(
            f"**{REGISTRY[backbone].title}** fits its training photos least with {_name(lowest)} ({lowest['train_accuracy']:.1%} during the last epoch); "
            f"training is furthest ahead of validation with {_name(widest)} ({100 * widest['gap']:+.1f} points); "
            f"the validation loss is lowest with {_name(least)} ({least['validation_loss']:.3f})."
        )
    for id, effect in (
        ("underfitting", "That too few unfrozen layers underfit"),
        ("overfitting", "That too many overfit"),
    ):
        word = verdicts[id].verdict
        sentences.append(
            f"{effect} is {word if word != 'not decided' else 'not decided by these runs'}: {verdicts[id].effect}."
        )
    return "\n\n".join(sentences)


def best(results: Results) -> str:
    """The configurations that are not shown to be worse than any other, and the least of them that is not ruled out."""
    paragraphs = []
    for backbone, rows in results.backbones.items():
        like, cheapest = results.best(backbone), results.cheapest(backbone)
        title, top = REGISTRY[backbone].title, like.iloc[0]
        if len(rows) == 1:
            paragraphs.append(f"**{title}**: {_name(top)} is the only configuration that was run.")
            continue
        names = ", ".join(f"{_name(row)} ({row['test_accuracy']:.1%})" for _, row in like.iterrows())
        if len(like) == 1:
            text = f"**{title}**: {names} is best; every other configuration is shown to be worse than some other."
        else:
            text = (
                f"**{title}**: {len(like)} of {len(rows)} configurations are not shown to be worse than any other: {names}. {_steps(results, backbone)}"
                f"The least that is not ruled out is **{_name(cheapest)}**: it trains {cheapest['trainable_parameters']:,.0f} parameters"
            )
            if cheapest.name != top.name:
                effect = statistics.difference(results.of_row(top), results.of_row(cheapest))
                times = top["training_seconds"] / cheapest["training_seconds"]
                time = f", in {cheapest['training_seconds']:,.0f} s"
                if times >= 1.05:
                    time += f" where the most accurate needs {times:.1f} times as long"
                elif times <= 0.95:
                    time += f", though the most accurate needs only {times:.2f} times as long"
                pairs = results.pairs[backbone]
                pair = pairs[
                    (pairs["first"] == min(top.name, cheapest.name)) & (pairs["second"] == max(top.name, cheapest.name))
                ]
                equal = effect.equivalence(results.margin)
                text += (
                    f"{time}. The most accurate is {points(effect)} from it, by itself; corrected for all {len(pairs)} pairs, {claims.in_p(pair['p'].item())}. "
                    + (
                        f"That the two are within {100 * results.margin:g} points of each other is shown ({claims.in_p(equal)})."
                        if equal < statistics.ALPHA
                        else f"Nor is it shown that the two are within {100 * results.margin:g} points of each other: it is a choice by cost."
                    )
                )
            else:
                text += ", and it is the most accurate as well."
        paragraphs.append(text)
    paragraphs.append(
        "*Not shown to be worse* means: on the same test photos McNemar's exact test (with several seeds a bootstrap over seeds and photos) finds no other configuration of the network more accurate at 5 %, "
        "after Holm's correction over all pairs. *Not ruled out* means that, and that all configurations that train more are not shown to be more accurate when taken together: tested from the fewest trainable "
        "parameters up (of equal ones the longer trained first), each at 5 %, until the first that is not shown (Maurer, Hothorn and Lehmacher, 1995). "
        "That a gain is not shown does not say that there is none. And the most accurate of several is somewhat less so on other photos than on those that it was picked by."
    )
    return "\n\n".join(paragraphs)


def verdicts_in_words(results: Results, verdicts: dict[str, Verdict]) -> str:
    """How many claims are supported, contradicted and not decided."""
    tested = sum(verdict.p is not None for verdict in verdicts.values())
    text = (
        f"{_counted(verdicts)} Each is decided by itself at 5 %, for an accuracy only where test and interval agree. An asterisk marks the verdicts that stand when all {tested} that rest on a p value "
        "are corrected as one family (Holm). "
    )
    text += " ".join(
        f"Added by us, and not among them: {_lower(claim.words[:-1])}: {verdicts[claim.id].verdict}."
        for claim in claims.CLAIMS
        if not claim.where
    )
    if results.data["dataset"] != "tf_flowers":
        text += " The claims are about TF Flowers: on other data the verdicts say whether the same holds there, and nothing of whether it held for the original."
    return text


def conclusion(results: Results, verdicts: dict[str, Verdict]) -> str:
    """What follows for a reader: the networks, the strategies, the control, and what remains open."""
    lines = []
    effect = networks_compared(results)
    if effect is not None:
        text = f"**The networks.** {_capital(_order(effect, 'ResNet50', 'MobileNet'))}: {points(effect)}."
        for id, words in (
            ("mobilenet-latency", ("MobileNet is faster at inference", "MobileNet is not faster at inference")),
            ("mobilenet-training-time", ("MobileNet trains faster", "MobileNet trains slower")),
            ("mobilenet-memory", ("MobileNet needs less memory", "MobileNet needs more memory")),
        ):
            verdict = verdicts[id]
            if verdict.verdict in (SUPPORTED, CONTRADICTED):
                text += f" {_capital(words[verdict.verdict == CONTRADICTED])}: {verdict.effect}."
        lines.append(text)
    sides = claims.matching(
        *(select(results.runs, lambda e, s=s: e.strategy == s) for s in ("blocks", "layers")), lambda e: e.backbone
    )
    if all(sides):
        effect = statistics.difference(*sides)
        order = _order(effect, "whole blocks", "a fixed number of layers", plural=True)
        text = f"**Layers or blocks.** Over all, {order}: {points(effect)}."
        for backbone in results.backbones if len(results.backbones) > 1 else ():
            of = [
                claims.matching(
                    *([r for r in side if r.record.experiment.backbone == backbone] for side in sides), None
                )
            ]
            if all(of[0]):
                text += f" {REGISTRY[backbone].title} alone: {points(statistics.difference(*of[0]))}."
        lines.append(text)
    if text := remaining(results):
        lines.append(f"**Unfreezing or training longer.** {text}")
    for backbone, rows in results.backbones.items():
        if len(rows) > 1:
            lines.append(
                f"**How much of {REGISTRY[backbone].title} to unfreeze**, on data like these: {_advice(results, backbone)}"
            )
    text = f"**What of the original holds.** {_counted(verdicts)}"
    standing = claims.stand(verdicts)
    for word in SUPPORTED, CONTRADICTED:
        said = [
            claim.words[:-1] + r"\*" * (claim.id in standing)
            for claim in claims.CLAIMS
            if claim.where and verdicts[claim.id].verdict == word
        ]
        if said:
            text += f" {_capital(word)}: {'; '.join(said)}."
    lines.append(f"{text} The table of claims has each with its numbers; an asterisk is explained there.")
    return "\n".join(f"- {line}" for line in [*lines, *map(markdown, caveats(results))])


def hard_photos(results: Results, most: int = 10) -> pd.DataFrame:
    """The test photos that are wrong in most runs.

    Returns
    -------
    DataFrame
        A photo a row, the hardest first: key, label, said (the wrong class
        most often predicted), wrong (in which share of the runs,
        configurations weighing the same). Photos that are wrong in less than
        half are left out.
    """
    said = pd.concat([run.predictions[["key", "label", "predicted"]] for run in results.runs])
    wrong = said[said["label"] != said["predicted"]]
    grouped = wrong.groupby("key", sort=True)
    shares = [statistics.rightness(results.of_row(row)).mean(axis=0) for _, row in results.rows.iterrows()]
    table = pd.DataFrame(
        {
            "label": grouped["label"].first(),
            "said": grouped["predicted"].agg(lambda names: names.value_counts().index[0]),
            "wrong": pd.Series(1 - np.mean(shares, axis=0), index=results.runs[0].right.index).round(6),
        }
    ).rename_axis("key")
    return table[table["wrong"] >= 0.5].nlargest(most, "wrong").reset_index()


def hard_titles(hard: pd.DataFrame) -> list[str]:
    """A title for each photo of `hard_photos`."""
    return [
        f"{one_line(row.label)}\nsaid: {one_line(row.said)}\n(wrong in {row.wrong:.0%})" for row in hard.itertuples()
    ]


def hard_words(results: Results) -> str:
    """How many test photos all runs get wrong, and how many all get right."""
    right = statistics.rightness(results.runs)
    never, always = int((~right.any(axis=0)).sum()), int(right.all(axis=0).sum())
    if len(right) == 1:
        return f"Of {right.shape[1]} test photos, the only run names {always} rightly and {never} wrongly."
    return (
        f"Of {right.shape[1]} test photos, all {len(right)} runs name {always} rightly and {never} wrongly; on the other {right.shape[1] - always - never} they differ, "
        "and only these can tell configurations apart."
    )


def searched(results: Results) -> str:
    """How the learning rates came about."""
    if results.search is None:
        return "They are the profile's; no finished search for them is recorded."
    lines = []
    for (backbone, label, parameter), rows in results.search.groupby(["backbone", "label", "parameter"], sort=False):
        who = f"- **{REGISTRY[backbone].title}**, `{parameter}`, tried on {label}"
        if not rows["chosen"].any():
            lines.append(f"{who}: no run of it came to an end.")
            continue
        best = rows[rows["chosen"]].iloc[0]
        text = f"{who}: {_value(best['value'])} is right on the most of the {best['validation_photos']:.0f} validation photos, {best['validation_accuracy']:.1%}."
        if best["at_edge"] and len(rows) > 1:
            text += " It is the last one tried in its direction, so that one beyond may be better."
        if lacking := int(rows["validation_loss"].isna().sum()):
            text += f" {lacking} of its {len(rows)} values {_is(lacking)} without figures: diverged, or not finished."
        used = {
            run.record.parameters[parameter] for run in results.runs if run.record.parameters["backbone"] == backbone
        }
        if used and used != {best["value"]}:
            text += f" This study was run with {', '.join(map(_value, sorted(used)))}."
        lines.append(text)
    return "\n".join(
        [
            "Tried beforehand, one configuration for each network and parameter, a value at a time; best is the one that is right on the most "
            "validation photos after the last epoch, of equal ones the one with the lower loss. The test photos have no part in it. "
            "Values within a few points of each other would change places on other photos, and a value that suits one "
            "configuration need not suit the others of its network: if it favours any, then the one that it was tried on and its like.",
            "",
            *lines,
        ]
    )


def search_table(results: Results) -> pd.DataFrame:
    """What each value that was tried came to."""
    rows = [
        (
            REGISTRY[row["backbone"]].title,
            row["label"],
            row["parameter"],
            _value(row["value"]),
            *(
                (f"{row['validation_accuracy']:.1%}", f"{row['validation_loss']:.3f}")
                if row["validation_loss"] == row["validation_loss"]
                else ("–", "–")
            ),
            ", ".join(word for word, is_so in (("best", row["chosen"]), ("used", _used(results, row))) if is_so),
        )
        for _, row in results.search.iterrows()
    ]
    return pd.DataFrame(rows, columns=["Network", "Tried on", "Parameter", "Value", "Valid. acc.", "Valid. loss", ""])


def provenance(results: Results) -> pd.DataFrame:
    """How the study was run: parameters, data, weights, versions and device."""
    records = [run.record for run in results.runs]
    rows: list[tuple[str, str]] = []
    what_differs = ("backbone", "strategy", "amount", "output_dir")
    for name in records[0].parameters:
        if name not in what_differs:
            rows.append((name, _of_networks(results, name)))
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
        text = _distinct(
            f"{weights['title']}, {_official(weights)} (tensors' sha256 {weights['tensors_sha256'][:12]})"
            for weights in about
        )
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


def networks(results: Results) -> str:
    """The networks' names, for a title."""
    return " and ".join(REGISTRY[name].title for name in results.backbones)


def _official(weights: dict) -> str:
    return "the official ones" if weights["official"] else "not the official ones"


def caveats(results: Results) -> list[str]:
    """What a reader has to know wherever a network is spoken of: whose weights are not the official ones."""
    about = {REGISTRY[run.record.experiment.backbone].title: run.record.weights for run in results.runs}
    return [
        f"The weights of {title} are not the official ones: {one_line(weights['title'])}. "
        f"What is said of {title}, and above all of what unfreezing gains in it, is said of these."
        for title, weights in about.items()
        if not weights["official"]
    ]


def remaining(results: Results) -> str:
    """What the control tells, network by network; nothing where there is none."""
    gains = {REGISTRY[name].title: claims.remaining_gain(results, name) for name in results.backbones}
    texts = []
    for title, gain in gains.items():
        if gain is None:
            continue
        text = f"Fine-tuning {title}, its configurations together, is {points(gain.over_short)} from the base frozen for the head's epochs alone, and {points(gain.over_control)} from the control, frozen for as many epochs"
        if gain.share is None:
            text += ": the first is not shown to be a gain, so that there is no share of it to speak of."
        else:
            how_much = "nothing" if gain.high < 0 else "all" if gain.low > 1 else _share(gain.share)
            text += f": {how_much} of its gain remains when the frozen base may train as long (95 % interval: {_share(gain.low)} to {_share(gain.high)})."
        texts.append(text)
    return " ".join(texts)


def _share(value: float) -> str:
    return f"{round(value, 2) + 0.0:.0%}"  # no -0%


def title(row: pd.Series) -> str:
    """A configuration for a figure: network, what trains, seeds."""
    which = "control" if row["control"] else claims.short(row["strategy"], row["amount"])
    return f"{REGISTRY[row['backbone']].title} {which}, {_count(row['seeds'], 'seed')}"


def _label(row: pd.Series) -> str:
    return f"{row['label']} (control)" if row["control"] else row["label"]


def _counted(verdicts: dict[str, Verdict]) -> str:
    """What becomes of the original's claims."""
    words = [verdicts[claim.id].verdict for claim in claims.CLAIMS if claim.where]
    standing = set(claims.stand(verdicts)) & {claim.id for claim in claims.CLAIMS if claim.where}
    counts = {word: words.count(word) for word in (SUPPORTED, CONTRADICTED, claims.UNDECIDED)}
    decided = counts[SUPPORTED] + counts[CONTRADICTED]
    text = f"Of the original's {len(words)} claims, {counts[SUPPORTED]} {_is(counts[SUPPORTED])} supported, {counts[CONTRADICTED]} contradicted, and {counts[claims.UNDECIDED]} not decided"
    return (
        f"{text}; of the {_count(decided, 'verdict')}, {len(standing)} also when all are corrected together."
        if decided
        else f"{text}."
    )


def _steps(results: Results, backbone: str) -> str:
    """From the fewest trainable parameters up, what training more gains."""
    steps = results.gains[backbone]
    if steps.empty:
        return ""
    said = [
        f"{points(gain)} from {_name(results.rows.loc[index])} ({claims.in_p(gain.p)})" for index, gain in steps.items()
    ]
    last = (
        "is shown to be a gain"
        if steps.iloc[-1].sign > 0
        else "is shown to be a loss"
        if steps.iloc[-1].sign < 0
        else "is not shown to be a gain"
    )
    which = "that" if len(steps) == 1 else "the last of these"
    return f"From the fewest trainable parameters up, all configurations that train more are, taken together, {', '.join(said)}; {which} {last}. "


def _of_networks(results: Results, name: str) -> str:
    """A parameter's value, by network where these differ."""
    of = {
        REGISTRY[backbone].title: _distinct(
            run.record.parameters[name] for run in results.runs if run.record.parameters["backbone"] == backbone
        )
        for backbone in results.backbones
    }
    if len({*of.values()}) == 1:
        return next(iter(of.values()))
    return "; ".join(f"{title}: {value}" for title, value in of.items())


def _used(results: Results, tried: pd.Series) -> bool:
    """Whether the study was run with a value that was tried."""
    runs = (run.record.parameters for run in results.runs)
    return any(run["backbone"] == tried["backbone"] and run[tried["parameter"]] == tried["value"] for run in runs)


def _order(effect: Difference, first: str, second: str, plural: bool = False) -> str:
    """Which of two is more accurate, as far as that is shown."""
    are = "are" if plural else "is"
    if effect.sign > 0:
        return f"{first} {are} more accurate than {second}"
    if effect.sign < 0:
        return f"{first} {are} less accurate than {second}"
    return f"{first} cannot be told from {second}"


def _than(first: float, second: float) -> str:
    return "as much as" if round(first, 1) == round(second, 1) else "more than" if first > second else "less than"


def _advice(results: Results, backbone: str) -> str:
    """What to do with a network, as far as that is shown."""
    like, cheapest = results.best(backbone), results.cheapest(backbone)
    top = like.iloc[0]
    if len(like) == 1:
        return f"{_name(top)}; everything else is shown to be worse than some other."
    if cheapest.name == top.name:
        return f"{_name(top)}, the most accurate and also the least that is not ruled out."
    ahead = statistics.difference(results.of_row(top), results.of_row(cheapest))
    times = top["training_seconds"] / cheapest["training_seconds"]
    return (
        f"the least that is not ruled out is {_name(cheapest)}. The most accurate, {_name(top)}, is {points(ahead)} from it by itself, at {times:.1f} times the training time; "
        "whether that is worth it, more photos or seeds would have to show."
    )


def _cells(row: pd.Series, test_accuracy: str, latency: float) -> tuple[str, ...]:
    return (
        f"{row['train_accuracy']:.1%}",
        f"{row['train_loss']:.3f}",
        f"{row['validation_accuracy']:.1%}",
        f"{row['validation_loss']:.3f}",
        test_accuracy,
        f"{row['trainable_parameters']:,.0f}",
        f"{latency:.1f}",
    )


def _name(row: pd.Series) -> str:
    """A configuration in running text."""
    if row["strategy"] == "frozen":
        return f"the base frozen for {row['epochs']} epoch{'s' * bool(row['epochs'] > 1)}"
    return f"the last {row['amount']} {row['strategy']}" if row["amount"] > 1 else f"the last {row['strategy'][:-1]}"


def _distinct(values) -> str:
    """The different values, in their order."""
    words = ("all" if v is None else _value(v) if isinstance(v, float) else str(v) for v in values)
    return "; ".join(dict.fromkeys(words))


def _value(parameter: float) -> str:
    return np.format_float_positional(parameter, trim="-")  # 0.00001 rather than 1e-05


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _is(number: int) -> str:
    return "is" if number == 1 else "are"


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _lower(text: str) -> str:
    return text[0].lower() + text[1:]
