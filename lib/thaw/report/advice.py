"""The answer of the first page, for readers and for programs: what to train, what it brings, what would change it."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from thaw.report.answer import Answer, NetworkAnswer
from thaw.report.notation import points
from thaw.report.statistics import Difference
from thaw.report.words import count, duration, number, percent

QUESTION = "How much of a pre-trained network should one unfreeze?"
OTHERS = 3  # networks that are compared with the advised one in the box


def box(answer: Answer) -> dict[str, str]:
    """Say what to do, a line a fact."""
    network, row = answer.advised, answer.advised.choice
    device = answer.record.device
    trains = row["phrase"]
    if row["strategy"] == "frozen":
        trains = f"only its new last layer ({trains})"
    elif row["strategy"] != "all":
        trains = f"{trains} and its new last layer; the rest stays as it is"
    share = f"{number(row['trainable_parameters'])} of {number(row['total_parameters'])} parameters learn"
    a_photo = f"{number(network.speed['graph'], 1)} ms a photo" if network.speed else "a photo was not measured"
    low, high = percent(row["test_low"]), percent(row["test_high"])
    return {
        "Network": f"{network.title}, pre-trained",
        "What to train": f"{trains}. So {share}.",
        "Accuracy": f"{percent(row['test_accuracy'])} of photos that it was not trained on (95% interval: {low} to "
        f"{high})",
        "Time": f"{duration(row['training_seconds'])} to train, {a_photo} ({device['name']}, "
        f"{count(device['cores'], 'core')})",
        "What would change this": " ".join(_changes(answer)),
    }


def _changes(answer: Answer) -> list[str]:
    """Say what would lead to another advice, a sentence each."""
    network, row = answer.advised, answer.advised.choice
    said = []
    if not answer.results.decides:
        said.append("More test photos: so few cannot decide.")
    if network.decision == "only":
        said.append("Another configuration: this is the only one of its network that was run.")
    elif network.decision in ("no difference that matters", "too close to call"):
        matters = network.decision == "no difference that matters"
        end = "no difference that matters." if matters else "too close to call. More photos could decide."
        ratio = network.top["training_seconds"] / row["training_seconds"]
        said.append(
            f"More accuracy at any price: {network.top['phrase']} had the most, {percent(network.top['test_accuracy'])}"
            f" after {number(ratio, 1)} times the training time. Ahead by {points(network.ahead[0])}, it is {end}"
        )
    for other in [other for other in answer.networks if other is not network][:OTHERS]:
        effect = against(other, network)
        order = {1: "clearly more accurate", -1: "clearly less accurate", 0: "too close to call"}[effect.sign]
        speed = other.speed["graph"] / network.speed["graph"] if other.speed and network.speed else None
        slower = f", {number(speed, 1)} times as long a photo" if speed else ""
        said.append(f"Another network: {other.title} ({other.choice['phrase']}) is {order}, {points(effect)}{slower}.")
    return [*said, "Photos unlike these: test it on your own."]


def against(other: NetworkAnswer, network: NetworkAnswer) -> Difference:
    """Compare the choices of two networks: the accuracy of the first less that of the second."""
    results = network.results
    return results.difference(*(results.of_row(each.choice) for each in (other, network)))


def for_programs(answer: Answer, names: Mapping[str, str] | None = None, made_from: str = "") -> dict[str, Any]:
    """Give the answer as JSON's types.

    Parameters
    ----------
    answer : Answer
    names : mapping of str to str, optional
        What the profile calls each configuration, by its hash.
    made_from : str
        As `thaw.study.freshness.made_from` returns it.
    """
    results, data, names = answer.results, answer.record.data, names or {}

    def of_row(row: pd.Series) -> dict[str, Any]:
        return {
            "configuration": names.get(row["configuration"], row["configuration"]),
            "label": row["label"],
            "accuracy": float(row["test_accuracy"]),
            "low": float(row["test_low"]),
            "high": float(row["test_high"]),
            "training_seconds": float(row["training_seconds"]),
            "trainable_parameters": int(row["trainable_parameters"]),
        }

    def of_network(network: NetworkAnswer) -> dict[str, Any]:
        apart = None
        if network.top.name != network.choice.name:
            effect = network.ahead[0]
            apart = {"points": 100 * effect.mean, "low": 100 * effect.low, "high": 100 * effect.high}
        return {
            "network": network.name,
            "title": network.title,
            "recommended": of_row(network.choice),
            "decided": network.decision,
            "milliseconds_a_photo": float(network.speed["graph"]) if network.speed else None,
            "most_accurate": of_row(network.top),
            "most_accurate_less_recommended": apart,
            "not_clearly_beaten": [row["label"] for row in network.unbeaten],
            "folds": list(network.folds),
            "seeds": int(network.rows["seeds"].min()),
        }

    networks = [of_network(network) for network in answer.networks]
    advised = next(each for each in networks if each["network"] == answer.advised.name)
    return {
        "question": QUESTION,
        "data": {name: data[name] for name in ("title", "dataset", "version", "sha256", "photos")}
        | {"tested": len(results.tested), "classes": results.classes},
        "advice": {"network": advised["network"], "configuration": advised["recommended"]["configuration"]},
        "enough_photos_to_decide": results.decides,
        "networks": networks,
        "margin_points": 100 * results.margin,
        "claims": {word: n for word, n in answer.verdicts.items() if n},
        "made_from": made_from,
    }
