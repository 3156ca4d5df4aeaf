"""Products with a large weight that is read where it lies: no packed copy of it is made (see :mod:`.row_plan` for when)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from irconv.backends.arrays.base import scratch
from irconv.backends.arrays.lower import operand_ids
from irconv.backends.codegen.c import print_c
from irconv.backends.codegen.form import Pointer
from irconv.backends.codegen.statements import Function
from irconv.backends.native.base import Candidate, NativeKernel, NativeRequest, Phase, native_kernel
from irconv.backends.native.kernels.column_product import RUN, ColumnPlan, ColumnProduct, column_plan
from irconv.backends.native.kernels.contraction import Contraction
from irconv.backends.native.kernels.epilogue import make_epilogue, nodes_ahead
from irconv.backends.native.kernels.row_plan import FEW, RowPlan, row_plan
from irconv.backends.native.kernels.row_product import RowProduct
from irconv.graph import Node
from irconv.types import DType, TensorType

Packed = Callable[[Sequence[Function]], NativeKernel | None]
"""Makes the kernel with a packed weight, further functions standing in its source."""


@dataclass(frozen=True)
class _Way:
    """The functions that read the weight where it lies, with their tasks, and their temporary."""

    functions: tuple[Function, ...]
    tasks: tuple[int, ...]
    scratch: TensorType


def unpacked_candidates(request: NativeRequest, node: Node, c: Contraction, packed: Packed) -> list[Candidate]:
    """The way that there is for a weight as it lies, if any; ``packed`` serves the batches that it does not."""
    plan = row_plan(c, request.machine) or column_plan(c, request.machine)
    if plan is None or nodes_ahead(request.graph, request.kernel, node.id):
        return []
    return [Candidate(plan.name, partial(_kernel, request, node, c, plan, packed))]


def _kernel(
    request: NativeRequest, node: Node, c: Contraction, plan: RowPlan | ColumnPlan, packed: Packed
) -> NativeKernel | None:
    """The kernel; None where there is no code for the epilogue.

    One source has both ways, so that another batch needs no other code.
    """
    operands = operand_ids(request.graph, request.kernel)
    x, w = node.operands
    if x == w or len(request.kernel.outputs) != 1 or len(set(operands)) < len(operands):
        return None
    names = {i: f"operand{number}" for number, i in enumerate(operands)} | {x: "x", w: "w"}
    pointers = {i: Pointer(name, request.graph[i].type.dtype) for i, name in names.items()}
    epilogue = make_epilogue(request, node.id, pointers, plan.lanes)
    strides = None if epilogue is None else epilogue.pixel_strides(c)
    if epilogue is None or strides is None:
        return None
    out = Pointer("out", request.graph[epilogue.result].type.dtype)
    buffers = [(pointer.name, pointer.dtype) for pointer in (out, *(pointers[i] for i in operands))]
    if isinstance(plan, RowPlan):
        way = _rows(request, c, plan, RowProduct(c, plan, epilogue, strides, out), buffers)
    else:
        way = _columns(c, plan, ColumnProduct(c, plan, epilogue, strides, out), buffers)
    if isinstance(plan, RowPlan) and plan.any_batch:
        source = print_c(way.functions)
    else:
        both = packed(way.functions)
        if both is None or c.batch * c.places > FEW:
            return both
        source = both.source
    phases = tuple(Phase(function.name, tasks) for function, tasks in zip(way.functions, way.tasks, strict=True))
    return native_kernel(source, phases, (c.batch,), (way.scratch,), machine=request.machine)


def _rows(
    request: NativeRequest, c: Contraction, plan: RowPlan, product: RowProduct, buffers: list[tuple[str, DType]]
) -> _Way:
    """For a weight that lies row by row."""
    named = [*((name, dtype, name == "out") for name, dtype in buffers), ("own", c.dtype, True)]
    tasks = -(-c.batch * c.places // plan.chunk) * -(-c.columns // plan.part)
    return _Way((product.function(named),), (tasks,), scratch(c.dtype, request.threads, plan.own))


def _columns(c: Contraction, plan: ColumnPlan, product: ColumnProduct, buffers: list[tuple[str, DType]]) -> _Way:
    """For one that lies product by product."""
    first = product.products([*((name, dtype, False) for name, dtype in buffers), ("sums", c.dtype, True)])
    second = product.total([*((name, dtype, name == "out") for name, dtype in buffers), ("sums", c.dtype, False)])
    rows = c.batch * c.places
    tasks = (plan.parts, -(-c.columns // RUN)) if rows else (0, 0)
    return _Way((first, second), tasks, scratch(c.dtype, plan.sums))
