"""Native kernels written by hand, to test what runs them: strided elementwise ops, a sum in two phases, a packed product."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest

from irconv.backends.arrays.base import scratch
from irconv.backends.arrays.lower import operand_ids
from irconv.backends.native.backend import NativeBackend
from irconv.backends.native.base import EXPORT, NATIVE, NativeRequest, Phase, Prepared, native_kernel
from irconv.backends.native.compiler import find_compiler
from irconv.backends.native.runtime import Pool
from irconv.builder import Builder
from irconv.errors import BackendError
from irconv.graph import Graph
from irconv.types import F64, tensor_type
from tests.passes.programs import compiled

ARGUMENTS = "(void *const *buffers, const int64_t *sizes, int64_t first, int64_t last, int64_t worker)"
HEAD = "#include <stdint.h>\n#include <math.h>\n"
C_TYPES = {"f32": "float", "f64": "double"}
BLOCKS = 7


def compiler_or_skip() -> None:
    try:
        find_compiler()
    except BackendError as error:
        pytest.skip(error.message)


def strided(expression: str):
    """A generator for an elementwise op; ``expression`` of a, b; one task for each index of the first axis."""

    def generator(request: NativeRequest):
        graph, node = request.graph, request.graph[request.kernel.nodes[0]]
        operands = operand_ids(graph, request.kernel)
        types = {graph[i].type.dtype.name for i in (node.id, *operands)}
        shapes = {graph[i].type.shape for i in (node.id, *operands)}
        if len(types) != 1 or len(shapes) != 1 or not types <= C_TYPES.keys():
            return None
        shape, c_type = node.type.shape, C_TYPES[types.pop()]
        indices = [f"i{axis}" for axis in range(len(shape))]

        def offset(value: int) -> str:
            parts = zip(indices, request.strides[value], strict=True)
            return " + ".join(f"{i} * INT64_C({s})" for i, s in parts) or "0"

        loops = "".join(f"for (int64_t i{a} = 0; i{a} < {n}; i{a}++) " for a, n in enumerate(shape) if a)
        reads = "".join(
            f"const {c_type} {name} = ((const {c_type} *)buffers[{k + 1}])[{offset(value)}]; "
            for k, (name, value) in enumerate(zip("ab", operands, strict=False))
        )
        outer = "for (int64_t i0 = first; i0 < last; i0++) " if shape else ""
        source = (
            f"{HEAD}{EXPORT} void run{ARGUMENTS} {{\n  {outer}{loops}{{ {reads}"
            f"(({c_type} *)buffers[0])[{offset(node.id)}] = {expression}; }}\n}}\n"
        )
        pairs = tuple((0, k) for k, value in enumerate(operands) if operands.count(value) == 1)
        return native_kernel(source, (Phase("run", shape[0] if shape else 1),), shape[:1], in_place=pairs)

    return generator


def two_phase_sum(request: NativeRequest):
    """The sum of everything: partial sums of a fixed number of blocks, then their sum."""
    node = request.graph[request.kernel.nodes[0]]
    (operand,) = request.graph.operands(node)
    if node.type.size != 1 or operand.type.dtype.name != "f32" or operand.type.layout is not None:
        return None
    if request.strides[operand.id] != (1,):
        return None
    source = f"""{HEAD}
{EXPORT} void partial{ARGUMENTS} {{
  const float *x = buffers[1];
  double *partial = buffers[2];
  for (int64_t block = first; block < last; block++) {{
    double sum = 0;
    for (int64_t i = block * sizes[0] / {BLOCKS}; i < (block + 1) * sizes[0] / {BLOCKS}; i++) sum += x[i];
    partial[block] = sum;
  }}
}}
{EXPORT} void total{ARGUMENTS} {{
  double sum = 0;
  for (int64_t block = 0; block < {BLOCKS}; block++) sum += ((double *)buffers[2])[block];
  *(float *)buffers[0] = (float)sum;
}}
"""
    phases = (Phase("partial", BLOCKS), Phase("total", 1))
    return native_kernel(source, phases, (operand.type.size,), (scratch(F64, BLOCKS),))


def packed_product(request: NativeRequest):
    """A matrix product whose second operand is turned first, into a temporary that may be kept."""
    node = request.graph[request.kernel.nodes[0]]
    x, w = request.graph.operands(node)
    if x.type.rank != 2 or w.type.rank != 2 or node.type.dtype.name != "f32":
        return None
    inner, columns = w.type.shape
    (x0, x1), (w0, w1) = request.strides[x.id], request.strides[w.id]
    source = f"""{HEAD}
{EXPORT} void turn{ARGUMENTS} {{
  const float *w = buffers[2];
  float *turned = buffers[3];
  for (int64_t j = first; j < last; j++)
    for (int64_t k = 0; k < {inner}; k++) turned[j * {inner} + k] = w[k * INT64_C({w0}) + j * INT64_C({w1})];
}}
{EXPORT} void product{ARGUMENTS} {{
  const float *x = buffers[1], *turned = buffers[3];
  for (int64_t i = first; i < last; i++)
    for (int64_t j = 0; j < {columns}; j++) {{
      float sum = 0;
      for (int64_t k = 0; k < {inner}; k++) sum += x[i * INT64_C({x0}) + k * INT64_C({x1})] * turned[j * {inner} + k];
      ((float *)buffers[0])[i * {columns} + j] = sum;
    }}
}}
"""
    phases = (Phase("turn", columns), Phase("product", node.type.shape[0]))
    turned = (scratch(w.type.dtype, columns, inner),)
    return native_kernel(source, phases, scratch=turned, prepared=(Prepared(operand=2, scratch=3, phase=0),))


GENERATORS = {
    "relu": strided("a > 0 || a != a ? a : 0"),
    "add": strided("a + b"),
    "subtract": strided("a - b"),
    "multiply": strided("a * b"),
    "square": strided("a * a"),
    "sum": two_phase_sum,
    "matmul": packed_product,
}


@contextmanager
def only(*names: str) -> Iterator[None]:
    """While it holds, these generators of this file (all, if none is named) are the only ones there are."""
    saved = dict(NATIVE)
    NATIVE.clear()
    NATIVE.update({name: GENERATORS[name] for name in names or GENERATORS})
    try:
        yield
    finally:
        NATIVE.clear()
        NATIVE.update(saved)


def build(graph: Graph, guards=(), pool: Pool | None = None):
    """Compile a graph, each op a kernel of its own."""
    backend = NativeBackend(pool=pool)
    return backend.build(compiled(graph, replace(backend.target(), kinds=frozenset()), guards))


def one_op(function, *shapes, dtype="f32") -> Graph:
    """The graph of a function of inputs x0, x1, ..."""
    graph = Graph()
    builder = Builder(graph)
    graph.set_output("", function(*(builder.input(f"x{i}", tensor_type(dtype, s)) for i, s in enumerate(shapes))).id)
    return graph


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)
