"""What a phase of training has finished, kept for whoever goes on from there.

A checkpoint is named by everything that its numbers depend on: photos,
weights, settings and the phases up to it. So the head that all strategies of a
seed share, and the last epoch of a run that was stopped, are the same kind of
file.
"""

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np

from thaw.disk import atomic, budget, locks, places

BEST = "best/"  # before the names of the best epoch's weights


@dataclass
class Progress:
    """How far a phase has come.

    Attributes
    ----------
    epochs : list of dict
        An epoch each: the rows of the history.
    complete : bool
        Whether the phase is finished. The optimizer's state is not kept then.
    note : dict
        What the phase was trained on, for the record.
    peak_memory_mb : float
        The most memory of the processes that trained it.
    best : int or None
        The epoch, from 1, of the lowest validation loss of the phase, where
        its weights are kept.
    """

    epochs: list[dict[str, Any]] = field(default_factory=list)
    complete: bool = False
    note: dict[str, Any] = field(default_factory=dict)
    peak_memory_mb: float = 0.0
    best: int | None = None


@dataclass(frozen=True)
class Checkpoint:
    """The file of one phase.

    Parameters
    ----------
    key : dict
        Everything that its numbers depend on, in JSON's types.
    log : callable
        Is told of a file that is there and is not used.
    """

    key: dict[str, Any]
    log: Callable[[str], None] = print
    _best: dict[str, np.ndarray] = field(default_factory=dict)  # the weights of the best epoch so far

    @property
    def path(self) -> Path:
        """Where the file is, made or not."""
        digest = hashlib.sha256(json.dumps(self.key, sort_keys=True).encode()).hexdigest()
        return places.cache("checkpoints") / f"{digest[:16]}.npz"

    def is_complete(self) -> bool:
        """Whether the file is of a finished phase, as far as its notes tell."""
        try:
            with np.load(self.path) as file:
                return json.loads(str(file["about"]))["progress"]["complete"] is True
        except Exception:  # missing; or numpy raises whatever a damaged file leads it to
            return False

    def load(self, network: keras.Model) -> Progress:
        """Take up what the file holds: weights into the network, state into its optimizer.

        A file that is damaged is not used, and changes nothing.

        Parameters
        ----------
        network : keras.Model
            Compiled.
        """
        try:
            with np.load(self.path) as file:
                values = {name: file[name] for name in file.files if name != "about"}
                about = json.loads(str(file["about"]))
            if about["sha256"] != _hash(values) or about["key"] != self.key:
                raise ValueError("not the values that were written")
            progress = Progress(**about["progress"])
            best = {name.removeprefix(BEST): values.pop(name) for name in list(values) if name.startswith(BEST)}
            variables = _variables(network, with_optimizer=not progress.complete)
            if {name: tuple(variable.shape) for name, variable in variables.items()} != {
                name: value.shape for name, value in values.items()
            }:
                raise ValueError("of another network")
        except FileNotFoundError:
            return Progress()
        except Exception:  # numpy raises whatever a damaged file leads it to
            self.log(f"{self.path} is damaged: trained again")
            return Progress()
        for name, variable in variables.items():
            variable.assign(values[name])
        self._best.update(best)
        with contextlib.suppress(OSError):  # deleted meanwhile, or another user's
            os.utime(self.path)  # the file that was not used for longest goes first when room is needed
        return progress

    def save(self, network: keras.Model, progress: Progress) -> None:
        """Write what was trained, whole or not at all; on a full disk go on without."""
        variables = _variables(network, with_optimizer=not progress.complete)
        values = {name: variable.numpy() for name, variable in variables.items()}
        if not progress.complete:
            values |= {f"{BEST}{name}": value for name, value in self._best.items()}
        about = json.dumps({"key": self.key, "sha256": _hash(values), "progress": asdict(progress)})
        size = sum(value.nbytes for value in values.values())
        try:
            with contextlib.ExitStack() as stack:
                with budget.room():
                    if not budget.make_room(budget.CHECKPOINTS, size, budget.for_checkpoints(), [self.path]):
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                    partial = stack.enter_context(atomic.partial(self.path))
                    file = stack.enter_context(locks.again(lambda: partial.open("w+b"), partial.parent))
                    atomic.allocate(file, size)
                np.savez(file, about=np.array(about), **values)
                file.truncate()
        except FileNotFoundError:
            self.log(f"{self.path.parent} was deleted: this epoch is not kept")
        except OSError as error:
            if not atomic.is_full(error):
                raise
            self.log(f"the disk is full: {self.path} is not kept")

    def keep_best(self, network: keras.Model, progress: Progress) -> None:
        """Remember the weights if the last epoch is the best so far; give them to the network at the phase's end."""
        losses = [row["validation_loss"] for row in progress.epochs]
        variables = _variables(network, with_optimizer=False)
        if np.isfinite(losses[-1]) and (progress.best is None or losses[-1] < losses[progress.best - 1]):
            progress.best = len(losses)
            self._best.update({name: variable.numpy() for name, variable in variables.items()})
        if progress.complete and self._best:
            for name, variable in variables.items():
                variable.assign(self._best[name])

    def discard(self) -> None:
        """Delete the file."""
        locks.discard(self.path)


def _variables(network: keras.Model, with_optimizer: bool) -> dict[str, keras.Variable]:
    """Find what training changes, by name: the variables of each layer that trains, and the optimizer's."""
    found = {
        f"{layer.name}/{number}": variable
        for layer in network.layers
        if layer.trainable_weights
        for number, variable in enumerate(layer.variables)
    }
    if with_optimizer:
        if not network.optimizer.built:  # one that scales the loss would make its variables twice
            network.optimizer.build(network.trainable_variables)
        # By their order: their names hold those of the weights, which Keras counts up over a process.
        found |= {f"optimizer/{number}": variable for number, variable in enumerate(network.optimizer.variables)}
    return found


def _hash(values: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(values):
        digest.update(f"{name} {values[name].dtype} {values[name].shape}".encode())
        digest.update(values[name].tobytes())
    return digest.hexdigest()
