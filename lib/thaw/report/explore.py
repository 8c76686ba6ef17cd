"""What ``notebooks/explore.ipynb`` shows: two configurations of a study, as its controls choose them.

Everything shown is an ordinary output of its cell, brought up to date in
place: an executed notebook and its export hold what was last chosen, and need
no script for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import ipywidgets
import numpy as np
import pandas as pd
import traitlets
from IPython.display import Markdown, display
from scipy.stats import t as student

from thaw.disk import places
from thaw.errors import InvalidRecord, ThawError
from thaw.experiment import Experiment
from thaw.records.runs import Run, together
from thaw.report import figures, tables, words
from thaw.report.display import Figure, Table, markdown, one_line
from thaw.report.results import Results
from thaw.report.statistics import ALPHA, Difference
from thaw.report.verdicts import Verdict, judged
from thaw.report.words import percent
from thaw.study import freshness, pictures
from thaw.study.study import Study

if TYPE_CHECKING:  # with TensorFlow
    from thaw.study.ahead import Ahead

FIRST = ("demo", "paper")  # of several studies
ALL = "all classes"
MOST = 10  # photos in a grid
MOST_NAMED = 30  # cells that have room for a number
WAYS = {"nothing but the head": "frozen", "the last layers": "layers", "the last blocks": "blocks", "all": "all"}


def studies(outputs: str = "outputs", profile: str | None = None) -> dict[str, Results]:
    """Read the studies that have results.

    Parameters
    ----------
    outputs : str
        The folder of all outputs.
    profile : str, optional
        The only one, by its name or file. By default all in params/profiles.

    Returns
    -------
    dict of str to Results
        By profile: that of the demo first, then the paper's.

    Raises
    ------
    ThawError
        If there is none.
    """
    if profile:
        study = Study.load(profile, outputs)
        return {study.profile: Results.of(study)}
    names = [path.stem for path in (places.project() / "params" / "profiles").glob("*.yaml")]
    found = {}
    for name in sorted(names, key=lambda name: (*(name != first for first in FIRST), name)):
        with suppress(ThawError):  # it has no results, or its profile was changed
            found[name] = Results.of(Study.load(name, outputs))
    if not found:
        raise InvalidRecord(f"{outputs}: no study has results. Run make report, which takes some minutes.")
    return found


@dataclass(frozen=True, eq=False)
class Pair:
    """Two configurations of a study, and what they make of its test photos, or of those of one class.

    Attributes
    ----------
    study : Results
    first, second : int
        Their labels in ``study.rows``.
    of_class : str or None
        The only class whose photos count.
    """

    study: Results
    first: int
    second: int
    of_class: str | None = None

    @cached_property
    def results(self) -> Results:
        """The study on the photos that count."""
        if self.of_class is None:
            return self.study
        found = []
        for run in self.study.runs:
            photos = run.predictions[run.predictions["label"] == self.of_class].reset_index(drop=True)
            if len(photos):  # of a rare class, a fold may have none
                found.append(Run(record=run.record, history=run.history, predictions=photos))
        return replace(self.study, runs=found)

    @property
    def rows(self) -> pd.DataFrame:
        """Both configurations, the first in front; one row where they are the same."""
        return self.study.rows.loc[list(dict.fromkeys([self.first, self.second]))]

    @property
    def names(self) -> list[str]:
        """What the two are called."""
        return [named(self.study, self.study.rows.loc[one]) for one in (self.first, self.second)]

    @property
    def accuracies(self) -> list[float]:
        """The share of the photos that each classifies correctly."""
        rows = [self.study.rows.loc[one] for one in (self.first, self.second)]
        if self.of_class is None:
            return [row["test_accuracy"] for row in rows]
        return [self.study.recall(row)[self.of_class] for row in rows]

    @cached_property
    def effect(self) -> Difference:
        """The accuracy of the first less that of the second."""
        groups = [self.results.of_row(self.study.rows.loc[one]) for one in (self.first, self.second)]
        return self.results.difference(*groups)

    @property
    def alike_from(self) -> float:
        """The smallest margin within which the two are shown to be: see `Difference.equivalence`."""
        effect = self.effect
        return abs(effect.low + effect.high) / 2 + float(student.ppf(1 - ALPHA, effect.freedom)) * effect.error

    def verdict(self, margin: float) -> Verdict:
        """Judge whether the first is more accurate, where a difference within `margin` does not matter."""
        return judged(self.effect, margin)

    def in_words(self, points: float) -> Markdown:
        """Say what the difference is, and whether it matters where so many points would not."""
        margin = points / 100
        return Markdown(words.write("explore", pair=self, verdict=self.verdict(margin), margin=margin))

    @cached_property
    def photos(self) -> pd.DataFrame:
        """What the two say of each photo.

        Returns
        -------
        DataFrame
            A photo a row, by its key: label; first and second (the class that
            each says most often), first_right and second_right (in which share
            of its runs it is right), and wrong (in which share of the study's
            runs). Those on which the two differ most stand first, then those
            that are hardest.
        """
        every = pd.concat([run.predictions for run in self.results.runs])
        right = every["label"] == every["predicted"]
        found = every.groupby("key")["label"].first().to_frame()
        found["wrong"] = 1 - right.groupby(every["key"]).mean()
        for side, index in (("first", self.first), ("second", self.second)):
            own = self.results.predictions(self.study.rows.loc[index]).groupby("key")
            found[side] = own["predicted"].agg(lambda said: said.mode().iloc[0])
            found[f"{side}_right"] = own.apply(lambda rows: (rows["label"] == rows["predicted"]).mean())
        found = found.dropna()  # in folds, what both were tested on
        order = pd.DataFrame({"apart": -(found["first_right"] - found["second_right"]).abs(), "wrong": -found["wrong"]})
        return found.loc[order.sort_values(["apart", "wrong"], kind="stable").index]

    def disagreements(self) -> pd.DataFrame:
        """List the `photos` that one of the two classifies correctly more often than the other."""
        return self.photos[self.photos["first_right"] != self.photos["second_right"]]

    def grid(self) -> Figure | Table | Markdown:
        """Show the photos on which the two differ; without the photos, list them."""
        every = self.disagreements()
        shown = every.head(MOST)
        if shown.empty:
            return Markdown("Both classify the same photos correctly.")
        few = f": the first {MOST} of {len(every)}" if len(every) > MOST else ""
        caption = f"Photos that one of the two classifies correctly more often{few}."
        images = pictures.find(self.study.runs[0].record, shown.index)
        if images is None:
            columns = {"key": "Photo", "label": "Class", "first": "First says", "second": "Second says"}
            return Table(shown.reset_index()[list(columns)].rename(columns=columns), caption, (NO_PHOTOS,))
        names = shown[["label", "first", "second"]].map(one_line).itertuples(index=False)
        titles = [f"{label}\nfirst: {first}\nsecond: {second}" for label, first, second in names]
        return Figure(figures.photo_grid(images, titles), caption, alt="Photos with what each configuration says.")

    def confusion(self) -> Figure:
        """Show which classes each of the two confuses."""
        sides = {named(self.study, row): self.study.predictions(row) for _, row in self.rows.iterrows()}
        return Figure(
            figures.confusion(sides, self.study.classes),
            "Test photos by their class and the class that was predicted.",
            alt="A confusion matrix for each of the two configurations.",
        )

    def curves(self) -> Figure:
        """Show how each of the two learned."""
        return Figure(
            figures.learning_curves_of(self.study, self.rows),
            "Loss over the epochs, in training (dashed) and validation (solid).",
            alt="Loss over epochs, a panel a configuration.",
        )

    def cost(self) -> Table:
        """Tabulate what each of the two costs."""
        frame = tables.costs(self.study).loc[self.rows.index]
        frame.insert(2, "Trainable parameters", self.rows["trainable_parameters"].map(words.number))
        return Table(frame, "Parameters, seconds of training and memory.")

    def key(self, number: int) -> str:
        """Give the key of one of the `photos`, counted from 1; the last for a number that is too large."""
        return str(self.photos.index[min(number, len(self.photos)) - 1])

    def image(self, key: str) -> np.ndarray | None:
        """Find a photo, uint8 (size, size, 3); None where it is not on disk."""
        images = pictures.find(self.study.runs[0].record, [key])
        return None if images is None else images[0]

    def picture(self, number: int) -> Figure | Markdown:
        """Show one of the `photos` with its class."""
        key = self.key(number)
        if (image := self.image(key)) is None:
            return Markdown(f"{markdown(key)}. {NO_PHOTOS}")
        figure = figures.photo_grid(image[None], [one_line(self.photos.loc[key, "label"])])
        return Figure(figure, f"The photo {key}.", alt="A photo with its class.")

    def said(self, number: int) -> Table:
        """Tabulate what each configuration of the study says of one of the `photos`."""
        lines, key = [], self.key(number)
        for _, row in self.study.rows.iterrows():
            own = self.study.predictions(row)
            own = own[own["key"] == key]
            if own.empty:
                continue  # of folds, not all may be finished
            mean = own.filter(regex="^p_").mean().rename(lambda name: name.removeprefix("p_"))
            label, title = own["label"].iloc[0], self.study.titles[row["backbone"]]
            lines.append((title, row["label"], mean.idxmax(), percent(mean.max()), percent(mean.get(label, 0.0))))
        columns = ["Network", "What trains", "Says", "Probability", f"Probability of {label}"]
        return Table(
            pd.DataFrame(lines, columns=columns),
            f"What each configuration says of a photo of the class {label}; means over its runs.",
        )


NO_PHOTOS = "The photos themselves are not on this disk, or have changed since."


def named(results: Results, row: pd.Series) -> str:
    """Name a configuration in full."""
    return f"{results.titles[row['backbone']]}, {row['label']}"


class Explorer(traitlets.HasTraits):
    """The controls that choose a study, two of its configurations, a class and a photo.

    Attributes
    ----------
    value : Pair
        What is chosen.
    study, first, second, of_class : ipywidgets.Dropdown
    margin : ipywidgets.FloatSlider
        In points.
    photo : ipywidgets.IntSlider
        A number in `Pair.photos`, from 1.
    """

    value = traitlets.Any()

    def __init__(self, found: dict[str, Results]):
        super().__init__()
        self._found, self._filling = found, False
        wide = {"layout": {"width": "32em"}, "style": {"description_width": "6em"}}
        self.study = ipywidgets.Dropdown(options=list(found), description="Study", **wide)
        self.first, self.second, self.of_class = (
            ipywidgets.Dropdown(description=name, **wide) for name in ("First", "Second", "Class")
        )
        self.margin = ipywidgets.FloatSlider(
            min=0.1, max=10, step=0.1, description="Margin", readout_format=".1f", **wide
        )
        self.photo = ipywidgets.IntSlider(min=1, description="Photo", **wide)
        self.study.observe(lambda _: self._fill(), "value")
        for control in (self.first, self.second, self.of_class):
            control.observe(lambda _: self._choose(), "value")
        self._fill()

    @property
    def controls(self) -> ipywidgets.VBox:
        """All that choose the pair."""
        return ipywidgets.VBox([self.study, self.first, self.second, self.of_class])

    def _fill(self) -> None:
        """Offer what a study has; choose its most accurate configuration, and the cheapest choice or another."""
        results = self._found[self.study.value]
        top = results.rows.loc[results.rows["test_accuracy"].idxmax()]
        like = results.backbones[top["backbone"]]
        others = (like if len(like) > 1 else results.rows).drop(index=top.name)
        cheapest = results.cheapest(top["backbone"])
        second = cheapest if cheapest.name != top.name or others.empty else others.iloc[0]
        options = [(named(results, row), index) for index, row in results.rows.iterrows()]
        with self._at_once():
            for control, row in ((self.first, top), (self.second, second)):
                control.options = options
                control.value = row.name
            self.of_class.options = [(ALL, ""), *((name, name) for name in results.photos_of_class.index)]
            self.of_class.value = ""
            self.margin.value = 100 * results.margin

    def _choose(self) -> None:
        if not self._filling:
            results = self._found[self.study.value]
            self.value = Pair(results, self.first.value, self.second.value, self.of_class.value or None)
            self.photo.max = len(self.value.photos)

    @contextmanager
    def _at_once(self):
        """Set several controls, and choose only then."""
        self._filling = True
        try:
            yield
        finally:
            self._filling = False
        self._choose()


class Unfreezing(traitlets.HasTraits):
    """The controls that choose what to unfreeze of a network.

    Attributes
    ----------
    value : Experiment
        What is chosen.
    strategy : ipywidgets.Dropdown
    amount : ipywidgets.IntSlider
        Layers or blocks, from the end.
    cells : list of ipywidgets.Button
        The network from its input to its head, a cell a block. A click lets
        that one and all after it train: at the first cell everything, at the
        last one the head alone.
    button : ipywidgets.Button
        Runs it: see `when_clicked`.
    """

    value = traitlets.Any()

    def __init__(self, ahead: Ahead):
        super().__init__()
        self.ahead = ahead
        wide = {"layout": {"width": "32em"}, "style": {"description_width": "6em"}}
        self.strategy = ipywidgets.Dropdown(options=list(WAYS.items()), value="blocks", description="Unfreeze", **wide)
        self.amount = ipywidgets.IntSlider(value=2, min=1, description="Amount", **wide)
        self.button = ipywidgets.Button(description="Run it", icon="play")
        count = len(ahead.blocks)
        self.cells = [
            self._cell("all", "everything trains", 4, "all"),
            *(
                self._cell(
                    str(count - number) if count <= MOST_NAMED else "",
                    f"from block {name} on",
                    layers,
                    "blocks",
                    count - number,
                )
                for number, (name, layers) in enumerate(ahead.blocks.items())
            ),
            self._cell("head", "the head alone", 4, "frozen"),
        ]
        for control in (self.strategy, self.amount):
            control.observe(lambda _: self._choose(), "value")
        self._choose()

    @property
    def controls(self) -> ipywidgets.VBox:
        """All of them."""
        label = ipywidgets.Label("The network's blocks, counted from its end. Click one: it trains, and all after it.")
        cells = ipywidgets.HBox(self.cells, layout={"width": "100%"})
        return ipywidgets.VBox([label, cells, self.strategy, self.amount, self.button])

    def _cell(self, text: str, tooltip: str, layers: int, strategy: str, amount: int = 1) -> ipywidgets.Button:
        thin = {"flex": f"{layers} 1 0", "width": "0", "min_width": "4px", "margin": "0 1px", "padding": "0"}
        cell = ipywidgets.Button(description=text, tooltip=tooltip, layout=thin, style={"text_color": "black"})

        def clicked(_) -> None:
            with self.hold_trait_notifications():
                self.strategy.value = strategy
                self.amount.value = amount

        cell.on_click(clicked)
        return cell

    def _colour(self, layers: pd.DataFrame) -> None:
        """Give the cells the colours of the strip."""
        blocks = layers.groupby("block")["trains"].any()
        trains = [layers["trains"].all(), *(blocks[name] for name in self.ahead.blocks), True]
        for cell, unfrozen in zip(self.cells, trains):
            cell.style.button_color = figures.UNFROZEN if unfrozen else figures.FROZEN

    def _choose(self) -> None:
        most = self.ahead.most(self.strategy.value)
        self.amount.disabled = not most
        self.amount.max = max(most, 1)
        self.value = self.ahead.experiment(self.strategy.value, self.amount.value)

    def strip(self, experiment: Experiment) -> Figure:
        """Show the layers that train, and say what that means for parameters, disk and time."""
        outlook, data = self.ahead.outlook(experiment), self.ahead.setup.data
        self._colour(outlook.layers)
        share = outlook.trainable_parameters / outlook.total_parameters
        size = f"{outlook.activations / 1e6:,.1f} MB for {words.count(len(data), 'photo')}"
        kept = "are kept on disk" if outlook.kept else "are not kept, since computing them is as fast as reading them"
        text = (
            f"{self.ahead.setup.backbone.title}, {experiment.label}. {outlook.trainable_parameters:,} of "
            f"{outlook.total_parameters:,} parameters train ({share:.1%}). "
            f"The frozen part's activations, {size}, {kept}. "
            f"A run takes about {words.duration(outlook.seconds)} on one core."
        )
        return Figure(
            figures.strip(outlook.layers), text, alt="A strip with a bar for each layer, those that train coloured."
        )

    def run(self, log: Callable[[str], None]) -> list[object]:
        """Run what is chosen; return its result in words, and its curves."""
        found = [run for run in self.ahead.run(self.value, log) if not run.record.diverged]
        history, _ = together(found)
        caption = f"Accuracy and loss over the epochs: {self.value.label}."
        return [
            Markdown(words.test_result(found)),
            Figure(figures.curves(history), caption, alt="Two line charts over epochs."),
        ]


def attention(pair: Pair, number: int, study: Study) -> Figure | Markdown:
    """Show where the network that a study has left looks in a photo, and what it says of it.

    Parameters
    ----------
    pair : Pair
    number : int
        Of the photo in `Pair.photos`, from 1.
    study : Study
        Whose network it is, if that is of its present records.
    """
    if not freshness.model_is_current(study):
        return Markdown(
            "There is no trained network of these results. A study leaves one when it ends: `make report` does that "
            "for the demo. The study that comes with the repository holds records only."
        )
    key = pair.key(number)
    if (image := pair.image(key)) is None:
        return Markdown(NO_PHOTOS)
    from thaw.study.looks import looks  # with TensorFlow: seconds

    label = pair.photos.loc[key, "label"]
    said, probability, heat = looks(study.outputs / freshness.MODEL / freshness.NETWORK, image)
    titles = f"class: {one_line(label)}", f"says: {one_line(said)} ({probability:.0%})"
    return Figure(
        figures.heat(image, heat, titles),
        f"Where the network looks (Grad-CAM): bright parts speak for the class that it names, as far as {len(heat)} by "
        f"{len(heat[0])} parts tell. It was trained on all photos of the study, also on this one.",
        alt="A photo, and the same with the parts coloured that speak for the predicted class.",
    )


def when_clicked(button: ipywidgets.Button, work: Callable[[Callable[[str], None]], Sequence[object]]) -> None:
    """Show what `work` returns once a button is clicked, and until then what it tells of its progress."""
    first, second = (display(Markdown(""), display_id=True) for _ in range(2))

    def clicked(_) -> None:
        button.disabled = True
        try:
            shown = work(lambda line: first.update(Markdown(markdown(line))))
        except ThawError as error:
            shown = [Markdown(markdown(error)), Markdown("")]
        finally:
            button.disabled = False
        for handle, what in zip((first, second), shown):
            handle.update(what)

    button.on_click(clicked)


def live(draw: Callable[..., object], *controls: Any) -> None:
    """Show what `draw` makes of the controls' values as this cell's output, and anew whenever one of them changes."""

    def drawn() -> object:
        try:
            return draw(*(control.value for control in controls))
        except ThawError as error:
            return Markdown(markdown(error))

    handle = display(drawn(), display_id=True)
    for control in controls:
        control.observe(lambda _: handle.update(drawn()), "value")
