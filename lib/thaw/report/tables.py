"""The tables of the reports, and the results as files for people who write their own text."""

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from operator import methodcaller
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pandas as pd
from markupsafe import Markup

from thaw.disk import places
from thaw.disk.atomic import write_atomic
from thaw.experiment import FOUNDING, Experiment
from thaw.records.runs import PHOTOS, Run, runs_table, write_csv
from thaw.report import advice
from thaw.report.answer import Answer
from thaw.report.display import Link, latex, markdown
from thaw.report.notation import p_value, points
from thaw.report.results import Results
from thaw.report.words import number, parameter, percent, weights_title
from thaw.study.study import Study

NONE = "–"
NOTEBOOK = "experiment.ipynb"
FEW, PAIRS = 20, 300  # classes, and pairs of configurations, in a table
STEPS = 10  # to the cheapest choice of a network, in a table
TESTED = "Test acc. (95%)"
RESULTS: dict[str, tuple[str, Callable[..., str]]] = {  # what matters most comes first: a phone shows two of them
    TESTED: ("test_accuracy", percent),
    "Training (min)": ("training_seconds", lambda seconds: f"{seconds / 60:.1f}"),
    "Balanced acc.": ("balanced_accuracy", percent),  # where classes are not alike in size
    "Parameters": ("trainable_parameters", number),
    "ms a photo": ("inference_ms_per_image", lambda ms: f"{ms:.1f}" if ms == ms else NONE),
    "Valid. acc.": ("validation_accuracy", percent),
    "Valid. loss": ("validation_loss", lambda loss: f"{loss:.3f}"),
}


def parameters(experiment: Experiment) -> pd.DataFrame:
    """Tabulate the parameters of an experiment."""
    values = experiment.model_dump(mode="json").items()
    return pd.DataFrame([(name, "" if v is None else v) for name, v in values], columns=["Parameter", "Value"])


def blocks(found: pd.DataFrame) -> pd.DataFrame:
    """Tabulate a network's blocks, as `thaw.network.blocks.table` lists them."""
    shown = found.rename(
        columns={
            "last": "From the end",
            "parameters_from_here": "Parameters to the end",
            "multiply_adds": "Multiply-adds",
        }
    )
    shown = shown.rename(columns=lambda name: name.replace("_", " ").capitalize())
    return shown.map(lambda value: value if isinstance(value, str) else f"{value:,}")


def run(runs: Sequence[Run]) -> pd.DataFrame:
    """Tabulate the figures of one run; of the folds of one experiment, their means and the times of all."""
    rows, last = runs_table(runs), runs[-1].record
    mean = rows.mean(numeric_only=True)
    seconds = rows[["activations_seconds", "head_seconds", "finetune_seconds"]].sum()
    seconds["activations_seconds"] = rows["activations_seconds"].max()  # one pass for all folds
    figures = {
        "Training accuracy, loss": f"{mean['train_accuracy']:.2%}, {mean['train_loss']:.4f}",
        "Validation accuracy, loss": f"{mean['validation_accuracy']:.2%}, {mean['validation_loss']:.4f}",
        "Test accuracy, loss": f"{mean['test_accuracy']:.2%}, {mean['test_loss']:.4f}",
        "Trainable parameters": f"{last.trainable_parameters:,} of {last.total_parameters:,}",
        "Training time": f"{seconds['activations_seconds']:.1f} s for the frozen part, {seconds['head_seconds']:.1f} s "
        f"for the head alone, {seconds['finetune_seconds']:.1f} s after unfreezing",
        "Peak memory": f"{rows['peak_memory_mb'].max():,.0f} MB",
    }
    if last.peak_device_memory_mb is not None:
        figures["Peak memory of the GPU"] = f"{rows['peak_device_memory_mb'].max():,.0f} MB"
    return pd.DataFrame(figures.items(), columns=["Figure", "Value"])


def configurations(
    results: Results, with_original: bool = True, notebooks: Mapping[str, str] | None = None
) -> pd.DataFrame:
    """Tabulate all configurations, a row each; in a replication with the source's own accuracy beside ours.

    With `notebooks`, by the hash of a configuration, each row leads to one.
    """
    notebooks = notebooks or {}
    replication = results.replication if with_original else None
    if replication and replication.original is None:
        replication = None
    columns = {name: of for name, of in RESULTS.items() if name != "Balanced acc." or results.uneven}
    if results.have_own_folds:
        columns["Folds"] = "folds", number
    if results.rows["training_seconds"].min() < 60:
        columns["Training (min)"] = "training_seconds", lambda seconds: f"{seconds / 60:.2f}"
    rows = []
    for _, row in results.rows.iterrows():
        measured = results.backbones[row["backbone"]]["latency"].median()  # all its configurations are one graph
        ours = dict(row) if np.isnan(measured) else dict(row) | {"inference_ms_per_image": measured}
        cells = {name: write(ours[column]) for name, (column, write) in columns.items()}
        cells[TESTED] += f" ({100 * row['test_low']:.1f} to {100 * row['test_high']:.1f})"
        label = row["label"] + " (control)" * row["control"]
        if row["configuration"] in notebooks:
            label = Link(label, notebooks[row["configuration"]])
        rows.append({"Network": results.titles[row["backbone"]], "What trains": label} | cells)
        if replication:
            match = replication.row_of(row)
            rows[-1]["theirs"] = NONE if match is None else percent(match["test_accuracy"])
    known = set(results.rows["configuration"])
    for job, reason in results.missing.items():
        if job.experiment.configuration not in known:
            known.add(job.experiment.configuration)
            word = "diverged" if reason.startswith("diverged") else "not finished"
            label = f"{job.experiment.label}: {word}"
            rows.append({"Network": results.title(job.experiment.backbone), "What trains": label})
    frame = pd.DataFrame(rows).fillna(NONE)
    if replication:
        frame.insert(4, replication.called.capitalize(), frame.pop("theirs"))
    return frame


def recall(answer: Answer) -> pd.DataFrame:
    """Tabulate the lowest `FEW` recalls by class, for the recommended configuration of each network."""
    results, choices = answer.results, {f"{n.title}, {n.choice['short']}": n.choice for n in answer.networks}
    shares = pd.concat({name: results.recall(choice) for name, choice in choices.items()}, axis=1)
    shown = shares.loc[shares.mean(axis=1).sort_values(kind="stable").index[:FEW]].map(percent)
    photos = pd.DataFrame({name: results.photos_of(choice) for name, choice in choices.items()})
    photos = photos.loc[shown.index].map(number)
    if photos.nunique(axis=1).eq(1).all():
        shown.insert(0, "Test photos", photos.iloc[:, 0])
    else:  # networks were tested on folds of their own
        shown = shown + " of " + photos
    return shown.rename_axis("Class").reset_index()


def steps(answer: Answer) -> pd.DataFrame:
    """Tabulate the last `STEPS` steps of each network to its cheapest choice; a row a step."""
    rows = [
        (network.title, row["phrase"], over["phrase"], points(step.difference), p_value(step.p), step.others)
        + ("yes" if step.clear else "not shown",)
        for network in answer.networks
        for row, step, over in network.steps[-STEPS:]
    ]
    columns = ["Network", "From", "The most promising that trains more", "Gain (95%)", "p", "Corrected for", "Helps"]
    return pd.DataFrame(rows, columns=columns)


def differences(results: Results) -> pd.DataFrame:
    """Tabulate the difference of every two configurations of each network in points, clear ones and large ones first.

    There are at most `PAIRS`.
    """
    rows = []
    for name, pairs in results.pairs.items():
        for pair in pairs.itertuples():
            first, second = (results.rows.loc[index, "short"] for index in (pair.first, pair.second))
            clear = "clear" if pair.separated else NONE
            rows.append((pair.difference.mean, (results.titles[name], first, second, points(pair.difference), clear)))
    rows.sort(key=lambda row: (row[1][-1] == NONE, -abs(row[0])))
    columns = ["Network", "First", "Second", "First less second (95%)", "Clear"]
    return pd.DataFrame([cells for _, cells in rows[:PAIRS]], columns=columns)


def findings(found: pd.DataFrame) -> pd.DataFrame:
    """Tabulate what the checks of the photos found."""
    found = found.assign(found=found["found"].map(_short_keys))
    return found[["code", "title", "found", "do"]].set_axis(["Check", "About", "Found", "What to do"], axis=1)


def _short_keys(text: str) -> str:
    """Shorten the keys that TFDS gives photos, from 'mine-train.tfrecord-00000-of-00001__17' to 'train-0-17'."""
    return re.sub(r"\S+?-(\w+)\.tfrecord-0*(\d+)-of-\d+__(\d+)", r"\1-\2-\3", text)


def chosen(results: Results) -> list[int]:
    """Find the row of the recommended configuration among those of `configurations`; none of a single one."""
    return [results.rows.index.get_loc(results.recommended.name)] if len(results.rows) > 1 else []


def original_note(results: Results) -> list[str]:
    """Say what the column of an original is; nothing without one."""
    about = results.replication
    if not about or about.original is None:
        return []
    return [f"{about.called.capitalize()}: its test accuracy ({about.claims.conditions})."]


def costs(results: Results) -> pd.DataFrame:
    """Tabulate training time by phase and memory, a configuration a row; means over seeds and folds."""
    rows = results.rows.assign(network=results.rows["backbone"].map(results.titles))
    tuned = rows["strategy"] != "frozen"
    epochs = rows["epochs"] - min(run.record.experiment.head_epochs for run in results.runs)
    frame = rows[["network", "label"]].set_axis(["Network", "What trains"], axis=1)
    for name, seconds in (
        ("Frozen part (s)", rows["activations_seconds"]),
        ("Head (s)", rows["head_seconds"]),
        ("Unfrozen (s)", rows["finetune_seconds"].where(tuned)),
        ("an epoch (s)", (rows["finetune_seconds"] / epochs).where(tuned)),
        ("All (s)", rows["training_seconds"]),
    ):
        frame[name] = seconds.map(lambda value: NONE if np.isnan(value) else number(value, 1))
    frame["Peak MB"] = rows["peak_memory_mb"].map("{:,.0f}".format)
    if rows["peak_device_memory_mb"].notna().any():
        frame["GPU MB"] = rows["peak_device_memory_mb"].map("{:,.0f}".format)
    return frame


def hard(photos: pd.DataFrame) -> pd.DataFrame:
    """Tabulate `Answer.hard`, for a machine without the photos."""
    shown = photos.assign(key=photos["key"].map(_short_keys), wrong=photos["wrong"].map("{:.0%}".format))
    return shown.rename(columns=str.capitalize)


def rates(answer: Answer) -> pd.DataFrame:
    """Tabulate the learning rates that were taken and tried; a head that configurations have in common stands once."""
    rows = []
    for of in answer.rates.networks if answer.rates else []:
        for trials in of.trials:
            taken = trials.chosen
            figures = parameter(taken["value"]), f"{taken['loss']:.3f}", percent(taken["accuracy"])
            tried = [
                f"{parameter(row['value'])}{' (added)' * row['extended']}: "
                + ("diverged" if row["diverged"] else f"{row['loss']:.3f}")
                for _, row in trials.table.iterrows()
            ]
            phase = "head alone" if of.is_head else "after unfreezing"
            rows.append((of.title, of.named(trials), phase, *figures, "; ".join(tried)))
    columns = ["Network", "What trains", "Phase", "Rate", "Loss", "Accuracy", "Rates tried, with their losses"]
    return pd.DataFrame(rows, columns=columns)


def provenance(answer: Answer) -> pd.DataFrame:
    """Tabulate how the study was run: parameters, data, weights, versions and device."""
    records = [run.record for run in answer.results.runs]

    def each(write, records=records):
        return "; ".join(dict.fromkeys(map(write, records)))

    def weights(record):
        return f"{weights_title(record.weights)}, tensors' sha256 {record.weights['tensors_sha256'][:12]}"

    compared = ("backbone", "strategy", "amount", "skip", "pattern", "output_dir")
    later = {name: field.get_default() for name, field in Experiment.model_fields.items() if name not in FOUNDING}
    given = [
        f"{name} {answer.parameter(name)}"
        for name in Experiment.model_fields
        if name not in compared
        and (name not in later or any(getattr(record.experiment, name) != later[name] for record in records))
    ]
    rows = {"parameters": "\n".join(given), "optimiser": "Adam, which starts afresh after unfreezing"}
    rows["data"] = each(lambda r: f"{r.data['dataset']} {r.data['version']}, sha256 {r.data['sha256'][:12]}")
    for network in answer.networks:
        rows[f"weights of {network.title}"] = each(weights, [run.record for run in network.runs])
    rows["versions"] = each(lambda r: ", ".join(f"{name} {version}" for name, version in r.versions.items()))
    if any(record.commit for record in records):
        rows["commit"] = each(lambda r: r.commit or "not recorded")
    rows["device"] = each(lambda r: f"{r.device['name']}, {r.device['cores']} core(s) a run, {r.device['gpus']} GPU(s)")
    return pd.DataFrame(rows.items(), columns=["What", "Value"])


def files(study: Study) -> pd.DataFrame:
    """Tabulate the files that each run has left, as links from the report's folder; of a part of the folds, by fold."""
    names = {"Notebook": NOTEBOOK, "Record": "record.json", "Curves": "history.csv"}
    names |= {"Predictions": "predictions.csv", "Photos": PHOTOS}
    rows = []
    for job in study.jobs:
        for folder in job.folders or [job.directory]:
            label = job.label if folder == job.directory else f"{job.label}, fold {folder.name}"
            rows.append((label, *(_link(study, name, folder / name) for name in names.values())))
    frame = pd.DataFrame(rows, columns=["Run", *names])
    return frame if frame["Photos"].any() else frame.drop(columns="Photos")


def notebooks(study: Study) -> dict[str, str]:
    """Find the executed notebook of each configuration's first run, by its hash: paths from the report's folder."""
    links = {
        job.experiment.configuration: _link(study, "", job.directory / NOTEBOOK)
        for job in sorted(study.jobs, key=lambda job: -job.experiment.seed)
    }
    return {configuration: link.path for configuration, link in links.items() if isinstance(link, Link)}


def _link(study: Study, text: str, path: Path) -> Link | str:
    """Make a link from the report's folder; nothing where there is no such file."""
    return Link(text, path.relative_to(study.outputs).as_posix()) if path.is_file() else ""


def explorer(study: Study) -> Markup:
    """Give the way from the report to the explorer's notebook; empty where the outputs are not in the project."""
    notebook = places.project() / "notebooks" / "explore.ipynb"
    if places.project() not in study.outputs.parents or not notebook.is_file():
        return Markup("")
    return Markup(quote(Path(os.path.relpath(notebook, study.outputs)).as_posix()))


def write_tables(study: Results, folder: Path, names: Mapping[str, str] | None = None, made_from: str = "") -> None:
    """Write the results as files.

    ``results.csv`` has a run a row with every figure; its ``latency`` is that
    of the whole network. ``results.md`` and ``results.tex`` have the table of
    `configurations`, and ``answer.json`` what
    `thaw.report.advice.for_programs` makes of `names` and `made_from`.
    """
    latency = {name: rows["latency"].median() for name, rows in study.backbones.items()}
    runs = runs_table(study.runs).assign(dataset=study.data["dataset"])
    runs["latency"] = runs["backbone"].map(latency)
    write_csv(runs if study.has_folds else runs.drop(columns="fold"), folder / "results.csv")
    frame = configurations(study, with_original=False)
    means = f", means over {study.folds_so_far}" if study.has_folds else ""
    title, caption = study.data["title"], f"Test accuracy with 95% intervals, {{}}{means}."
    table = frame.to_markdown(index=False, disable_numparse=True)
    texts = {"results.md": f"{caption.format(markdown(title))}\n\n{table}\n"}
    options = {"index": False, "escape": True, "label": "tab:results"}
    texts["results.tex"] = frame.to_latex(caption=latex(caption.format(title)), **options)
    answer = advice.for_programs(Answer(study), names, made_from)
    texts["answer.json"] = json.dumps(answer, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    for name, text in texts.items():
        write_atomic(folder / name, methodcaller("write_text", text, encoding="utf-8"))
