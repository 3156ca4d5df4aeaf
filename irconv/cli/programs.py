"""A MODEL compiled and ready to be called, for the commands that look into what runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from irconv.autograd import differentiate
from irconv.backends.base import Executable
from irconv.bench.material import input_arrays, random_array, settle_weights, target_array
from irconv.bench.sides.own import training_step
from irconv.bench.task import Task
from irconv.cli.models import InputSpecs, load_model, users_code
from irconv.compile import INFERENCE, TRAINING, Options, build
from irconv.errors import ModelError
from irconv.graph import Graph
from irconv.nn.module import Module
from irconv.tracing import trace


@dataclass(frozen=True)
class Ready:
    """An executable, and arguments for it: inputs, and in training the target."""

    executable: Executable
    args: tuple[np.ndarray, ...]


def prepare(
    task: Task, inputs: InputSpecs, backend: str, weights: str = "own", backward: bool = False
) -> Ready:
    """Compile a task's MODEL for such inputs (random where only their shapes are given).

    backward: differentiate by the parameters; in training the step contains that anyway.
    weights:  see :func:`irconv.bench.material.make_material`.

    Raises ModelError for a model that cannot be read, traced or trained.
    """
    source: Any = load_model(task.model)
    if isinstance(source, Module):
        settle_weights(source, weights)
    arrays = input_arrays(source, inputs, task.model)
    with users_code(f"{task.model} cannot be compiled"):
        if task.trains:
            return _training(source, task, arrays, backend)
        graph = source if isinstance(source, Graph) else trace(source, *arrays)
        if backward:
            graph = differentiate(graph)
            arrays += [random_array(graph[i].type, i) for i in graph.inputs[len(arrays) :]]  # the gradients that come in
        passes = TRAINING if backward or graph.updates else INFERENCE
        return Ready(build(graph, Options(backend, precision=task.precision, tune=task.tune), passes), tuple(arrays))


def _training(source: Any, task: Task, arrays: list[np.ndarray], backend: str) -> Ready:
    if not isinstance(source, Module):
        raise ModelError(f"{task.model} is not a module: it has no parameters to train")
    args = [*arrays, target_array(trace(source, *arrays, training=True), task.loss)]
    executable = training_step(source, task, args, backend).compiled.executable
    assert executable is not None
    return Ready(executable, tuple(args))
