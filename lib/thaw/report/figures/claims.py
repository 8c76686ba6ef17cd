"""All claims in one figure: what this study found, what their source has, and the verdict."""

import re
from textwrap import wrap

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from thaw.report.display import one_line
from thaw.report.figures.style import PALETTE, grid, plain, says
from thaw.report.notation import effects
from thaw.report.replication import Replication
from thaw.report.verdicts import ALIKE, HOLDS, REFUTED, TOO_CLOSE, WORDS, Verdict

# Shape and filling tell the verdicts apart without colour, too. What is impossible or not measured has no effect.
LOOKS = {
    HOLDS: {"marker": "o", "color": PALETTE[0]},
    REFUTED: {"marker": "X", "color": PALETTE[3]},
    ALIKE: {"marker": "D", "color": PALETTE[2]},
    TOO_CLOSE: {"marker": "o", "color": "0.4", "markerfacecolor": "white"},
}
LETTERS, ROOM = 60, 52  # in a line of a claim, and in its panel
BESIDE = re.compile(r"; (against the control [^;]*|[^;]* over the short frozen base)")  # figures beside the effect


def claims(replication: Replication) -> Figure:
    """Show a line a claim: the effect in this study and, thinner, the source's own, both in the claim's direction.

    An effect that is not in points is written in words.
    """
    shown = replication.claims.claims
    figure, ((axes,),) = grid(0.9 + 0.25 * len(shown))
    margin = 100 * replication.results.margin
    axes.axvspan(-margin, margin, color="0.9", linewidth=0, zorder=0)
    axes.axvline(0, color="0.4", linewidth=0.8)
    drawn = {word for verdict in replication.verdicts.values() for word, _ in _effects(verdict)}
    for y, claim in enumerate(shown):
        verdict = replication.verdicts[claim.id]
        ours, theirs = _effects(verdict), effects(replication.own(claim.test))
        for place, (word, effect) in zip(_places(y - 0.1, len(ours)), ours):
            _line(axes, place, effect, f"{claim.words} {word}: ", **LOOKS[word])
        for place, effect in zip(_places(y + 0.28, len(theirs)), theirs):
            _line(axes, place, effect, f"{replication.called}: ", marker="|", color="0.55", linewidth=0.8)
        if not ours:
            axes.text(
                0.02,
                y,
                _in_words(verdict),
                transform=axes.get_yaxis_transform(),
                fontsize=6.5,
                va="center",
                color="0.3",
            )
        word = verdict.word + "*" * (claim.id in replication.standing) + " (these runs)" * verdict.these_runs
        axes.text(1.01, y, word, transform=axes.get_yaxis_transform(), fontsize=7, va="center")
    names = [
        "\n".join(plain(line, LETTERS) for line in wrap(one_line(c.words).rstrip("."), LETTERS)[:2]) for c in shown
    ]
    axes.set_yticks(range(len(shown)), names, fontsize=6.5)
    axes.set(ylim=(len(shown) - 0.4, -0.6), xlabel="points of accuracy; to the right is as the claim says")
    axes.grid(False, axis="y")
    figure.suptitle(plain(_message(replication), 90), fontsize=10)
    words = [word for word in WORDS if word in drawn]
    handles: list[Artist] = [Line2D([], [], linestyle="", label=word, **LOOKS[word]) for word in words]
    if replication.original is not None:
        handles.append(Line2D([], [], marker="|", color="0.55", label=plain(replication.called)))
    handles.append(Patch(color="0.9", label="would not matter"))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=7)
    return figure


def _effects(verdict: Verdict) -> list[tuple[str, tuple[float, float, float]]]:
    """Read the effects of a verdict, or of its parts, each with its word; without those beside it."""
    parts = [part for _, part in verdict.parts] or [verdict]
    return [(part.word, effect) for part in parts for effect in effects(BESIDE.sub("", part.effect))]


def _in_words(verdict: Verdict) -> str:
    """Write the first effect of a verdict that has none in points, as far as there is room."""
    of = verdict.parts[0][1] if verdict.parts else verdict
    text = of.effect.split("; ")[0] or of.why
    return plain(text if len(text) <= ROOM else text.split(": ")[0], ROOM)


def _places(middle: float, count: int) -> list[float]:
    """Spread several effects of one claim over its line."""
    return [middle + 0.14 * (number - (count - 1) / 2) for number in range(count)]


def _line(axes: Axes, y: float, effect: tuple[float, float, float], before: str, linewidth=1.0, **look) -> None:
    mean, low, high = effect
    drawn = axes.plot([low, high], [y, y], "-", color=look["color"], linewidth=linewidth)
    drawn += axes.plot(mean, y, linestyle="", markersize=4.5, **look)
    says(f"{before}{mean:+.1f} points ({low:+.1f} to {high:+.1f})", *drawn)


def _message(replication: Replication) -> str:
    """Say how the claims came out."""
    if len(replication.stated) < 2:
        return f"The claim {replication.counted()}" if replication.stated else ""
    return f"Of {len(replication.stated)} claims, {replication.counted(HOLDS, REFUTED) or replication.counted()}"
