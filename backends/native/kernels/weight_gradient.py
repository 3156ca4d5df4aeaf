"""The weight gradient of convolution (kind ``conv_weight_gradient``): no columns are made at all.

Tiles of broadcast channels times vectors of channels run over the places where both operands exist, so that padding costs
nothing; see :mod:`irconv.backends.native.kernels.weight_gradient_plan`.  Few output channels:
:mod:`irconv.backends.native.kernels.weight_gradient_taps_plan`.  3x3 windows of many channels:
:mod:`irconv.backends.native.kernels.winograd_gradient`.  float32 and float64; d must be arranged by the views that the gradient
of ``conv`` puts before it.
"""

from __future__ import annotations

from functools import partial

from irconv.backends.codegen.c import print_c
from irconv.backends.codegen.form import Pointer
from irconv.backends.native.base import Candidate, NativeKernel, NativeRequest, Phase, native, native_kernel
from irconv.backends.native.kernels.depthwise_gradient import depthwise_gradient
from irconv.backends.native.kernels.weight_gradient_code import (
    MultiplyCode,
    Names,
    aligned,
    copy_elements,
)
from irconv.backends.native.kernels.weight_gradient_plan import (
    Plan,
    Problem,
    elements_of_row,
    flattened,
    make_cut,
    make_plan,
    plans,
)
from irconv.backends.native.kernels.weight_gradient_sum import add_function
from irconv.backends.native.kernels.weight_gradient_taps import taps_gradient
from irconv.backends.native.kernels.weight_gradient_taps_plan import taps_plan
from irconv.backends.native.kernels.winograd_gradient import winograd_gradient
from irconv.backends.native.kernels.winograd_gradient_plan import best_gradient_plan
from irconv.ops.window import window_counts
from irconv.strides import Strides, is_contiguous, row_major
from irconv.types import F32, F64, TensorType


@native("conv_weight_gradient")
def weight_gradient(request: NativeRequest) -> NativeKernel | None:
    """The generator; None for other element types and for a d that is arranged in another way."""
    found = problem_of(request)
    if found is None:
        return None
    problem, d, x = found
    if problem.groups > 1 and problem.rows == problem.depth == 1:
        made = depthwise_gradient(request, problem, d, x)
        if made is not None:
            return made
    p = flattened(problem)
    candidates = [
        Candidate(plan.name, partial(_by_plan, request, p, plan, d, x)) for plan in plans(p, request.machine)
    ]
    taps = taps_plan(p, request.machine, make_plan(p, request.machine))
    if taps is not None:
        make = partial(taps_gradient, request, p, taps, names_of_inputs(request, d, x), d, x)
        candidates.insert(0 if taps.is_preferred else len(candidates), Candidate(taps.name, make))
    faster = None if request.strict else best_gradient_plan(problem, request.machine)
    if faster is not None:
        make = partial(winograd_gradient, request, problem, faster, names_of_inputs(request, d, x), d, x)
        candidates.insert(0, Candidate("Winograd", make))
    return request.choose(request, candidates)


def names_of_inputs(request: NativeRequest, d: int, x: int) -> dict[int, str]:
    """What the code calls the kernel's inputs, by id."""
    return {value: f"operand_{i}" for i, value in enumerate(request.kernel.inputs)} | {d: "d", x: "x"}


def _by_plan(request: NativeRequest, p: Problem, plan: Plan, d: int, x: int) -> NativeKernel:
    """The kernel by this plan, from the values d and x."""
    cut = make_cut(p, plan)
    kernel = request.kernel
    slots = names_of_inputs(request, d, x)
    blocks = p.groups * plan.blocks
    copies = aligned(sum(copy_elements(p, plan)))
    scratch = [TensorType(p.dtype, (cut.splits, blocks, elements_of_row(p, plan), plan.width))]
    buffers = [("gradient", p.dtype, True)]
    buffers += [(slots[i], request.graph[i].type.dtype, False) for i in kernel.inputs]
    buffers.append(("partial", p.dtype, True))
    if copies:
        scratch.append(TensorType(p.dtype, (request.threads, copies)))
        buffers.append(("scratch", p.dtype, True))
    names = Names(*(Pointer(name, p.dtype) for name in ("gradient", slots[d], slots[x], "partial", "scratch")))
    functions = [MultiplyCode(p, plan, names).function(tuple(buffers)), add_function(p, plan, names, tuple(buffers))]
    phases = (Phase(functions[0].name, cut.splits * blocks * cut.ranges), Phase(functions[1].name, cut.sums))
    sizes = (p.batch, cut.chunks, cut.splits, cut.ranges, cut.sums)
    return native_kernel(print_c(functions), phases, sizes, tuple(scratch), machine=request.machine)


def problem_of(request: NativeRequest) -> tuple[Problem, int, int] | None:
    """The kernel's problem and the ids of d and x; None where there is no code."""
    graph, kernel = request.graph, request.kernel
    by_op = {graph[i].op.name: graph[i] for i in kernel.nodes}
    product, columns = by_op["matmul"], by_op["im2col"]
    a, x = columns.attributes, graph[columns.operands[0]]
    dtype = product.type.dtype
    if dtype not in (F32, F64):
        return None
    counts = window_counts(x.type.shape[2:], a.kernel, a.stride, a.padding, a.dilation)
    d = _source_of_d(request, product.operands[0], (x.type.shape[0], a.groups * product.type.shape[1], *counts))
    out = _gradient_strides(request, product.type.shape[1], x.type.shape[1] // a.groups, a.groups, a.kernel)
    if d is None or out is None:
        return None
    problem = Problem(
        dtype=dtype,
        batch=x.type.shape[0],
        groups=a.groups,
        rows=product.type.shape[1],
        depth=x.type.shape[1] // a.groups,
        size=x.type.shape[2:],
        counts=counts,
        kernel=a.kernel,
        stride=a.stride,
        before=tuple(before for before, _ in a.padding),
        dilation=a.dilation,
        d_strides=request.strides[d],
        x_strides=request.strides[x.id],
        out_strides=out,
    )
    return problem, d, x.id


def _source_of_d(request: NativeRequest, value: int, shape: tuple[int, ...]) -> int | None:
    """The id of d [batch, channels, *counts] if the views before the product bring its channels first, else None."""
    graph, members, names = request.graph, set(request.kernel.nodes), []
    while value in members:
        node = graph[value]
        names.append((node.op.name, getattr(node.attributes, "axes", None)))
        value = node.operands[0]
    turned = ("transpose", (1, 0, *range(2, len(shape))))
    # for one sample of one spatial axis and one channel a group there is nothing to reshape
    arranged = names == [("reshape", None), turned] or names == [turned]
    return value if arranged and graph[value].type.shape == shape else None


def _gradient_strides(request: NativeRequest, rows: int, depth: int, groups: int, kernel: tuple[int, ...]) -> Strides | None:
    """Strides of the result seen as [groups, rows, depth, *kernel], None if it is no such view."""
    (out,) = request.kernel.outputs
    shape, strides = request.graph[out].type.shape, request.strides[out]
    if shape == (groups * rows, depth, *kernel):
        return (rows * strides[0], *strides)
    if is_contiguous(shape, strides):
        return row_major((groups, rows, depth, *kernel))
    return None
