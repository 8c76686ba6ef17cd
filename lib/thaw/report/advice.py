"""The answer of the first page, for readers and for programs: what to train, what it brings, what would change it."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from thaw.experiment import Experiment
from thaw.report.answer import Answer, NetworkAnswer
from thaw.report.notation import narrow, points, size, times
from thaw.report.statistics import ALPHA, Difference
from thaw.report.verdicts import ALIKE, TOO_CLOSE
from thaw.report.words import count, duration, number, parameter, percent

QUESTION = "How much of a pre-trained network should one unfreeze?"
OTHERS = 3  # networks that are compared with the advised one in the box


def box(answer: Answer) -> dict[str, str]:
    """Say what to do, a line a fact."""
    network, row = answer.advised, answer.advised.choice
    device = answer.record.device
    trains = row["phrase"]
    if row["strategy"] == "frozen":
        trains = f"only the new last layer ({trains})"
    elif row["strategy"] != "all":
        trains = f"{trains} and the new last layer"
    share = f"{number(row['trainable_parameters'])} of {number(row['total_parameters'])} parameters"
    rest = "" if row["strategy"] == "all" else " The rest stays as it is."
    on, a_photo = f"{device['name']}, {count(device['cores'], 'core')}", "a photo was not measured"
    if network.speed and answer.results.latency is not None:
        machine = answer.results.latency.iloc[0]
        alike = f"{machine['device']}, {count(machine['cores'], 'core')}"
        a_photo = f"{number(network.speed['graph'], 1)} ms for a photo ({'the same' if alike == on else alike})"
    low, high = percent(row["test_low"]), percent(row["test_high"])
    return {
        "Network": f"{network.title}, pre-trained",
        **({"Why this network": _why(answer)} if len(answer.networks) > 1 else {}),
        "What to train": f"{trains}: {share}.{rest}",
        "How": _how(answer.results.of_row(row)[0].record.experiment),
        "Accuracy": f"{percent(row['test_accuracy'])} of the photos that it was not trained on are classified "
        f"correctly (95% interval, where the true value probably is: {low} to {high}).{_lucky(answer)}",
        "Time": f"{duration(row['training_seconds'])} to train ({on}), {a_photo}",
        "What would change this": "\n".join(_changes(answer)),
    }


def _how(experiment: Experiment) -> str:
    """Say how long each phase trains, and at which rate."""
    frozen, rate = experiment.strategy == "frozen", parameter(experiment.head_learning_rate)
    first = count(experiment.epochs if frozen else experiment.head_epochs, "epoch")
    said = f"{first} of the new last layer{' alone' * (not frozen)} (learning rate {rate})"
    if frozen:
        return said
    rate = parameter(experiment.finetune_learning_rate)
    return f"{said}, then {experiment.finetune_epochs} epochs of all that trains ({rate})"


def _lucky(answer: Answer) -> str:
    """Say that what was chosen by its accuracy is usually a little less accurate on new photos."""
    if len(answer.results.rows) == 1:
        return ""
    these = "results" if answer.folds else "photos"
    return f" Expect a little less on new ones, since these {these} picked it."


def _why(answer: Answer) -> str:
    """Say why the advised network is preferred to the others."""
    results, network = answer.results, answer.advised
    others = set(answer.results.backbones) - {network.name}
    if len(results.close) == 1 and _is_clear(answer):
        return "It is clearly the most accurate network."
    if len(results.close) == 1 and results.clearly_behind == others:
        return "Its most accurate configuration is clearly more accurate than what would be used of any other network."
    if len(results.close) == 1:
        said = f"The choice of no other network is within {size(results.margin)} of its accuracy."
        if results.clearly_behind & others:
            said = (
                f"What would be used of each other network is more than {size(results.margin)} less accurate, or "
                "clearly less accurate than the most accurate configuration of all."
            )
        return f"{said} That may be chance; more photos could tell."
    kind = ("faster", "fastest") if results.timed else ("smaller", "smallest")
    close = len(results.close)
    said = f"It is the {kind[close > 2]} of the {close} networks that are close in accuracy."
    if (lead := _lead_of_the_best_choice(answer)) is None:
        return said
    best = _network(answer, results.best_choice)
    return (
        f"{said} {_with_accuracy(best, best.choice)} is ahead by {_lead(lead)}{_shared(answer)}: "
        f"{_with_test(lead, results.margin)}{_slower(best, network, '. A photo takes')}."
    )


def _lead_of_the_best_choice(answer: Answer) -> Difference | None:
    """Compare the most accurate of the networks' choices with the advised one; None where it is not ahead."""
    lead = answer.results.lead_over(answer.advised.name, answer.results.best_choice)
    return lead if lead and _lead(lead)[:4] != "0.0 " and lead.mean > 0 else None


def _is_clear(answer: Answer) -> bool:
    """Whether all other networks are clearly less accurate, than the advised choice and than its network's best."""
    others = [network for network in answer.networks if network is not answer.advised]
    behind = answer.results.clearly_behind == {network.name for network in others}
    return behind and all(against(network, answer.advised).sign < 0 for network in others)


def _network(answer: Answer, row: pd.Series) -> NetworkAnswer:
    return next(network for network in answer.networks if network.name == row["backbone"])


def _with_accuracy(network: NetworkAnswer, row: pd.Series) -> str:
    return f"{network.title} ({row['phrase']}, {percent(row['test_accuracy'])})"


def _lead(effect: Difference) -> str:
    return points(effect).removeprefix("+")


def _shared(answer: Answer) -> str:
    """Say of what a difference of two networks is, where that is less than what their accuracies are of."""
    return " on the folds that both have" * answer.results.have_own_folds


def _what_that_is(effect: Difference, margin: float) -> str:
    return TOO_CLOSE if effect.equivalence(margin) >= ALPHA else ALIKE


def _with_test(effect: Difference, margin: float) -> str:
    """Say what a difference is, and where it does not matter the interval that shows it."""
    word = _what_that_is(effect, margin)
    if word == ALIKE:
        return f"{'too little to matter' if effect.sign else word} ({narrow(effect)})"
    return word


def _slower(other: NetworkAnswer, network: NetworkAnswer, before: str) -> str:
    """Say how many times as long a photo takes; nothing where that was not measured, or is the same."""
    if other is network or not (other.speed and network.speed):
        return ""
    ratio = times(other.speed["graph"] / network.speed["graph"])
    return f"{before} {ratio} times as long" if float(ratio) != 1 else ""


def _changes(answer: Answer) -> list[str]:
    """Say what would lead to another advice, a sentence each."""
    network, results = answer.advised, answer.results
    said = []
    if not results.decides:
        said.append("More test photos: so few cannot decide anything.")
    if network.decision == "only":
        said.append("Another configuration: this is the only one of its network that was run.")
    said += _most_accurate(answer)
    named = {network.name}
    if len(results.close) > 1 and _lead_of_the_best_choice(answer):  # `_why` speaks of it
        named.add(results.best_choice["backbone"])
    for other in [other for other in answer.networks if other.name not in named][:OTHERS]:
        effect = against(other, network)
        more = f"{size(abs(effect.mean))} {'more' if effect.mean > 0 else 'less'} accurate"
        order = more if round(100 * effect.mean, 1) else "as accurate"
        what = _with_test(effect, results.margin)
        unclear = f", {what}" if effect.sign == 0 or what != TOO_CLOSE else ""
        low, high = (f"{100 * end:+z.1f}" for end in (effect.low, effect.high))
        said.append(
            f"{other.title} ({other.choice['phrase']}) is {order} ({low} to {high}){unclear}"
            f"{_slower(other, network, '; a photo takes')}."
        )
    return [*said, "If your photos are unlike these: run the same study on yours, with thaw init."]


def _lead_of_the_most_accurate(answer: Answer) -> Difference | None:
    """Compare the most accurate configuration of all with the advised one; None where they are one."""
    results, network = answer.results, answer.advised
    if results.most_accurate.name == network.choice.name:
        return None
    own = results.most_accurate["backbone"] == network.name
    return network.ahead[0] if own else results.lead_over(network.name, results.most_accurate)


def _most_accurate(answer: Answer) -> list[str]:
    """Say what the most accurate configuration of all has over the advised one."""
    results, network, top = answer.results, answer.advised, answer.results.most_accurate
    best = _network(answer, top)
    if (lead := _lead_of_the_most_accurate(answer)) is None or lead.mean <= 0:
        return []
    word = _with_test(lead, results.margin)
    word = "clearly more accurate" if network.name in results.clearly_behind else word
    more = " More photos could decide." if word == TOO_CLOSE else ""
    if best is network and word == TOO_CLOSE and lead.sign:  # its interval is of one comparison
        word += f", as the best of {count(len(network.rows), 'configuration')}"
    ratio = top["training_seconds"] / network.choice["training_seconds"]
    took = f"{times(ratio)} times as long" if round(ratio, 1) != 1 else "about as long"
    return [
        f"If accuracy alone counts: {_with_accuracy(best, top)} was the most accurate. It took {took} to train"
        f"{_slower(best, network, '; a photo takes')}. "
        f"It is ahead by {_lead(lead)}{_shared(answer) * (best is not network)}: {word}.{more}"
    ]


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

    def in_points(effect: Difference | None) -> dict[str, float] | None:
        if effect is None:
            return None
        return {"points": 100 * effect.mean, "low": 100 * effect.low, "high": 100 * effect.high}

    def of_network(network: NetworkAnswer) -> dict[str, Any]:
        apart = network.ahead[0] if network.top.name != network.choice.name else None
        return {
            "network": network.name,
            "title": network.title,
            "recommended": of_row(network.choice),
            "decided": network.decision,
            "milliseconds_a_photo": float(network.speed["graph"]) if network.speed else None,
            "most_accurate": of_row(network.top),
            "most_accurate_less_recommended": in_points(apart),
            "not_clearly_beaten": [row["label"] for row in network.unbeaten],
            "folds": list(network.folds),
            "seeds": int(network.rows["seeds"].min()),
        }

    def of_advice() -> dict[str, Any]:
        network, best = answer.advised, results.most_accurate
        decided = "fastest of those close" if results.timed else "smallest of those close"
        if len(results.close) == 1:
            one = "clearly best" if _is_clear(answer) else "most accurate"
            decided = "only" if len(answer.networks) == 1 else one
        return {
            "network": network.name,
            "configuration": of_row(network.choice)["configuration"],
            "decided": decided,
            "close": results.close,
            "most_accurate": {"network": best["backbone"], "configuration": of_row(best)["configuration"]},
            "most_accurate_less_advised": in_points(_lead_of_the_most_accurate(answer)),
        }

    return {
        "question": QUESTION,
        "data": {name: data[name] for name in ("title", "dataset", "version", "sha256", "photos")}
        | {"tested": len(results.tested), "classes": results.classes},
        "advice": of_advice(),
        "enough_photos_to_decide": results.decides,
        "networks": [of_network(network) for network in answer.networks],
        "margin_points": 100 * results.margin,
        "claims": {word: n for word, n in answer.verdicts.items() if n},
        "made_from": made_from,
    }
