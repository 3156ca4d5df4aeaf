"""Graphs to execute, inputs in odd forms, and what calls may take of memory: for tests of executables on any backend."""

from __future__ import annotations

import threading
import tracemalloc
from dataclasses import replace

import numpy as np

from irconv.backends.numpy.backend import NumpyBackend
from irconv.builder import Builder
from irconv.graph import Graph
from irconv.ops.contract import matmul
from irconv.ops.conv import conv
from irconv.ops.elementwise import add, multiply, relu, rsqrt, square, subtract
from irconv.ops.pool import max_pool
from irconv.ops.reduce import reduce_mean, variance
from irconv.ops.shape import reshape, transpose
from irconv.passes.differentiate import differentiate
from irconv.types import tensor_type
from tests.passes.programs import compiled, state

SMALL = 60_000
"""Bytes for tuples, views, and the buffers of fixed size that NumPy's ufuncs take for strided operands."""


def build(graph: Graph, guards=(), fused: bool = True):
    """Compile a graph for NumPy, with a kernel per op or with fused ones."""
    backend = NumpyBackend()
    target = backend.target() if fused else replace(backend.target(), kinds=frozenset())
    return backend.build(compiled(graph, target, guards))


def network(batch: int = 4) -> Graph:
    """A small convolutional network with nested outputs."""
    graph = Graph("net")
    builder = Builder(graph)
    rng = np.random.default_rng(0)
    x = builder.input("x", tensor_type("f32", (batch, 3, 12, 12)))
    w = state(builder, "w", rng.normal(size=(8, 3, 3, 3)).astype(np.float32))
    v = state(builder, "v", rng.normal(size=(8 * 36, 5)).astype(np.float32))
    y = max_pool(relu(conv(x, w, padding=1)), 2)
    graph.set_output("logits", matmul(reshape(y, (batch, 8 * 36)), v).id)
    graph.set_output("features", transpose(y, (0, 2, 3, 1)).id)
    return graph


def images(batch: int = 4) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(batch, 3, 12, 12)).astype(np.float32)


def training(rate: bool = True) -> tuple[Graph, int]:
    """Least squares by gradient descent, and the id of the loss."""
    graph = Graph("train")
    builder = Builder(graph)
    x = builder.input("x", tensor_type("f32", (8, 3)))
    target = builder.input("target", tensor_type("f32", (8, 2)))
    lr = builder.input("lr", tensor_type("f32", ()))
    w = state(builder, "w", np.ones((3, 2), np.float32))
    steps = state(builder, "steps", np.zeros((), np.int64))
    loss = reduce_mean(multiply(*[subtract(matmul(x, w), target)] * 2))
    d_w = differentiate(graph, loss.id, [w.id])[w.id]
    graph.set_update(w.id, subtract(w, multiply(lr, builder.value(d_w))).id)
    graph.set_update(steps.id, add(steps, 1).id)
    graph.set_output("", loss.id)
    return graph, loss.id


def training_data():
    rng = np.random.default_rng(2)
    return rng.normal(size=(8, 3)).astype(np.float32), rng.normal(size=(8, 2)).astype(np.float32)


def convolutional_step() -> tuple[Graph, int]:
    """Forward, backward and momentum update of two convolutions with batch norm, pooling and a residual; the loss's id."""
    graph = Graph("step")
    builder = Builder(graph)
    rng = np.random.default_rng(4)
    x = builder.input("x", tensor_type("f64", (3, 2, 9, 9)))
    shapes = {"w": (4, 2, 3, 3), "v": (4, 2, 3, 3), "scale": (1, 4, 1, 1), "shift": (1, 4, 1, 1), "last": (4 * 16, 5)}
    w, v, scale, shift, last = (state(builder, name, rng.normal(size=shape)) for name, shape in shapes.items())
    y = conv(x, w, padding=1)
    mean, spread = reduce_mean(y, (0, 2, 3), keepdims=True), variance(y, (0, 2, 3), keepdims=True)
    y = relu(add(multiply(multiply(subtract(y, mean), rsqrt(add(spread, 1e-5))), scale), shift))
    y = max_pool(add(y, conv(y, v, padding=1, groups=2)), 3, 2)
    loss = reduce_mean(square(matmul(reshape(y, (3, 4 * 16)), last)))
    trained = list(graph.states)
    gradients = differentiate(graph, loss.id, trained)
    for each in trained:
        momentum = state(builder, f"{graph[each].name}.momentum", rng.normal(size=graph[each].type.shape))
        new = add(multiply(momentum, 0.9), builder.value(gradients[each]))
        graph.set_update(momentum.id, new.id)
        graph.set_update(each, subtract(builder.value(each), multiply(new, 0.01)).id)
    graph.set_output("", loss.id)
    return graph, loss.id


def outputs_for(exe):
    return {path: np.full(t.shape, np.nan, t.dtype.numpy) for path, t in exe.outputs}


def read_only(array):
    array.flags.writeable = False
    return array


class WithArray:
    """Something that gives its data by ``__array__``."""

    def __init__(self, array):
        self.array = array

    def __array__(self, dtype=None, copy=None):
        return self.array


class WithDlpack:
    """Something that gives its data by DLPack alone."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


def unaligned(array):
    """The same numbers, starting at an odd address."""
    raw = np.empty(array.nbytes + 1, np.uint8)
    result = raw[1:].view(array.dtype).reshape(array.shape)
    result[...] = array
    assert not result.flags.aligned
    return result


def in_threads(count, work):
    """Run ``work(index)`` in threads and raise what any of them raised."""
    errors = []

    def run(index):
        try:
            work(index)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    if errors:
        raise errors[0]


def peak_of(call):
    """Bytes that Python's allocators, NumPy's among them, had in hand at most during a call, beyond what they had before."""
    call()
    tracemalloc.start()
    try:
        call()
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        call()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return peak - before


def check_that_out_is_enough(exe):
    """A call of the executable of ``network(64)`` with ``out`` allocates nothing."""
    x, out = images(64), outputs_for(exe)
    assert peak_of(lambda: exe(x, out=out)) < SMALL
    assert exe.memory.arena_bytes > 20 * SMALL
