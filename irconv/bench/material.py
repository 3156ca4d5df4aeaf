"""What all sides share, as files in a folder: inputs, weights, and the network as ONNX."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from irconv import serialize, structure
from irconv.bench.task import CLASSES, Task
from irconv.compile import INFERENCE
from irconv.errors import ModelError
from irconv.frontends.onnx import export
from irconv.graph import Graph
from irconv.loading import InputSpecs, load_model, users_code
from irconv.nn.module import Module
from irconv.passes.base import Pipeline
from irconv.passes.materialise import Materialise
from irconv.tracing import DeclaresInputs, bind_names, trace
from irconv.types import TensorSpec, TensorType


def make_material(task: Task, inputs: InputSpecs, folder: Path, weights: str = "", with_onnx: bool = False) -> None:
    """Write ``inputs.npz``, for modules ``weights.npz``, and if asked for ``model.onnx``.

    inputs:  shapes or arrays, as ``--input`` gives them.
    weights: "random" (see :func:`random_state`), "own", or a file; by default random for Python modules, else own.

    Raises ModelError for a model that cannot be read, traced, trained or exported.
    """
    source: Any = load_model(task.model)
    if task.trains and not isinstance(source, Module):
        raise ModelError(f"{task.model} is not a module: it has no parameters to train")
    if isinstance(source, Module):
        settle_weights(source, weights or ("own" if isinstance(source, DeclaresInputs) else "random"))
        np.savez(folder / "weights.npz", **source.state_dict())  # type: ignore[arg-type]  # the names of the arrays are data
    arrays = input_arrays(source, inputs, task.model)
    with users_code(f"{task.model} cannot be traced"):
        graph = source if isinstance(source, Graph) else trace(source, *arrays, training=task.trains)
    given = {str(number): array for number, array in enumerate(arrays)}
    if task.trains:
        given["target"] = target_array(graph, task.loss)
    np.savez(folder / "inputs.npz", **given)  # type: ignore[arg-type]  # the names of the arrays are data
    if with_onnx:
        write_onnx(graph, folder / "model.onnx")


def settle_weights(source: Module, weights: str) -> None:
    """Give a module "random" weights, those of a file, or leave it its "own"."""
    if weights == "random":
        state = {name: array for name, array in source.state_dict().items() if array.dtype.kind == "f"}
        source.load_state_dict(random_state({name: array.shape for name, array in state.items()}), strict=False)
    elif weights != "own":
        source.load_state_dict(serialize.load(weights))


def random_state(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Weights under which every layer's output is about as large as its input, and batch norms that do something.

    (Under the usual random start, values fade away layer by layer, and all that is left to compare is the last bias.)
    """
    generator = np.random.default_rng(1)
    state = {}
    for name, shape in shapes.items():
        if len(shape) > 1:
            values = generator.standard_normal(shape) * math.sqrt(2 / math.prod(shape[1:]))
        elif name.endswith(("weight", "running_var")):
            values = generator.uniform(0.5, 1.5, shape)
        else:
            values = 0.1 * generator.standard_normal(shape)
        state[name] = values.astype(np.float32)
    return state


# --- inputs ----------------------------------------------------------------------------------------------------------------


def input_arrays(source: Any, inputs: InputSpecs, model: str) -> list[np.ndarray]:
    """An array for each input, in order: random ones for shapes."""
    leaves = enumerate(_input_leaves(source, inputs, model))
    return [random_array(leaf.type, n) if isinstance(leaf, TensorSpec) else np.asarray(leaf) for n, leaf in leaves]


def _input_leaves(source: Any, inputs: InputSpecs, model: str) -> Sequence[Any]:
    if not inputs.any and isinstance(source, Graph):
        return [TensorSpec(source[i].type.shape, source[i].type.dtype) for i in source.inputs]
    if not inputs.any and isinstance(source, DeclaresInputs):
        specs = source.specs()
        if specs is not None:
            return specs
    if not inputs.any:
        raise ModelError(f"what do the inputs of {model} look like?", hint="say so: --input 1x3x224x224[:f32]")
    if isinstance(source, Graph):
        return inputs.positional
    named = bind_names(source, inputs.positional, inputs.named or {})
    return [leaf for _, leaf in structure.leaves(named)]


def random_array(type_: TensorType, seed: int) -> np.ndarray:
    """Normal numbers, or zeros and ones for integers and truth values."""
    generator = np.random.default_rng(seed)
    if type_.dtype.is_float:
        return generator.standard_normal(type_.shape).astype(type_.dtype.numpy)
    return generator.integers(0, 2, type_.shape).astype(type_.dtype.numpy)


def target_array(graph: Graph, loss: str) -> np.ndarray:
    """A random target for the network's output: class numbers along axis 1, or values in [0, 1)."""
    if list(graph.outputs) != [""]:
        raise ModelError("training needs a model with one output", hint=f"this one has {', '.join(graph.outputs)}")
    shape = graph[graph.outputs[""]].type.shape
    generator = np.random.default_rng(7)
    if loss not in CLASSES:
        return generator.random(shape, np.float32)
    if len(shape) < 2:
        raise ModelError(f"{loss} needs scores of shape (batch, classes, ...), the model gives {list(shape)}")
    return generator.integers(0, shape[1], (shape[0], *shape[2:]))


# --- ONNX ------------------------------------------------------------------------------------------------------------------


def write_onnx(graph: Graph, path: Path) -> None:
    """The network for peers: simplified, batch norm folded, and without the weights that this leaves unread.

    (Peers fuse the bias and the activation into a convolution; irconv's batch norm, arithmetic on its own, they would not.)
    """
    passes = [pass_ for pass_ in INFERENCE if not isinstance(pass_, Materialise)]
    model = export(Pipeline(passes).run(graph)[-1].graph)
    read = {name for node in model.graph.node for name in node.input} | {value.name for value in model.graph.output}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in read]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    path.write_bytes(model.SerializeToString())
