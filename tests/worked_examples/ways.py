"""The three ways in which a program runs: define-by-run, traced and interpreted, compiled.  Gradients likewise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.testing import assert_allclose, assert_array_equal

import irconv
from irconv import structure
from irconv.graph import Graph
from irconv.interpret import evaluate

Program = Callable[..., Any]


def f32(data: Any) -> np.ndarray:
    return np.asarray(data, np.float32)


def f64(data: Any) -> np.ndarray:
    return np.asarray(data, np.float64)


def image(data: Any, dtype: Any = np.float32) -> np.ndarray:
    """Rows of numbers as a batch of one sample with one channel."""
    return np.asarray(data, dtype)[None, None]


def normal(*shape: int, seed: int = 0, dtype: Any = np.float64) -> np.ndarray:
    return np.random.default_rng((seed, *shape)).normal(size=shape).astype(dtype)


def as_arrays(result: Any) -> Any:
    return structure.map_leaves(lambda path, leaf: np.asarray(leaf), result)


# --- values ------------------------------------------------------------------------------------------------------------


def define_by_run(program: Program, *arrays: np.ndarray) -> Any:
    return as_arrays(program(*(irconv.tensor(a) for a in arrays)))


def run_graph(graph: Graph, *arrays: np.ndarray) -> Any:
    """The outputs of a graph by the reference interpreter."""
    values = evaluate(graph, dict(zip(graph.inputs, arrays, strict=True)))
    return structure.build((path, values[i]) for path, i in graph.outputs.items())


def interpreted(program: Program, *arrays: np.ndarray) -> Any:
    return run_graph(irconv.trace(program, *arrays), *arrays)


def compiled(program: Program, *arrays: np.ndarray) -> Any:
    return irconv.compile(program, *arrays, backend="numpy")(*arrays)


WAYS = (define_by_run, interpreted, compiled)


def check(program: Program, *arrays: np.ndarray, expected: Any, rtol: float = 0.0, atol: float = 0.0) -> None:
    """The program's result is ``expected`` each way: exactly, unless a tolerance is given."""
    for way in WAYS:
        _compare(way.__name__, way(program, *arrays), expected, rtol, atol)


def _compare(way: str, result: Any, expected: Any, rtol: float, atol: float) -> None:
    found, wanted = dict(structure.leaves(result)), dict(structure.leaves(as_arrays(_nested(expected))))
    assert list(found) == list(wanted), way
    for path, array in found.items():
        assert array.shape == wanted[path].shape, (way, path, array.shape, wanted[path].shape)
        if rtol or atol:
            assert_allclose(array, wanted[path], rtol, atol, err_msg=f"{way} {path}")
        else:
            assert_array_equal(array, wanted[path], err_msg=f"{way} {path}")


def _nested(expected: Any) -> Any:
    """Lists are numbers here; tuples and dicts are structure."""
    if isinstance(expected, tuple):
        return tuple(_nested(item) for item in expected)
    if isinstance(expected, dict):
        return {key: _nested(item) for key, item in expected.items()}
    return np.asarray(expected)


# --- gradients ---------------------------------------------------------------------------------------------------------


def backward(program: Program, *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
    tensors = [irconv.tensor(a, requires_grad=_is_float(a)) for a in arrays]
    program(*tensors).backward()
    return tuple(t.grad.numpy() for t in tensors if t.requires_grad)


def differentiated(program: Program, *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
    graph = irconv.trace(program, *arrays)
    names = [graph[i].name for i in graph.inputs if graph[i].type.dtype.is_float]
    joint = irconv.differentiate(graph, wrt=names)
    values = evaluate(joint, dict(zip(joint.inputs, arrays, strict=True)))
    return tuple(values[joint.outputs[f"d_{name}"]] for name in names)


def compiled_gradient(program: Program, *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
    numbers = [k for k, a in enumerate(arrays) if _is_float(a)]
    return irconv.compile(irconv.grad(program, numbers), *arrays, backend="numpy")(*arrays)


GRADIENT_WAYS = (backward, differentiated, compiled_gradient)


def check_gradients(
    program: Program, *arrays: np.ndarray, expected: Sequence[Any], rtol: float = 0.0, atol: float = 0.0
) -> None:
    """The gradients of a scalar-valued program by its floating-point arguments are ``expected`` each way."""
    for way in GRADIENT_WAYS:
        _compare(way.__name__, way(program, *arrays), tuple(expected), rtol, atol)


def _is_float(array: np.ndarray) -> bool:
    return array.dtype.kind == "f"


# --- shapes ------------------------------------------------------------------------------------------------------------


def check_shape(program: Program, shape: Sequence[int], expected: Sequence[int]) -> None:
    """A float32 input of one shape gives an output of the other, each way."""
    x = normal(*shape, dtype=np.float32)
    for way in WAYS:
        assert way(program, x).shape == tuple(expected), way.__name__


def shape_of(program: Program, *shapes: Sequence[int]) -> tuple[int, ...]:
    """The shape of the program's result as the type rules say it: nothing is computed."""
    graph = irconv.trace(program, *(irconv.TensorSpec(tuple(s)) for s in shapes))
    return graph[graph.outputs[""]].type.shape
