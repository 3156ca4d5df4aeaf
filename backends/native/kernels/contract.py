"""Convolution, transposed convolution and matrix product, alone or with an epilogue, as kernels.

Phases: the weight is packed (once, where it is constant), the input copied where that pays, then the sums.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

from irconv.backends.arrays.base import scratch
from irconv.backends.arrays.lower import operand_ids
from irconv.backends.codegen.c import print_c
from irconv.backends.codegen.form import INDEX, Pointer, Variable, literal
from irconv.backends.codegen.statements import Function
from irconv.backends.native.base import Candidate, NativeKernel, NativeRequest, Phase, Prepared, native, native_kernel
from irconv.backends.native.kernels.contraction import Contraction, Group, forward_axis, transposed_axis
from irconv.backends.native.kernels.depthwise import depthwise, row_major_throughout
from irconv.backends.native.kernels.direct import Direct, Names
from irconv.backends.native.kernels.epilogue import make_epilogue, nodes_ahead
from irconv.backends.native.kernels.narrow import narrow_candidates
from irconv.backends.native.kernels.packing import (
    copied,
    copied_shape,
    copy_tasks,
    pack_weight,
    packed_size,
    zero_row,
)
from irconv.backends.native.kernels.plain_contraction import plain_contraction
from irconv.backends.native.kernels.plan import TABLE, Plan, plans
from irconv.backends.native.kernels.prologue import STAGE, Stage, input_copy, is_staged, make_prologue, with_copy
from irconv.backends.native.kernels.strips import PARTS
from irconv.backends.native.kernels.tap_columns import tap_candidates
from irconv.backends.native.kernels.unpacked import unpacked_candidates
from irconv.backends.native.kernels.winograd import winograd_candidates
from irconv.graph import Node
from irconv.types import F32, F64, TensorType

MOST_ZEROS = 1 << 16
"""Elements that the row of zeros may have."""


@native("conv", "conv_epilogue", "conv_prologue", "conv_statistics")
def conv(request: NativeRequest) -> NativeKernel | None:
    """A convolution; None for a group per channel, which has a kernel of its own, and for empty images."""
    return _contract(request, "conv", describe_conv)


@native("conv_transpose", "conv_transpose_epilogue", "conv_transpose_prologue", "conv_transpose_sums")
def conv_transpose(request: NativeRequest) -> NativeKernel | None:
    """A transposed convolution, or the gradient of a convolution by its input; None as for :func:`conv`."""
    return _contract(request, "conv_transpose", describe_conv_transpose)


@native("matmul", "matmul_epilogue", "matmul_prologue")
def matmul(request: NativeRequest) -> NativeKernel | None:
    """A product of matrices, or of batches of them; None for empty ones."""
    return _contract(request, "matmul", _matmul)


def _contract(
    request: NativeRequest, op: str, describe: Callable[[NativeRequest, Node], Contraction]
) -> NativeKernel | None:
    graph = request.graph
    (node,) = (graph[i] for i in request.kernel.nodes if graph[i].op.name == op)
    x, w = (operand.type for operand in graph.operands(node))
    if node.type.dtype not in (F32, F64) or 0 in (*x.shape[1:], *w.shape, *node.type.shape[1:]):
        return None if nodes_ahead(graph, request.kernel, node.id) else plain_contraction(request, node)
    c = describe(request, node)
    if c.group_count > 1 and c.channels == 1 and op != "matmul":
        made = depthwise(request)
        if made is not None or (row_major_throughout(request, node) and not request.alone):
            return made
    return request.choose(request, _candidates(request, node, c))


def _candidates(request: NativeRequest, node: Node, c: Contraction) -> list[Candidate]:
    """The ways to compute a contraction, the likeliest first."""
    coarse = len(request.kernel.outputs) > 1 or bool(nodes_ahead(request.graph, request.kernel, node.id))
    found = plans(c, request.machine, coarse)
    direct = [Candidate(plan.name, partial(direct_kernel, request, node, c, plan)) for plan in found]
    unpacked = unpacked_candidates(request, node, c, partial(direct_kernel, request, node, c, found[0]))
    few, tried = narrow_candidates(request, node, c)
    by_taps, perhaps = tap_candidates(request, node, c)
    preferred, others = winograd_candidates(request, node, c)
    likeliest = [*by_taps, *few, *preferred] if few else [*preferred, *by_taps]
    return [*likeliest, *unpacked, *direct, *perhaps, *tried, *others]


def direct_kernel(
    request: NativeRequest, node: Node, c: Contraction, plan: Plan, also: Sequence[Function] = ()
) -> NativeKernel | None:
    """The kernel of the direct algorithm.  ``also``: functions to stand in the same source."""
    ahead = nodes_ahead(request.graph, request.kernel, node.id)
    is_computed = bool(ahead) and is_staged(c)
    if ahead and not is_computed:
        if c.has_residues or c.long:
            return None
        plan = with_copy(plan)
    if plan.table and (plan.pixels * c.most_taps > TABLE or zero_row(c) > MOST_ZEROS):
        return None
    operands = operand_ids(request.graph, request.kernel)
    x, w = node.operands
    if len(request.kernel.nodes) > 1 and x == w:
        return None
    names = [f"operand{i}" for i in range(len(operands))]
    names[len(operands) - 1 - operands[::-1].index(w)] = "w"
    if not ahead:
        names[operands.index(x)] = "x"
    types = [request.graph[i].type.dtype for i in operands]
    pointers = {i: Pointer(name, dtype) for i, name, dtype in zip(operands, names, types, strict=True)}
    epilogue = make_epilogue(request, node.id, pointers, plan.lanes)
    if epilogue is None or (epilogue.statistics is not None and c.has_residues):
        return None
    prologue = make_prologue(request, node.id, pointers, plan.lanes)
    stage = Stage(c, plan, prologue) if prologue is not None and is_computed else None
    result = request.graph[epilogue.result].type.dtype
    temporaries = ["packed", *(["padded"] if plan.copied else []), *([] if stage is None else ["staged"])]
    further = epilogue.further
    buffers = [("out", result), *further.outputs, *zip(names, types, strict=True)]
    buffers += [*((name, c.dtype) for name in temporaries), *further.temporaries]
    sizes = ["batch"] + ["outer"] * c.outer + ["channels"] * c.long
    numbers = [c.batch] + ([c.groups[0].count] if c.outer else []) + [c.channels] * c.long
    if stage is not None:
        sizes, numbers = [*sizes, STAGE], [*numbers, stage.memory]
    sizes += further.sizes
    batch = Variable("batch", INDEX)
    channels = Variable("channels", INDEX) if c.long else literal(c.channels)
    functions, phases = [], []

    def typed(*written: str) -> tuple:
        return tuple((name, dtype, name in written) for name, dtype in buffers)

    functions.append(pack_weight(c, plan, typed("packed"), sizes, channels))
    phases.append(Phase(functions[-1].name, c.group_count * plan.blocks))
    inner = copied(c, plan) if plan.copied else c if stage is None else stage.staged
    if plan.copied:
        functions.append(input_copy(c, plan, prologue).function(typed("padded"), sizes, batch))
        phases.append(Phase(functions[-1].name, copy_tasks(c, plan)[0]))
    source = "staged" if stage is not None else "padded" if plan.copied else "x"
    made = Names(typed("out", "staged", PARTS), tuple(sizes), source, Pointer("out", result), batch, channels)
    functions.append(Direct(inner, plan, epilogue, made, stage).function())
    chunks = -(-c.batch * c.places // plan.chunk)
    phases.append(Phase(c.name, chunks * c.group_count * -(-plan.blocks // plan.task_blocks)))
    results = 1 + len(further.outputs)
    kept: list[TensorType] = [scratch(c.dtype, packed_size(c, plan))]
    if plan.copied:
        kept.append(scratch(c.dtype, *copied_shape(c, plan)))
    if stage is not None:
        kept.append(stage.scratch(request.threads))
    addition = epilogue.addition(chunks, typed(*(name for name, _ in further.outputs)), sizes)
    functions += addition.functions
    phases += addition.phases
    numbers += addition.numbers
    kept += addition.scratch
    prepared = () if c.long else (Prepared(results + operands.index(w), results + len(operands), 0),)
    return native_kernel(
        print_c([*functions, *also]), tuple(phases), tuple(numbers), tuple(kept), machine=request.machine, prepared=prepared
    )


# --- what is summed ------------------------------------------------------------------------------------------------------


def describe_conv(request: NativeRequest, node: Node) -> Contraction:
    """A convolution as a contraction."""
    x, w = (operand.type.shape for operand in request.graph.operands(node))
    a = node.attributes
    axes = tuple(
        forward_axis(x[i + 2], node.type.shape[i + 2], w[i + 2], a.stride[i], a.dilation[i], a.padding[i][0])
        for i in range(len(w) - 2)
    )
    return _image(request, node, "conv", axes, w[1], w[0] // a.groups, (1, 0))


def describe_conv_transpose(request: NativeRequest, node: Node) -> Contraction:
    """A transposed convolution as a contraction."""
    x, w = (operand.type.shape for operand in request.graph.operands(node))
    a = node.attributes
    axes = tuple(
        transposed_axis(x[i + 2], node.type.shape[i + 2], w[i + 2], a.stride[i], a.dilation[i], a.padding[i])
        for i in range(len(w) - 2)
    )
    return _image(request, node, "conv_transpose", axes, w[0] // a.groups, w[1], (0, 1))


def _image(
    request: NativeRequest,
    node: Node,
    name: str,
    axes: tuple,
    channels: int,
    columns: int,
    w_axes: tuple[int, int],
) -> Contraction:
    """A contraction over images; ``w_axes``: the weight's axes of channels and columns."""
    x, w = (request.strides[i] for i in node.operands)
    w_channel, w_column = (w[axis] for axis in w_axes)
    groups = node.attributes.groups
    # groups lie along the first axis of the weight
    between = (channels if w_axes[0] == 0 else columns) * w[0]
    rank = len(axes)
    return Contraction(
        name,
        node.type.dtype,
        node.type.shape[0],
        axes,
        channels,
        columns,
        (x[0], *x[2:]),
        x[1] if channels > 1 else 1,
        tuple(w[2:]),
        w_channel,
        w_column,
        (0, *range(2, rank + 2)),
        1,
        (Group(groups, channels * x[1], between, (1, columns)),) if groups > 1 else (),
    )


def _matmul(request: NativeRequest, node: Node) -> Contraction:
    left, right = (operand.type.shape for operand in request.graph.operands(node))
    shape = node.type.shape
    rank = len(shape)
    x, w = (_batch_strides(s, request.strides[i], shape) for s, i in zip((left, right), node.operands, strict=True))
    # a batch of one is a batch, so that its code serves others
    shared = all(n == 1 for n in right[:-2]) and (len(right) == 2 or math.prod(shape[:-2]) > 1)
    repeated = 0 if shared else rank - 2
    groups = tuple(Group(shape[axis], x[axis], w[axis], (axis, 1)) for axis in range(repeated))
    pixel_axes = tuple(range(repeated, rank - 1))
    axes = tuple(forward_axis(shape[axis], shape[axis], 1, 1, 1, 0) for axis in pixel_axes[1:])
    return Contraction(
        "matmul",
        node.type.dtype,
        shape[pixel_axes[0]],
        axes,
        left[-1],
        shape[-1],
        tuple(x[axis] for axis in pixel_axes),
        x[-1],
        (0,) * len(axes),
        w[-2],
        w[-1],
        pixel_axes,
        rank - 1,
        groups,
        outer=bool(groups),
        long=x[-1] != 1,
    )


def _batch_strides(operand: Sequence[int], strides: Sequence[int], shape: Sequence[int]) -> list[int]:
    """Strides by the axes of the product: 0 along those that the operand is repeated over."""
    lead = [s if n == m else 0 for n, s, m in zip(operand[-3::-1], strides[-3::-1], shape[-3::-1], strict=False)]
    return [0] * (len(shape) - len(operand)) + lead[::-1] + list(strides[-2:])
