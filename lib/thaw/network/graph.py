"""The graph of a network's operations: where to cut it, and what its parts cost.

Keras calls everything that computes an operation. Most are layers; sums and
products written with ``+`` and ``*`` are operations that are no layers.
Tensors are named by the operation they come from, and `name_operations` sees
to it that these names are the same in every process.
"""

import math
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from inspect import signature
from itertools import chain
from typing import Any

import keras
import numpy as np
from keras.src.utils.naming import to_snake_case

from thaw.errors import UnsupportedNetwork


@dataclass(frozen=True)
class Step:
    """One operation of a network.

    Attributes
    ----------
    operation : keras.Operation
        Mostly a `keras.layers.Layer`.
    inputs : list of str
        The names of the tensors that it reads.
    outputs : dict of str to KerasTensor
        What it computes. The one tensor of an operation has the operation's
        name; several are numbered.
    """

    operation: keras.Operation
    inputs: list[str]
    outputs: dict[str, keras.KerasTensor]

    @property
    def name(self) -> str:
        """The operation's name."""
        return self.operation.name


@dataclass(frozen=True)
class Cut:
    """A network cut in two where its frozen part ends.

    Attributes
    ----------
    frontier : dict of str to KerasTensor
        What flows from the frozen part to the rest: one tensor at a block's
        edge, more where the cut is inside a residual block.
    tail : keras.Model
        From the frontier to the output. It shares the network's weights.
    has_frozen_part : bool
        Whether there are weights before the frontier.
    """

    frontier: dict[str, keras.KerasTensor]
    tail: keras.Model
    has_frozen_part: bool

    @property
    def bytes_a_photo(self) -> int:
        """How much of the frontier belongs to one photo."""
        return sum(numbers_a_photo(tensor) * itemsize(tensor) for tensor in self.frontier.values())


def steps(model: keras.Model) -> list[Step]:
    """List a network's operations, each after those that it depends on.

    Raises
    ------
    UnsupportedNetwork
        If an operation is used twice, with shared weights.
    """
    nodes: dict[int, list] = {}
    for node in chain.from_iterable(model._nodes_by_depth.values()):
        nodes.setdefault(id(node.operation), []).append(node)
    names: dict[int, str] = {}
    found = []
    for operation in model.operations:  # Keras keeps them in topological order
        if len(nodes[id(operation)]) > 1:
            raise UnsupportedNetwork(
                f"{model.name}: its layer {operation.name!r} is used {len(nodes[id(operation)])} times, with shared "
                "weights. Thaw cuts a network between layers that are used once. Save a network without shared layers."
            )
        node = nodes[id(operation)][0]
        tensors = list(node.output_tensors)
        outputs = {
            operation.name if len(tensors) == 1 else f"{operation.name}_out{number}": tensor
            for number, tensor in enumerate(tensors)
        }
        names |= {id(tensor): name for name, tensor in outputs.items()}
        inputs = [] if node.is_input else list(dict.fromkeys(names[id(tensor)] for tensor in node.input_tensors))
        found.append(Step(operation, inputs, outputs))
    return found


def tensors(model: keras.Model) -> dict[str, keras.KerasTensor]:
    """Find a network's tensors by name, each after those that it depends on."""
    return {name: tensor for step in steps(model) for name, tensor in step.outputs.items()}


def graph_of(model: keras.Model) -> keras.Model:
    """Return a model whose operations are known: the model itself, or that of a Sequential one.

    Raises
    ------
    UnsupportedNetwork
        If it has none.
    """
    if isinstance(model, keras.Sequential) and model.built:
        return model._functional
    if not getattr(model, "_nodes_by_depth", None):
        raise UnsupportedNetwork(f"its part {model.name!r} is a {type(model).__name__} whose graph is not known.")
    return model


def rebuilt(
    model: keras.Model, start: keras.KerasTensor, renew: Callable[[keras.layers.Layer, str], Callable]
) -> keras.KerasTensor:
    """Build a network's layers anew on another input, with its weights.

    A model within it becomes part of the one graph.

    Parameters
    ----------
    model : keras.Model
        With one input and one output.
    start : KerasTensor
        What takes the place of its input.
    renew : callable
        From a layer and its name in the graph to the new layer; or to any
        other callable of tensors, if the layer has no weights.

    Raises
    ------
    UnsupportedNetwork
        If a layer is used twice.
    """
    names: set[str] = {start._keras_history.operation.name}
    copies: dict[keras.Operation, Callable] = {}

    def copied(operation, prefix: str):
        if isinstance(operation, keras.Model):
            return lambda *arguments, **_: through(graph_of(operation), arguments[0], f"{prefix}{operation.name}_")
        if operation in copies:
            raise UnsupportedNetwork(
                f"its layer {operation.name!r} is used twice, with shared weights. Thaw cuts a network between layers "
                "that are used once. Save a network without shared layers."
            )
        if not isinstance(operation, keras.layers.Layer):
            return copies.setdefault(operation, type(operation).from_config(operation.get_config()))
        safe = re.sub(r"[^\w.-]", "_", operation.name)
        name = next(name for name in (safe, prefix + safe, f"{prefix}{safe}_{len(names)}") if name not in names)
        names.add(name)
        return copies.setdefault(operation, renew(operation, name))

    def through(part: keras.Model, tensor, prefix: str):
        features = part._run_through_graph(tensor, operation_fn=lambda operation: copied(operation, prefix))
        return features[0] if isinstance(features, list | tuple) else features

    output = through(model, start, "")
    for old, new in copies.items():
        if isinstance(new, keras.layers.Layer):
            new.set_weights([value.reshape(own.shape) for value, own in zip(old.get_weights(), new.weights)])
        if isinstance(new, keras.layers.Normalization):
            new.finalize_state()
    return output


def name_operations(model: keras.Model) -> None:
    """Name what has an automatic name by its place in the network.

    Keras counts automatic names up over a process: the first `Conv2D` without
    a name of its own is ``conv2d``, and ``conv2d_4`` if the network is built
    again. Here it is ``conv2d_op7`` every time: the network's operation 7.
    """
    for position, operation in enumerate(model.operations):
        if has_automatic_name(operation):
            operation.name = f"{_kind(operation)}_op{position}"


def has_automatic_name(operation: keras.Operation) -> bool:
    """Whether Keras or `name_operations` named an operation, after its class."""
    head, _, number = operation.name.rpartition("_")
    kind = _kind(operation)
    return operation.name == kind or (head == kind and number.removeprefix("op").isdigit())


def _kind(operation: keras.Operation) -> str:
    """Give the name that Keras gives to an operation of its class, before it counts."""
    return to_snake_case(class_of_others(operation).__name__)


def class_of_others(operation: keras.Operation) -> Any:
    """Give the class of an operation; of a layer that Thaw lets compute faster, Keras' own."""
    return next(kind for kind in type(operation).__mro__ if not kind.__module__.startswith("thaw."))


def cut(model: keras.Model) -> Cut:
    """Cut a network where its frozen part ends, as its layers are frozen now.

    The rest is every operation that training changes or that acts otherwise in
    training, and every operation that depends on one of them.
    """
    live: set[str] = set()
    frontier: dict[str, keras.KerasTensor] = {}
    has_frozen_part = False
    known: dict[str, keras.KerasTensor] = {}
    for step in steps(model):
        if _trains(step.operation) or live.intersection(step.inputs):
            live |= step.outputs.keys()
            frontier |= {name: known[name] for name in step.inputs if name not in live}
        else:
            has_frozen_part |= bool(getattr(step.operation, "weights", ()))
        known |= step.outputs
    return Cut(frontier, keras.Model(one_or_all(list(frontier.values())), model.output), has_frozen_part)


def _trains(operation: keras.Operation) -> bool:
    if getattr(operation, "trainable_weights", ()):
        return True
    # An unfrozen layer without trainable weights may still be random in training, as Dropout is.
    return getattr(operation, "trainable", False) and acts_otherwise_in_training(operation)


def acts_otherwise_in_training(operation: keras.Operation) -> bool:
    """Whether an operation computes something else in training than in inference."""
    if isinstance(operation, keras.Model):
        return any(map(acts_otherwise_in_training, operation.layers))
    return "training" in signature(type(operation).call).parameters


def numbers_a_photo(tensor: keras.KerasTensor) -> int:
    """How many numbers of a tensor (n, ...) belong to one photo."""
    return math.prod(tensor.shape[1:])


def itemsize(tensor: keras.KerasTensor) -> int:
    """Bytes of one number of a tensor."""
    return np.dtype(tensor.dtype).itemsize


def sources(model: keras.Model, wanted: Collection[str], at_hand: Collection[str]) -> list[str]:
    """Find what to start from in order to compute some tensors.

    Parameters
    ----------
    model : keras.Model
    wanted, at_hand : collection of str
        The names of the tensors to compute, and of those that are known.

    Returns
    -------
    list of str
        On every path to what is wanted the last tensor that is known, or the
        network's input.
    """
    inputs = {name: step.inputs for step in steps(model) for name in step.outputs}
    found: set[str] = set()
    seen: set[str] = set()
    left = list(wanted)
    while left:
        name = left.pop()
        if name in seen:
            continue
        seen.add(name)
        if name in at_hand or not inputs[name]:
            found.add(name)
        else:
            left += inputs[name]
    return [name for name in inputs if name in found]


def multiply_adds(model: keras.Model, wanted: Collection[str], start: Collection[str] = ()) -> int:
    """Count the multiplications, each with its addition, from some tensors to others, for one photo.

    Those of convolutions and dense layers count. The rest is about a hundredth.
    """
    of = {name: step for step in steps(model) for name in step.outputs}
    seen: set[str] = set(start)
    needed: dict[str, Step] = {}
    left = list(wanted)
    while left:
        name = left.pop()
        if name in seen:
            continue
        seen.add(name)
        needed[of[name].name] = of[name]
        left += of[name].inputs
    return sum(cost(step) for step in needed.values())


def cost(step: Step) -> int:
    """Count the multiplications of one operation, each with its addition, for one photo."""
    operation = step.operation
    if isinstance(operation, keras.Sequential):
        return sum(cost(inner) for inner in steps(operation._functional))
    if not isinstance(operation, keras.layers.Layer):
        return 0
    positions = math.prod(next(iter(step.outputs.values())).shape[1:-1])
    kernels = [
        getattr(layer, kernel).shape
        for layer in operation._flatten_layers()  # attention has dense layers of its own
        for kernel in ("kernel", "depthwise_kernel", "pointwise_kernel")
        if hasattr(layer, kernel)
    ]
    return sum(positions * math.prod(shape) for shape in kernels)


def one_or_all(tensors: list):
    """Return the only element of a list, or the list if it has more: what Keras takes as a model's inputs."""
    return tensors if len(tensors) > 1 else tensors[0]
