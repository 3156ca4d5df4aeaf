"""Both gradients of a depthwise convolution in one pass over the image (:mod:`irconv.passes.depthwise_backward`).

A task goes down a band of rows of x.  A pixel q of x and a pixel p of d have to do with each other where ``q = p stride + t -
before`` for a tap t, and then ``g[q] += d[p] w[t]`` and ``dw[t] += d[p] x[q]``: one load of d serves both.  Vectors run along the
channels; a tile of neighbouring pixels of g and the taps of a row are in registers::

    for the rows of a band:
        the rows of d that it is the first to need, into a ring of rows of the thread, where d has to be computed
        for tiles of pixels, for vectors of channels:
            x of the tile, computed where it has to be
            for the rows of d that see this row: g and dw of the tile;  dw to the sums of the task
            the work on g, its result, and what is summed of it, to the sums of the task

A last phase adds the sums of all tasks in order, so that neither threads nor the order of tasks change a bit.

With d and x computed and the sums of batch norm it is 1.1 to 2 times as fast as a kernel for d, one for g and one for dw
(MobileNet-V2, batch 8, one thread and two): of 7 transfers of images 4 are left, and a core is busy with those three quarters of
the time.  To make d tile by tile, to ask for its next row early, or to write g past the caches changed nothing.
"""

from __future__ import annotations

from irconv.backends.arrays.base import scratch
from irconv.backends.arrays.lower import operand_ids
from irconv.backends.codegen.body import Body
from irconv.backends.codegen.c import print_c
from irconv.backends.codegen.form import INDEX, Expression, Pointer, Variable, as_expression, load
from irconv.backends.codegen.statements import Function
from irconv.backends.native.base import NativeKernel, NativeRequest, Phase, Prepared, native, native_kernel
from irconv.backends.native.kernels.depthwise_backward_code import PACKED, PARTIAL, RING, RowCode
from irconv.backends.native.kernels.depthwise_backward_plan import Layout, geometry_of, parts_of, roles_of
from irconv.backends.native.kernels.packing import Buffers
from irconv.backends.native.kernels.reduction_loops import each_row, paired

TASKS = 4
"""Tasks whose sums are added side by side."""

SIZES = ("batch", "parts")


@native("depthwise_backward")
def depthwise_backward(request: NativeRequest) -> NativeKernel | None:
    """The kernel; None for images that are not stored channels last, and for work that there is no code for."""
    graph, machine = request.graph, request.machine
    roles = roles_of(request)
    geometry = None if roles is None else geometry_of(graph, roles)
    if roles is None or geometry is None:
        return None
    operands, outputs = operand_ids(graph, request.kernel), request.kernel.outputs
    dtype, lanes = geometry.dtype, machine.lanes(geometry.dtype.bytes)
    names = {i: f"operand{at}" for at, i in enumerate(operands)} | {i: f"result{at}" for at, i in enumerate(outputs)}
    pointers = {i: Pointer(name, graph[i].type.dtype) for i, name in names.items()}
    parts = parts_of(request, roles, pointers, lanes)
    if parts is None or geometry.channels < lanes:
        return None
    layout = Layout(geometry, roles, pointers, request.strides, lanes)

    def buffers(*written: str) -> Buffers:
        known = [(pointers[i].name, pointers[i].dtype) for i in (*outputs, *operands)]
        further = [(name, dtype) for name in (PACKED, PARTIAL, *((RING,) if roles.of_d else ()))]
        return [(name, type_, name in written) for name, type_ in [*known, *further]]

    tasks = geometry.batch * geometry.bands
    functions = [
        _pack(layout, buffers(PACKED)),
        RowCode(graph, layout, parts, machine).function(buffers(names[roles.result], PARTIAL, RING), SIZES),
        _total(layout, buffers(*(names[i] for i in (roles.gradient, *roles.sums)))),
    ]
    vectors = 1 if layout.is_ragged else layout.vectors
    phases = tuple(Phase(function.name, count) for function, count in zip(functions, (1, tasks, vectors), strict=True))
    kept = [scratch(dtype, geometry.taps, geometry.channels), scratch(dtype, tasks, layout.part)]
    if roles.of_d:
        kept.append(scratch(dtype, request.threads, geometry.held * geometry.row))
    prepared = Prepared(len(outputs) + operands.index(roles.w), len(outputs) + len(operands), 0)
    sizes = (geometry.batch, tasks)
    return native_kernel(print_c(functions), phases, sizes, tuple(kept), machine=machine, prepared=(prepared,))


def _pack(layout: Layout, buffers: Buffers) -> Function:
    """The weight, with the channels of a tap side by side."""
    body, g, w = Body(), layout.geometry, layout.roles.w
    by_channel, _, *steps = layout.strides[w]
    with body.tasks(), body.loop("i", 0, g.kernel[0]) as i, body.loop("j", 0, g.kernel[1]) as j:
        to = body.pointer("to", Pointer(PACKED, g.dtype), (i * g.kernel[1] + j) * g.channels)
        source = body.pointer("source", layout.pointers[w], i * steps[0] + j * steps[1])
        with body.loop("c", 0, g.channels) as c:
            body.store(to, c, load(source, c * by_channel))
    return body.function("depthwise_backward_pack", buffers, SIZES)


def _total(layout: Layout, buffers: Buffers) -> Function:
    """Adds the sums of the tasks.  A task of this phase is a vector of channels, or all of them if one repeats some."""
    body = Body()
    with body.tasks() as task:
        if layout.is_ragged:
            with body.loop("vector", 0, layout.vectors) as vector:
                _total_of(body, layout, vector)
        else:
            _total_of(body, layout, task)
    return body.function("depthwise_backward_total", buffers, SIZES)


def _total_of(body: Body, layout: Layout, vector: Expression) -> None:
    """The gradient of the weight and the sums, for a vector of channels."""
    g, lanes, roles = layout.geometry, layout.lanes, layout.roles
    by_channel, _, *steps = layout.strides[roles.gradient]
    channel = layout.channel(body, vector)
    held = body.array("held", g.dtype, lanes)
    with body.loop("i", 0, g.kernel[0]) as i, body.loop("j", 0, g.kernel[1]) as j:
        body.store(held, 0, _added(body, layout, (i * g.kernel[1] + j) * layout.stored + vector * lanes))
        to = body.let("to", channel * by_channel + i * steps[0] + j * steps[1])
        with body.loop("lane", 0, lanes) as lane:
            body.store(layout.pointers[roles.gradient], to + lane * by_channel, load(held, lane))
    for field, result in enumerate(roles.sums):
        total = _added(body, layout, (g.taps + field) * layout.stored + vector * lanes)
        body.store(layout.pointers[result], channel, total)


def _added(body: Body, layout: Layout, at: Expression) -> Expression:
    """What lies at this place of the sums of each task, every fourth added to the same of four."""
    column = body.pointer("column", Pointer(PARTIAL, layout.geometry.dtype), at)
    sums = [body.variable("sum", layout.zero) for _ in range(TASKS)]

    def add(part: Expression, count: int) -> None:
        for k in range(count):
            body.assign(sums[k], sums[k] + load(column, (part + k) * layout.part, layout.lanes))

    each_row(body, as_expression(Variable("parts", INDEX), INDEX), TASKS, add)
    return paired(body, lambda a, b: a + b, sums)
