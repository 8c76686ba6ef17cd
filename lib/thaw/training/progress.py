"""The progress of one phase: a bar in a notebook, and a note for whoever watches the whole study."""

import html
import time
from typing import Any

import keras

from thaw.disk import status

INTERVAL = 1.0  # seconds between two updates


class Bar:
    """A bar that fills up.

    In a notebook it is one output, brought up to date in place: plain HTML,
    which an executed notebook and its export show without any script.

    Parameters
    ----------
    title : str
        What is being done.
    total : int
        How many steps it has.
    **facts
        What a watcher of the study is told besides (see `thaw.disk.status`).
    """

    def __init__(self, title: str, total: int, **facts: Any):
        self.title, self.total, self.done, self.text = title, total, 0, ""
        self.ended = False
        self.began = self.shown = time.monotonic()
        self.first: tuple[float, int] | None = None  # when, and how many steps were done then: tracing is over
        self.display = _display(self)
        status.tell(phase=title, **facts)

    def advance(self, done: int, text: str = "", **facts: Any) -> None:
        """Show that `done` steps are done; at most once in a second, unless there are facts to tell.

        Parameters
        ----------
        done : int
        text : str
            What the bar says beside its title.
        **facts
            Told to a watcher of the study.
        """
        self.done, self.text = done, text or self.text
        now = time.monotonic()
        self.first = self.first or (now, done)
        if now - self.shown < INTERVAL and not facts:
            return
        self.shown = now
        status.tell(share=done / self.total, **facts)
        self._show()

    def end(self) -> None:
        """Show how long it took."""
        self.ended = True
        self._show()

    def _show(self) -> None:
        if self.display is not None:
            self.display.update(self)

    def __str__(self) -> str:
        """Give the bar in words."""
        return ", ".join(filter(None, (f"{self.title}: {self.done / self.total:.0%}", self.text, self._time())))

    def _time(self) -> str:
        now = time.monotonic()
        if self.ended:
            return f"{now - self.began:.1f} s"
        began, before = self.first or (now, self.done)
        if self.done <= before:
            return ""
        return f"about {(now - began) * (self.total - self.done) / (self.done - before):.0f} s left"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return (
            f'<progress value="{self.done}" max="{self.total}" style="width: 20em"></progress> {html.escape(str(self))}'
        )


class EpochBar(keras.callbacks.Callback):
    """A bar for the epochs of one phase.

    Parameters
    ----------
    title : str
        The phase in words.
    epochs : range
        The numbers of its epochs that are still to be trained, from 0.
    of : int
        How many epochs the experiment has in all phases.
    steps : int
        Batches in an epoch.
    fold : int, optional
        The fold that is tested later.
    """

    def __init__(self, title: str, epochs: range, of: int, steps: int, fold: int | None = None):
        super().__init__()
        self.epochs, self.of, self.steps = epochs, of, steps
        self.where = "epoch" if fold is None else f"fold {fold}, epoch"
        self.bar = Bar(title, len(epochs) * steps, epoch=epochs.start, epochs=of)

    def on_epoch_begin(self, epoch, logs=None):
        """Take the time."""
        self.epoch, self.began = epoch, time.monotonic()
        self.before = (epoch - self.epochs.start) * self.steps

    def on_train_batch_end(self, batch, logs=None):
        """Fill the bar by a batch. An epoch's last one counts when its validation is done, too."""
        self.bar.advance(self.before + min(batch + 1, self.steps - 1), f"{self.where} {self.epoch + 1} of {self.of}")

    def on_epoch_end(self, epoch, logs=None):
        """Show the accuracy, and tell of it."""
        self.bar.advance(
            self.before + self.steps,
            f"{self.where} {epoch + 1} of {self.of}, validation {logs['val_accuracy']:.1%}",
            epoch=epoch + 1,
            validation_accuracy=logs["val_accuracy"],
            seconds=time.monotonic() - self.began,
        )

    def on_train_end(self, logs=None):
        """Show how long it took."""
        self.bar.end()


def _display(bar: Bar) -> Any:
    """Show a bar where there is a notebook; the handle that updates it, or None."""
    try:
        from IPython import get_ipython
        from IPython.display import display
    except ImportError:
        return None
    return display(bar, display_id=True) if hasattr(get_ipython(), "kernel") else None
