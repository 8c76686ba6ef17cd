"""Thaw against plain Keras, a configuration at a time, in turns, on one machine.

    python benchmarks/compare.py                    # five minutes: small photos, few rows
    python benchmarks/compare.py --paper            # the study's own size; half an hour
    python benchmarks/compare.py --paper --photos 3670 --epochs 15   # nothing extrapolated: a day
    python benchmarks/compare.py --paper --peers    # plain PyTorch too (pip install "thaw[peers]")

Each run is a process of its own, from nothing. With fewer photos or epochs
than the profile has, its time is composed from what was measured: what is
spent once, and the seconds a photo of each later epoch times the profile's
photos and epochs. Writes ``results.csv``, ``results.md`` and ``results.png``.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd

import thaw
from thaw.network import backbones, graph, unfreezing
from thaw.network.head import HEAD, add_head
from thaw.study.study import Study, read_parameters
from thaw.training import machine
from thaw.training.setup import set_keras

HERE = Path(__file__).parent
HOW = {  # name: script, precision, further parameters
    "plain Keras": ("plain.py", "float32", {}),
    "Thaw": ("thaw_run.py", "float32", {}),
    "Thaw, bfloat16": ("thaw_run.py", "mixed_bfloat16", {}),
}
PEERS = {
    "plain PyTorch": ("plain_torch.py", "float32", {}),
    "plain PyTorch, bfloat16": ("plain_torch.py", "mixed_bfloat16", {}),
    "compiled PyTorch, bfloat16": ("plain_torch.py", "mixed_bfloat16", {"compile": True}),
    "features by hand": ("plain.py", "float32", {"by_hand": True}),  # of a frozen base, which is all that it can train
}
SHARES = {"train": 0.75, "validation": 0.15, "test": 0.10}
PEAK = """
import json, sys, time, tensorflow as tf
kind = tf.as_dtype(sys.argv[1])
a = tf.cast(tf.random.normal((4096, 4096)), kind)
x, w = tf.cast(tf.random.normal((32, 14, 14, 256)), kind), tf.cast(tf.random.normal((3, 3, 256, 256)), kind)
def best(function, operations):
    function()
    times = []
    for _ in range(10):
        began = time.perf_counter()
        float(tf.cast(function(), tf.float32))
        times.append(time.perf_counter() - began)
    return operations / min(times) / 1e9
matrix = tf.function(lambda: tf.reduce_max(tf.matmul(a, a)[0]))
convolution = tf.function(lambda: tf.reduce_max(tf.nn.conv2d(x, w, 1, "SAME")[0, 0]))
print(json.dumps([best(matrix, 2 * 4096**3), best(convolution, 2 * 32 * 14 * 14 * 9 * 256**2)]))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--paper", action="store_true", help="profile paper and all its rows, instead of quick and four"
    )
    parser.add_argument("--photos", type=int, help="how many photos to run (default: 320, in quick 640)")
    parser.add_argument("--epochs", type=int, default=2, help="most epochs to run of each phase (default: %(default)s)")
    parser.add_argument("--only", help="configurations whose name holds this")
    parser.add_argument("--peers", action="store_true", help="plain PyTorch and a head on features kept by hand, too")
    parser.add_argument("--output", type=Path, default=HERE / "results", help="folder (default: %(default)s)")
    options = parser.parse_args()
    profile = "paper" if options.paper else "quick"
    few = ("mobilenet-frozen", "mobilenet-blocks-2", "resnet50-layers-5", "resnet50-blocks-2")
    study = Study.load(profile)
    first_seeds = {job.configuration: job for job in reversed(study.jobs) if not job.twin_of}.values()
    jobs = [job for job in list(first_seeds)[::-1] if not job.experiment.control]
    jobs = [
        job for job in jobs if (options.paper or job.configuration in few) and (options.only or "") in job.configuration
    ]
    photos = options.photos or (320 if options.paper else 640)
    whole = int(read_parameters(study.path)["max_examples"] or 3670)
    options.output.mkdir(parents=True, exist_ok=True)
    hows = HOW | (PEERS if options.peers else {})
    hows = {how: of for how, of in hows.items() if of[1] == "float32" or machine.suits(of[1])}  # 16 bits: hours, else
    of_precision = {precision: peak(precision) for _, precision, _ in hows.values()}
    peaks = {how: of_precision[precision] for how, (_, precision, _) in hows.items()}
    for how, (matrix, convolution) in peaks.items():
        print(f"{how}: matrix product {matrix:.0f} GFLOP/s, convolution {convolution:.0f} GFLOP/s", flush=True)
    rows = []
    for job in jobs:
        for how, (script, precision, further) in hows.items():
            if "by_hand" in further and job.experiment.strategy != "frozen":
                continue
            full = job.experiment.undivided.model_copy(update={"precision": precision, "output_dir": None})
            part = full.model_copy(
                update={
                    "max_examples": min(photos, whole),
                    "head_epochs": min(full.head_epochs, options.epochs),
                    "finetune_epochs": min(full.finetune_epochs, options.epochs),
                }
            )
            run = measured(script, part, further)
            row = {"configuration": job.configuration, "how": how} | composed(run, part, full, whole)
            row |= {name: run[name] for name in ("whole", "train_loss", "validation_loss", "peak_memory_mb")}
            row["disk_gb"] = run["disk_mb"] / part.max_examples * whole / 1e3
            cached = run.get("cached", {})  # of the last phase; a frozen row has but the head
            row["cached"] = cached.get("finetune", cached.get("head", False))
            rows.append(row)
            print(f"{time.strftime('%H:%M:%S')} {job.configuration}, {how}: {row['seconds']:,.0f} s", flush=True)
            pd.DataFrame(rows).to_csv(options.output / "results.csv", index=False)
    (options.output / "peaks.json").write_text(json.dumps(peaks))
    part = f"{min(photos, whole):,} of {whole:,} photos and {options.epochs} epochs a phase"
    note = f"Profile {profile}, composed from {part}."
    write(pd.DataFrame(rows), study, whole, peaks, note, options.output)


def peak(precision: str) -> tuple[float, float]:
    """GFLOP/s of a large matrix product and of a convolution, in the same library and precision."""
    kind = "float32" if precision == "float32" else "bfloat16"
    return tuple(json.loads(subprocess.run([sys.executable, "-c", PEAK, kind], **QUIET).stdout))


def measured(script: str, experiment, further: dict[str, bool]) -> dict:
    """One run, in a process of its own."""
    parameters = json.dumps(experiment.model_dump(mode="json", exclude={"output_dir"}) | further)
    done = subprocess.run([sys.executable, HERE / script, parameters], env=environment(script), **QUIET)
    if done.returncode:
        sys.exit(f"{script} {parameters} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def environment(script: str) -> dict[str, str]:
    """Give the variables of a script's process: without those that Thaw sets for itself, unless it is Thaw's."""
    left_out = {} if script == "thaw_run.py" else thaw.ENVIRONMENT
    return {name: value for name, value in os.environ.items() if left_out.get(name) != value}


def composed(run: dict, part, full, whole: int) -> dict[str, float]:
    """A whole run's seconds by phase, from a part of it.

    An epoch's time goes with the photos; what the first one of a phase takes
    more than the others (tracing) is spent once, as is the start.
    """
    times = whole / part.max_examples

    def phase(seconds: list[float], epochs: int) -> float:
        if not seconds:
            return 0.0
        steady = min(seconds[1:] or seconds)
        return steady * times * epochs + max(seconds[0] - steady, 0.0)

    a_photo = run.get("activations_a_photo", 0.0)
    once = max(run["activations"] - a_photo * part.max_examples, 0.0)
    seconds = {
        "start": run["start"],
        "photos": run["photos"] * times,
        "activations": once + a_photo * whole,
        "head": phase(run["head"], full.head_epochs),
        "finetune": phase(run["finetune"], full.finetune_epochs if run["finetune"] else 0),
        "test": run["test"] * times,
    }
    return seconds | {"seconds": sum(seconds.values())}


def multiply_adds(study: Study) -> dict[str, tuple[int, int]]:
    """Of each configuration, for one photo: those of the whole network, and those of the part that trains."""
    counts = {}
    for job in study.jobs:
        experiment = job.experiment
        set_keras(experiment)
        backbone = backbones.get(experiment.backbone)
        base = backbone.build(experiment.image_size)
        model = add_head(base, 5)
        unfreezing.unfreeze(base, unfreezing.unfrozen(base, backbone, experiment))
        frontier = graph.cut(model).frontier
        counts[job.configuration] = (
            graph.multiply_adds(model, [HEAD]),
            0 if experiment.strategy == "frozen" else graph.multiply_adds(model, [HEAD], frontier),
        )
    return counts


def gflop(row: pd.Series, study: Study, counts: dict[str, tuple[int, int]], whole: int) -> float:
    """The floating-point operations of a whole run: two to a multiply-add, and twice as many again backwards."""
    experiment = next(job.experiment for job in study.jobs if job.configuration == row["configuration"])
    network, trained = counts[row["configuration"]]
    finetune = 0 if experiment.strategy == "frozen" else experiment.finetune_epochs
    epoch = SHARES["train"] + SHARES["validation"]
    backward = 2 * SHARES["train"] * trained
    if row["how"] == "features by hand":
        total = network
    elif not row["how"].startswith("Thaw"):
        total = (
            experiment.head_epochs * epoch * network
            + finetune * (epoch * network + backward)
            + SHARES["test"] * network
        )
    else:
        forward = trained if row["cached"] else network
        total = network + finetune * (epoch * forward + backward) + (0 if row["cached"] else SHARES["test"] * network)
    return 2 * whole * total / 1e9


def write(rows: pd.DataFrame, study: Study, whole: int, peaks: dict, note: str, output: Path) -> None:
    """The table, its totals, and a figure."""
    counts = multiply_adds(study)
    rows["gflop"] = [gflop(row, study, counts, whole) for _, row in rows.iterrows()]
    fastest = rows["how"].map({how: max(peak) for how, peak in peaks.items()})
    rows["share_of_peak"] = rows["gflop"] / (rows["seconds"] - rows["start"] - rows["photos"]) / fastest
    rows.to_csv(output / "results.csv", index=False)
    wide = rows.pivot(index="configuration", columns="how")
    order = list(dict.fromkeys(rows["configuration"]))
    hows = [how for how in HOW | PEERS if how in set(rows["how"])]
    names = [how for how in hows if how != "plain Keras"]
    lines = [
        "| | plain Keras | "
        + " | ".join(f"{name} | ratio" for name in names)
        + " | last training loss | peak memory, GB | disk, GB | TFLOP | share of peak |",
        "|---|--:|" + "--:|--:|" * len(names) + "--:|--:|--:|--:|--:|",
    ]
    for name in order:
        row = wide.loc[name]
        cells = [name, f"{row['seconds', 'plain Keras']:,.0f} s"]
        for how in names:
            ratio = row["seconds", "plain Keras"] / row["seconds", how]
            cells += [f"{row['seconds', how]:,.0f} s", f"**{ratio:.1f}**"] if ratio > 0 else ["–", "–"]
        for column, scale, digits, of in (
            ("train_loss", 1, 4, hows),
            ("peak_memory_mb", 1e-3, 1, hows),
            ("disk_gb", 1, 1, [how for how in names if how.startswith("Thaw")]),
            ("gflop", 1e-3, 0, hows[:2]),
        ):
            values = [row[column, how] * scale for how in of]
            cells.append(" / ".join(f"{value:.{digits}f}" for value in values if value == value))
        shares = [row["share_of_peak", how] for how in hows]
        cells.append(" / ".join(f"{share:.0%}" for share in shares if share == share))
        lines.append("| " + " | ".join(cells) + " |")
    total = {how: study_seconds(rows[rows["how"] == how]) for how in hows}
    cells = [f"**all {len(order)} in one study**", f"{total['plain Keras']:,.0f} s"]
    for how in names:
        all_rows = (rows["how"] == how).sum() == len(order)
        cells += [f"{total[how]:,.0f} s", f"**{total['plain Keras'] / total[how]:.1f}**"] if all_rows else ["–", "–"]
    lines.append("| " + " | ".join(cells) + " | | | | | |")
    text = "\n".join(lines)
    (output / "results.md").write_text(text + "\n", encoding="utf-8")
    print(f"\n{note} Values in one cell are of {', '.join(hows)}.\n{text}")
    draw(wide.loc[order], names, output / "results.png")


def study_seconds(rows: pd.DataFrame) -> float:
    """All rows one after the other; for Thaw, with photos decoded, heads trained and each network's pass made once."""
    if not rows["how"].iloc[0].startswith("Thaw"):
        return rows["seconds"].sum()
    network = rows["configuration"].str.split("-").str[0]
    once = sum(rows[part].groupby(network).max().sum() for part in ("activations", "head"))
    return once + rows["photos"].max() + rows[["start", "finetune", "test"]].to_numpy().sum()


def draw(wide: pd.DataFrame, names: list[str], path: Path) -> None:
    """The ratios as bars."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 0.22 * len(names) * len(wide) + 1.2), layout="constrained")
    axes = figure.subplots()
    for i, name in enumerate(names):
        ratio = wide["seconds", "plain Keras"] / wide["seconds", name]
        thick = 0.76 / len(names)
        places = [k + (i + 0.5) * thick - 0.38 for k in range(len(wide))]
        bars = axes.barh(places, ratio, 0.95 * thick, label=name, color=f"C{i}")
        axes.bar_label(bars, fmt="%.1f", padding=3, fontsize=8)
    axes.axvline(1, color="0.3", linewidth=1)
    axes.set_yticks(range(len(wide)), wide.index)
    axes.invert_yaxis()
    axes.set_xlabel("times as fast as plain Keras, alone and from nothing")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")
    figure.savefig(path, dpi=150)


QUIET = {"capture_output": True, "text": True}

if __name__ == "__main__":
    main()
