"""A convolution, what follows it element by element, and the pool that reads the result, as one kernel.

Where the algorithm holds whole windows of results in registers or in a tile, they are pooled there (few columns:
:mod:`.narrow`, Winograd: :mod:`.winograd_code`).  The direct algorithm computes a band of rows, or a few images, into memory of
its thread, which stays in the cache, and pools from there.  Otherwise the result is a temporary between the phases of both.

The functions of convolution and pool are those of the kernels by themselves; functions in front of them hand over the buffers::

    conv_pool: for each of its tasks
        own = memory of the thread, moved so that the task's part of the result comes to lie in it
        conv(own, operands)
        max_pool(outputs, own)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from irconv.backends.arrays.base import scratch
from irconv.backends.arrays.lower import operand_ids
from irconv.backends.codegen.statements import Function
from irconv.backends.native.base import EXPORT, Candidate, NativeKernel, NativeRequest, Phase, native, native_kernel
from irconv.backends.native.kernels.contract import describe_conv, direct_kernel
from irconv.backends.native.kernels.contraction import Contraction
from irconv.backends.native.kernels.narrow import narrow_candidates, narrow_kernel
from irconv.backends.native.kernels.narrow_plan import Narrow
from irconv.backends.native.kernels.places import Place, Rows, can_vectorise
from irconv.backends.native.kernels.plan import Plan, plans
from irconv.backends.native.kernels.pool import pool_function
from irconv.backends.native.kernels.pooled import Pooled, make_pooled
from irconv.backends.native.kernels.winograd import winograd_candidates, winograd_kernel
from irconv.backends.native.kernels.winograd_plan import WinogradPlan
from irconv.graph import Node
from irconv.kernel import Kernel
from irconv.ops.window import Ints
from irconv.strides import Strides
from irconv.types import F32, F64, TensorType

POOLS = ("max_pool", "min_pool", "avg_pool", "argmax_pool", "argmin_pool")

NAME = "conv_pool"
"""What the functions of this module are called."""

PARAMETERS = "void *const *buffers, const int64_t *sizes, int64_t first, int64_t last, int64_t worker"


@native("conv_pool")
def conv_pool(request: NativeRequest) -> NativeKernel | None:
    """Convolution and pool; None where one of them has no code."""
    graph, kernel = request.graph, request.kernel
    (node,) = (graph[i] for i in kernel.nodes if graph[i].op.name == "conv")
    shapes = [operand.type.shape for operand in graph.operands(node)]
    types = {graph[i].type.dtype for i in (node.id, kernel.outputs[0])}
    if not types <= {F32, F64} or 0 in (*shapes[0][1:], *shapes[1], *graph[kernel.outputs[0]].type.shape[1:]):
        return None
    parts = _split(request, node)
    if operand_ids(graph, parts.conv.kernel) != kernel.inputs:
        return None
    return request.choose(request, _candidates(parts))


# --- both parts ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Parts:
    """Convolution and pool as requests of their own, with the value between them stored channels last.

    outer: the request for both;  value: id of what is pooled;  pooled: its windows, where tiles may be pooled at once.
    """

    outer: NativeRequest
    conv: NativeRequest
    pool: NativeRequest
    node: Node
    c: Contraction
    value: int
    pooled: Pooled | None

    @property
    def shape(self) -> Ints:
        """Of the value between the two."""
        return self.outer.graph[self.value].type.shape

    @property
    def kernel(self) -> Ints:
        """The extents of a window."""
        return tuple(self.outer.graph[self.pool.kernel.nodes[0]].attributes.kernel)

    @property
    def by_vectors(self) -> bool:
        """Whether the pool goes along the channels, so that its rows follow each other as those of the convolution do."""
        return can_vectorise(Place.of(self.pool, self.value, "in0"), self.outer.graph, self.pool.kernel)


def _split(request: NativeRequest, node: Node) -> _Parts:
    graph, kernel = request.graph, request.kernel
    pools = tuple(i for i in kernel.nodes if graph[i].op.name in POOLS)
    others = tuple(i for i in kernel.nodes if i not in pools)
    value = graph[pools[0]].operands[0]
    strides = {**request.strides, **dict.fromkeys(others, _channels_last(graph[value].type.shape))}
    kind = "conv_epilogue" if len(others) > 1 else "conv"
    conv = replace(request, kernel=Kernel(kernel.name, kind, others, kernel.inputs, (value,)), strides=strides)
    pool = replace(request, kernel=Kernel(kernel.name, "pool", pools, (value,), kernel.outputs), strides=strides)
    dtype = graph[value].type.dtype
    # tap numbers are kept in integers as wide as the values
    fits = dtype is node.type.dtype and all(graph[i].type.dtype.bytes <= dtype.bytes for i in kernel.outputs)
    return _Parts(request, conv, pool, node, describe_conv(conv, node), value, make_pooled(pool) if fits else None)


def _channels_last(shape: Ints) -> Strides:
    """Element strides of [N, C, *S] stored as [N, *S, C]."""
    spatial = [shape[1] * math.prod(shape[axis + 1 :]) for axis in range(2, len(shape))]
    return (shape[1] * math.prod(shape[2:]), 1, *spatial)


def _candidates(p: _Parts) -> list[Candidate]:
    """The ways to convolve, each with the pool behind it, the likeliest first."""
    few, tried = narrow_candidates(p.conv, p.node, p.c, p.pooled) if p.pooled is not None else ([], [])
    if not few and not tried:
        few, tried = narrow_candidates(p.conv, p.node, p.c, kernel=partial(_narrow, p))
    preferred, others = winograd_candidates(p.conv, p.node, p.c, partial(_winograd, p))
    direct = [Candidate(plan.name, partial(_banded, p, plan)) for plan in plans(p.c, p.conv.machine, coarse=True)]
    return [*few, *preferred, *direct, *tried, *others]


def _narrow(p: _Parts, request: NativeRequest, node: Node, c: Contraction, plan: Narrow) -> NativeKernel | None:
    """With pixels in the lanes of vectors, where windows do not fit into its tiles."""
    return _in_phases(p, partial(narrow_kernel, request, node, c, plan))


def _winograd(p: _Parts, request: NativeRequest, node: Node, c: Contraction, plan: WinogradPlan) -> NativeKernel | None:
    """By Winograd's algorithm, pooled tile by tile where they are whole windows."""
    if p.pooled is not None and all(plan.outputs % extent == 0 for extent in p.pooled.kernel):
        return winograd_kernel(request, node, c, plan, p.pooled)
    return _in_phases(p, partial(winograd_kernel, request, node, c, plan))


def _in_phases(p: _Parts, make: Callable[..., NativeKernel | None]) -> NativeKernel | None:
    """The convolution that ``make`` gives, then the pool, with the whole result between them."""
    pool = _Pool(*pool_function(p.pool))
    conv = make(also=[pool.function])
    if conv is None:
        return None
    phases = [*(_handed(p, conv, phase) for phase in conv.phases), _pooled_alone(p, conv, pool)]
    batch, columns, *spatial = p.shape
    return _composed(p, conv, pool, phases, scratch(p.c.dtype, batch, *spatial, columns))


# --- band by band ----------------------------------------------------------------------------------------------------------


def _banded(p: _Parts, plan: Plan) -> NativeKernel | None:
    """By the direct algorithm: a task pools what it has computed; in phases where no task holds whole windows of all columns."""
    cut = _band(p, plan)
    if cut is None:
        return _in_phases(p, partial(direct_kernel, p.conv, p.node, p.c, plan))
    plan, images, lines = cut

    def whole(rows: Rows) -> Rows:
        of_image = math.prod(rows.outer) * (1 if rows.lanes > 1 else rows.channels)
        return replace(rows, step=images * of_image if images else of_image * lines // p.shape[2], parts=1)

    pool = _Pool(*pool_function(p.pool, whole))
    conv = direct_kernel(p.conv, p.node, p.c, plan, also=[pool.function])
    if conv is None:
        return None
    size = plan.chunk * p.c.columns
    phases = [*(_handed(p, conv, phase) for phase in conv.phases[:-1]), _in_turn(p, conv, pool, size * p.c.dtype.bytes)]
    return _composed(p, conv, pool, phases, scratch(p.c.dtype, p.conv.threads, size))


def _band(p: _Parts, plan: Plan) -> tuple[Plan, int, int] | None:
    """The plan with tasks of so many whole images, or (0 images) of so many rows of one, if their results stay in a cache."""
    c, size, high = p.c, p.shape[2], p.kernel[0]
    if c.groups or plan.task_blocks < plan.blocks:
        return None
    room = p.conv.machine.cache_bytes // 2 // (c.columns * c.dtype.bytes)
    images = min(max(1, plan.chunk // c.places), room // c.places)
    if images and plan.chunk * 2 > c.places:
        return replace(plan, chunk=images * c.places), images, 0
    line = c.places // size
    heights = [n for n in range(high, size + 1, high) if size % n == 0 and n * line <= room]
    if not heights or len(c.axes) < 2 or not p.by_vectors:
        return None
    lines = min(heights, key=lambda n: abs(math.log(n * line / plan.chunk)))
    return replace(plan, chunk=lines * line), 0, lines


# --- functions that hand over -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Text:
    """A C function that is one phase of the kernel."""

    phase: Phase
    code: str


@dataclass(frozen=True)
class _Pool:
    """The function of the pool, and its rows of windows."""

    function: Function
    rows: Rows


def _buffers(p: _Parts, conv: NativeKernel, value: str) -> str:
    """The convolution's buffers, among those of the whole; ``value``: where it puts its result."""
    outputs = len(p.outer.kernel.outputs)
    count = len(p.outer.kernel.inputs) + len(conv.scratch)
    return ", ".join([value, *(f"buffers[{outputs + number}]" for number in range(count))])


def _value(p: _Parts, conv: NativeKernel) -> str:
    """The temporary between convolution and pool: the last of all buffers."""
    return f"buffers[{len(p.outer.kernel.outputs) + len(p.outer.kernel.inputs) + len(conv.scratch)}]"


def _windows(p: _Parts, value: str) -> str:
    """The pool's buffers, among those of the whole."""
    return ", ".join([*(f"buffers[{number}]" for number in range(len(p.outer.kernel.outputs))), value])


def _handed(p: _Parts, conv: NativeKernel, phase: Phase) -> _Text:
    """A phase of the convolution by itself."""
    name = f"{NAME}_{phase.function}"
    lines = [
        f"  void *const handed[] = {{{_buffers(p, conv, _value(p, conv))}}};",
        f"  {phase.function}(handed, sizes, first, last, worker);",
    ]
    return _text(name, phase.tasks, lines)


def _in_turn(p: _Parts, conv: NativeKernel, pool: _Pool, bytes_: int) -> _Text:
    """The last phase of the convolution and the pool, task by task, with ``bytes_`` of the thread between them."""
    sums = conv.phases[-1]
    lines = [
        "  for (int64_t task = first; task < last; task++) {",
        f"    void *const own = (void *)((uintptr_t){_value(p, conv)} + (uintptr_t)((worker - task) * {bytes_}));",
        f"    void *const handed[] = {{{_buffers(p, conv, 'own')}}};",
        f"    {sums.function}(handed, sizes, task, task + 1, worker);",
        f"    void *const windows[] = {{{_windows(p, 'own')}}};",
        f"    {pool.function.name}(windows, sizes + {len(conv.sizes)}, task, task + 1, worker);",
        "  }",
    ]
    return _text(NAME, sums.tasks, lines)


def _pooled_alone(p: _Parts, conv: NativeKernel, pool: _Pool) -> _Text:
    """The pool as a phase of its own."""
    lines = [
        f"  void *const windows[] = {{{_windows(p, _value(p, conv))}}};",
        f"  {pool.function.name}(windows, sizes + {len(conv.sizes)}, first, last, worker);",
    ]
    return _text(NAME, pool.rows.tasks, lines)


def _text(name: str, tasks: int, lines: Sequence[str]) -> _Text:
    return _Text(Phase(name, tasks), "\n".join([f"{EXPORT} void {name}({PARAMETERS}) {{", *lines, "}"]))


def _composed(p: _Parts, conv: NativeKernel, pool: _Pool, phases: Sequence[_Text], between: TensorType) -> NativeKernel:
    """The kernel of these phases; ``conv.source`` holds the functions that they call."""
    more = len(p.outer.kernel.outputs) - 1
    prepared = (replace(each, operand=each.operand + more, scratch=each.scratch + more) for each in conv.prepared)
    return native_kernel(
        "\n".join([conv.source, *(f"{each.code}\n" for each in phases)]),
        tuple(each.phase for each in phases),
        (*conv.sizes, pool.rows.count),
        (*conv.scratch, between),
        machine=conv.machine,
        prepared=tuple(prepared),
    )
