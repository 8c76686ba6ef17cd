"""All claims in one figure: what this study found, what their source has, and the verdict."""

import re
from collections.abc import Iterable
from textwrap import wrap
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from thaw.report.display import PHONE, one_line
from thaw.report.figures.style import PALETTE, grid, plain, says
from thaw.report.notation import effects
from thaw.report.replication import Replication
from thaw.report.verdicts import AGAINST, ALIKE, HOLDS, REFUTED, TOO_CLOSE, WORDS, Verdict
from thaw.study.claims import Claim, Test

# Shape and filling tell the verdicts apart without colour, too. What is impossible or not measured has no effect.
LOOKS = {
    HOLDS: {"marker": "o", "color": PALETTE[0]},
    REFUTED: {"marker": "X", "color": PALETTE[3]},
    ALIKE: {"marker": "D", "color": PALETTE[2]},
    TOO_CLOSE: {"marker": "o", "color": "0.4", "markerfacecolor": "white"},
}
GROUND = {"color": PALETTE[0], "alpha": 0.12, "linewidth": 0}
LINE, SIZE = 0.12, 7  # the unit of the vertical axis in inches, and its letters in points
MARK, PAD = 0.75, 0.4  # the height of a mark, and of the room between two claims, in lines
BESIDE = re.compile(r"; (against the control [^;]*|[^;]* over the short frozen base)")  # figures beside the effect
WITHIN = ("within margin", "most within margin of least")  # tests of claims that something changes little


def claims(replication: Replication) -> Figure:
    """Show each claim with the effect in this study and, thinner, the source's own; on ground where it would hold.

    An effect that is not in points is written in words. Claims that were added stand below a line. On a phone each
    claim stands above its effects.
    """
    shown = [*replication.stated, *replication.added]
    letters, room = (46, 40) if PHONE.get() else (54, 62)
    names = [[plain(line, letters) for line in wrap(one_line(c.words).rstrip("."), letters)] for c in shown]
    rows = [_Row(replication, claim, room) for claim in shown]
    heights = [(len(n) + r.height if PHONE.get() else max(len(n), r.height)) + PAD for n, r in zip(names, rows)]
    figure, ((axes,),) = grid(1.1 + LINE * sum(heights))
    ends = [end for row in rows for _, _, effect in row.marks for end in effect[1:]]
    margin = 100 * replication.results.margin
    limits = min([-margin, *ends]) - 0.5, max([margin, *ends]) + 0.5
    top, ticks = 0.0, []
    for name, row, height in zip(names, rows, heights):
        begin, inside = top, height - PAD
        if PHONE.get():
            look = {"transform": axes.get_yaxis_transform(), "fontsize": SIZE, "va": "top", "in_layout": False}
            axes.text(0.01, top + PAD / 2, "\n".join(name), **look)
            begin, inside = top + len(name), inside - len(name)
        middle = begin + PAD / 2 + inside / 2
        row.draw(axes, middle, limits, margin)
        ticks.append(middle)
        axes.axhline(top, color="0.85", linewidth=0.5)
        if row.claim.added and not replication.claims.claims[0].added and row.claim is replication.added[0]:
            axes.axhline(top, color="0.2", linewidth=1.2)
        top += height
    axes.set_yticks(ticks, [] if PHONE.get() else ["\n".join(name) for name in names], fontsize=SIZE)
    axes.tick_params(axis="y", length=0)
    axes.set(xlim=limits, ylim=(top, 0), xlabel="points of accuracy")
    axes.grid(False)
    figure.suptitle("\n".join(wrap(plain(_message(replication), 90), 50 if PHONE.get() else 90)), fontsize=10)
    figure.legend(
        handles=_handles(replication, {word for row in rows for word, _, _ in row.marks}),
        loc="outside lower center",
        ncols=2 if PHONE.get() else 4,
        frameon=False,
        fontsize=7,
    )
    return figure


class _Row:
    """The marks and words of one claim, and how many lines they need."""

    def __init__(self, replication: Replication, claim: Claim, room: int) -> None:
        self.claim, self.verdict = claim, replication.verdicts[claim.id]
        theirs = [("", replication.called, effect) for effect in effects(replication.own(claim.test))]
        ours = [(word, f"{claim.words} {word}", effect) for word, effect in _effects(self.verdict)]
        self.marks = [*ours, *theirs] if ours else []
        self.texts = [line for text in _in_words(self.verdict) for line in wrap(plain(text, 3 * room), room)]
        star, runs = "*" * (claim.id in replication.standing), " (these runs)" * self.verdict.these_runs
        self.word = wrap(f"{self.verdict.word}{star}{runs}", 20 if not PHONE.get() else 14)
        self.height = max(MARK * len(self.marks) + len(self.texts), len(self.word), 1)

    def draw(self, axes: Axes, middle: float, limits: tuple[float, float], margin: float) -> None:
        y = middle - (MARK * len(self.marks) + len(self.texts)) / 2
        if self.marks:
            left, right = (-margin, margin) if _within(self.claim.test) else (0, limits[1])
            down = y, y + MARK * len(self.marks)
            axes.fill_betweenx(down, left, right, zorder=0, **GROUND)
            axes.vlines(0, *down, color="0.4", linewidth=0.8)
            axes.vlines([-margin, margin], *down, color="0.4", linewidth=0.6, linestyle=":")
        for word, named, effect in self.marks:
            look = LOOKS.get(word, {"marker": "|", "color": "0.55", "linewidth": 0.8})
            _line(axes, y + MARK / 2, effect, f"{named}: ", **look)
            y += MARK
        beside: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "fontsize": SIZE}
        if self.texts:
            text = "\n".join(self.texts)
            axes.text(0.02, y + len(self.texts) / 2, text, va="center", color="0.3", in_layout=False, **beside)
        axes.text(1.02, middle, "\n".join(self.word), va="center", **beside)


def _within(test: Test) -> bool:
    """Whether a claim, or a part of it, says that something changes little."""
    return test.name in WITHIN or any(map(_within, test.parts or ()))


def _effects(verdict: Verdict) -> list[tuple[str, tuple[float, float, float]]]:
    """Read the effects of a verdict, or of its parts, each with its word; without those beside it."""
    return [(part.word, effect) for _, part in _parts(verdict) for effect in effects(BESIDE.sub("", part.effect))]


def _parts(verdict: Verdict) -> Iterable[tuple[str, Verdict]]:
    return verdict.parts or (("", verdict),)


def _in_words(verdict: Verdict) -> list[str]:
    """Write the first effect of a verdict that has none in points; else the one that speaks against it, if unseen."""
    if not (found := _effects(verdict)):
        _, of = next(iter(_parts(verdict)))
        return [of.effect.split("; ")[0] or of.why]
    if verdict.word != REFUTED or any(word in AGAINST for word, _ in found):
        return []
    against = [f"{part.word}: {name}, {part.effect}" for name, part in _parts(verdict) if part.word in AGAINST]
    return against[:1]


def _line(axes: Axes, y: float, effect: tuple[float, float, float], before: str, linewidth=1.0, **look) -> None:
    mean, low, high = effect
    drawn = axes.plot([low, high], [y, y], "-", color=look["color"], linewidth=linewidth)
    drawn += axes.plot(mean, y, linestyle="", markersize=4.5, **look)
    says(f"{before}{mean:+.1f} points ({low:+.1f} to {high:+.1f})", *drawn)


def _handles(replication: Replication, drawn: set[str]) -> list[Artist]:
    """Explain the marks and the ground."""
    handles: list[Artist] = [Line2D([], [], linestyle="", label=word, **LOOKS[word]) for word in WORDS if word in drawn]
    if replication.original is not None:
        handles.append(Line2D([], [], marker="|", color="0.55", label=plain(replication.called)))
    handles.append(Patch(label="here the claim is right", **GROUND))
    handles.append(Line2D([], [], color="0.4", linewidth=0.6, linestyle=":", label="less would not matter"))
    return handles


def _message(replication: Replication) -> str:
    """Say how the claims came out."""
    if len(replication.stated) < 2:
        return f"The claim {replication.counted()}" if replication.stated else ""
    text = f"Of {len(replication.stated)} claims, {replication.counted(HOLDS, REFUTED) or replication.counted()}"
    return f"{text} (below the line: added)" if replication.added else text
