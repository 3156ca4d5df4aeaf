"""3x3 convolution at stride 1 by Winograd's algorithm: transformed tiles, small products, tiles of the result.

::

    U = G w G'                      once per weight: [block of output channels][product][input channel][width]
    for a chunk of tiles:
        V = B' x B                  [product][tile][input channel]
        for the blocks of output channels:
            M = V U                 [product][tile][width], accumulators in registers as in the direct algorithm
            A' M A, the epilogue    per tile and vector; pixels beyond the border are left out

V and M stay in a core's second-level cache.  Tiles at the border are copied first, with zeros where there is no input.  Sums run
over the channels in order, tiles and pieces are independent of each other, so the result depends on neither tasks nor threads.

Rounding: with m = 4 the largest error is below 1e-5 of the largest of (|x| convolved with |w|), measured 2e-6 to 7e-6 of the
largest output on normal data; with m = 2 below 2e-6.  The direct algorithm has 3e-7.  A strict request does not come here.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from irconv.backends.arrays.base import scratch
from irconv.backends.arrays.lower import operand_ids
from irconv.backends.codegen.access import gather
from irconv.backends.codegen.body import WORKER, Body
from irconv.backends.codegen.c import print_c
from irconv.backends.codegen.form import (
    INDEX,
    Expression,
    Function,
    Literal,
    Pointer,
    Type,
    Variable,
    both,
    compare,
    literal,
    load,
    select,
    splat,
)
from irconv.backends.native.base import NativeKernel, NativeRequest, Phase, Prepared, native_kernel
from irconv.backends.native.kernels.contraction import Axis, Contraction
from irconv.backends.native.kernels.epilogue import Epilogue, make_epilogue
from irconv.backends.native.kernels.packing import least, unravel
from irconv.backends.native.kernels.winograd_plan import WinogradPlan, best_plan, cut
from irconv.backends.native.kernels.winograd_transforms import (
    input_transform,
    on_both_axes,
    output_transform,
    weight_transform,
)
from irconv.graph import Node
from irconv.types import F32, I64, DType

Buffers = tuple[tuple[str, DType, bool], ...]
SIZES = ("batch", "chunk", "parts", "workers")

HELD, HELD_STEP = Pointer("held", I64), 8
"""For each thread, a cache line apart, the number of the chunk whose transformed inputs it has in memory of its own."""

WEIGHT_CHANNELS = 32
"""Input channels of one block whose weights a task transforms."""


def winograd(request: NativeRequest, node: Node, c: Contraction) -> NativeKernel | None:
    """The kernel of a contraction by this algorithm; None where it does not apply or by estimate is not the fastest."""
    if request.strict:
        return None
    plan = best_plan(c, request.machine, prepares=not is_kept(request, node.operands[1]))
    return None if plan is None else winograd_kernel(request, node, c, plan)


def is_kept(request: NativeRequest, weight: int) -> bool:
    """Whether the transformed weight will serve many calls: it is a constant, or a state that nothing updates."""
    graph = request.graph
    return graph[weight].op.name == "constant" or (weight in graph.states and not graph.updates)


def winograd_kernel(request: NativeRequest, node: Node, c: Contraction, plan: WinogradPlan) -> NativeKernel | None:
    """The kernel by this plan; None where there is no code for the epilogue."""
    graph = request.graph
    operands = operand_ids(graph, request.kernel)
    x, w = node.operands
    if len(request.kernel.nodes) > 1 and x == w:
        return None
    names = [f"operand{i}" for i in range(len(operands))]
    weight_at = len(operands) - 1 - operands[::-1].index(w)
    names[weight_at] = "w"
    names[operands.index(x)] = "x"
    types = [graph[i].type.dtype for i in operands]
    pointers = {i: Pointer(name, dtype) for i, name, dtype in zip(operands, names, types, strict=True)}
    epilogue = make_epilogue(request, node.id, pointers, plan.lanes)
    if epilogue is None:
        return None
    result = graph[epilogue.result].type.dtype
    buffers = [("out", result), *zip(names, types, strict=True), ("weights", F32), ("own", F32), ("held", I64)]

    def written(*wanted: str) -> Buffers:
        return tuple((name, dtype, name in wanted) for name, dtype in buffers)

    code = _Winograd(c, plan, epilogue, Pointer("out", result))
    functions = [
        code.weights(written("weights")),
        code.start(written("held")),
        code.sums(written("out", "own", "held")),
    ]
    shares = cut(plan, c.batch)
    slices = -(-plan.channels // WEIGHT_CHANNELS)
    counts = (plan.blocks * slices, 1, shares.tasks)
    phases = tuple(Phase(function.name, tasks) for function, tasks in zip(functions, counts, strict=True))
    kept = (
        scratch(F32, plan.weight_elements),
        scratch(F32, request.threads, sum(plan.parts)),
        scratch(I64, request.threads, HELD_STEP),
    )
    return native_kernel(
        print_c(functions),
        phases,
        (c.batch, shares.chunk, shares.parts, request.threads),
        kept,
        machine=request.machine,
        prepared=(Prepared(weight_at, 0, 0),),
    )


@dataclass(frozen=True)
class _Winograd:
    """One convolution to be written."""

    c: Contraction
    plan: WinogradPlan
    epilogue: Epilogue
    out: Pointer

    @property
    def vector(self) -> Type:
        return Type(F32, self.plan.lanes)

    # --- weights ---------------------------------------------------------------------------------------------------------

    def weights(self, buffers: Buffers) -> Function:
        """Transform the weights; a task is some input channels of a block of output channels."""
        c, plan, body = self.c, self.plan, Body()
        source, target = Pointer("w", F32), Pointer("weights", F32)
        slices = -(-plan.channels // WEIGHT_CHANNELS)
        step = plan.channels * plan.width
        with body.tasks() as task:
            block, part = unravel(task, [0, slices])
            first = body.let("first_channel", part * WEIGHT_CHANNELS)
            last = body.let("last_channel", least(first + WEIGHT_CHANNELS, plan.channels))
            with body.loop("channel", first, last) as channel, body.loop("lane", 0, plan.width, plan.lanes) as lane:
                column = body.let("column", block * plan.width + lane)
                corner = body.let("corner", channel * c.w_channel + column * c.w_column)
                count = None
                if plan.columns % plan.width:
                    left = body.let("left", plan.columns - column)
                    count = body.let("count", select(left < 0, 0, least(left, plan.lanes)))
                place = body.let("place", block * (plan.products * step) + channel * plan.width + lane)
                on_both_axes(
                    body,
                    3,
                    lambda body, g: weight_transform(body, g, plan.inputs),
                    partial(self._weight, body, source, corner, count),
                    lambda number, value, place=place: body.store(target, place + number * step, value),
                )
        return body.function(f"{c.name}_winograd_weights", buffers, SIZES)

    def _weight(
        self, body: Body, source: Pointer, corner: Expression, count: Expression | None, i: int, j: int
    ) -> Expression:
        """A vector of the weights that meet row i and column j of the inputs."""
        c = self.c
        tap = (i if c.axes[0].tap_shift > 0 else 2 - i, j if c.axes[1].tap_shift > 0 else 2 - j)
        at = corner + sum(t * s for t, s in zip(tap, c.w_taps, strict=True))
        if c.w_column == 1:
            return body.let("g", load(source, at, self.plan.lanes, count))
        return body.let("g", gather(source, at, c.w_column, self.plan.lanes, count))

    # --- what each thread holds --------------------------------------------------------------------------------------------

    def start(self, buffers: Buffers) -> Function:
        """Note that no thread holds the transformed inputs of any chunk; one task."""
        body = Body()
        with body.tasks(), body.loop("thread", 0, Variable("workers", INDEX)) as thread:
            body.store(HELD, thread * HELD_STEP, literal(-1))
        return body.function(f"{self.c.name}_winograd_start", buffers, SIZES)

    # --- tiles -----------------------------------------------------------------------------------------------------------

    def sums(self, buffers: Buffers) -> Function:
        """Everything else; a task is a chunk of tiles for some blocks of output channels."""
        plan, body = self.plan, Body()
        batch, chunk, parts, _ = (Variable(name, INDEX) for name in SIZES)
        inputs, products, _ = plan.parts
        with body.tasks() as task:
            own = body.pointer("mine", Pointer("own", F32), WORKER * sum(plan.parts))
            v, m = body.pointer("v", own, 0), body.pointer("m", own, inputs)
            copied = body.pointer("copied", own, inputs + products)
            part = body.let("part", task % parts)
            number = body.let("number", task // parts)
            first = body.let("first_tile", number * chunk)
            count = body.let("tiles", least_of(batch * plan.tiles - first, chunk))
            padded = body.let("padded", (count + (plan.pixels - 1)) // plan.pixels * plan.pixels)
            with body.when(compare("!=", load(HELD, WORKER * HELD_STEP), number)):
                body.store(HELD, WORKER * HELD_STEP, number)
                with body.loop("tile", 0, count) as tile:
                    self._transform(body, first + tile, tile, v, copied)
                self._blank(body, count, padded, v)
            start = body.let("first_block", part * plan.blocks // parts)
            stop = body.let("last_block", (part + 1) * plan.blocks // parts)
            with body.loop("block", start, stop) as block:
                with body.loop("k", 0, plan.products) as k:
                    self._product(body, block, k, padded, v, m)
                with body.loop("tile", 0, count) as tile:
                    self._result(body, block, first + tile, tile, m)
        return body.function(f"{self.c.name}_winograd", buffers, SIZES)

    def _blank(self, body: Body, count: Expression, padded: Expression, v: Pointer) -> None:
        """Zeros for the tiles that fill up the last group of accumulators."""
        plan = self.plan
        with body.loop("blank", count, padded) as tile, body.loop("k", 0, plan.products) as k:
            with body.loop("channel", 0, plan.channels) as channel:
                body.store(v, k * plan.input_step + tile * plan.channels + channel, Literal(0.0, Type(F32)))

    def _place(self, body: Body, tile: Expression) -> tuple[Expression, Expression, Expression]:
        """The image of a tile, and the first row and column of its outputs."""
        image, row, column = unravel(body.let("place", tile), [0, self.plan.down, self.plan.along])
        image = body.let("image", image)
        outputs = self.plan.outputs
        return image, body.let("row", row * outputs), body.let("column", column * outputs)

    def _transform(self, body: Body, number: Expression, tile: Expression, v: Pointer, copied: Pointer) -> None:
        """B' x B of one tile, all channels."""
        c, plan = self.c, self.plan
        image, row, column = self._place(body, number)
        top = body.let("top", row + low_end(c.axes[0]))
        left = body.let("left", column + low_end(c.axes[1]))
        source = Pointer("x", F32)
        corner = body.let("corner", image * c.x_strides[0] + top * c.x_strides[1] + left * c.x_strides[2])
        from_x = body.pointer("source", source, 0, mutable=True)
        down, along = (body.variable(name, literal(s)) for name, s in zip(("down", "along"), c.x_strides[1:], strict=True))
        conditions = [
            limit
            for at, axis in ((top, c.axes[0]), (left, c.axes[1]))
            for limit in (at >= 0, at + plan.inputs <= axis.size)
        ]
        inside = conditions[0]
        for condition in conditions[1:]:
            inside = both(inside, condition)
        with body.when(inside):
            body.move(from_x, source, corner)
        with body.otherwise():
            self._copy_tile(body, corner, top, left, copied)
            body.move(from_x, copied, 0)
            body.assign(down, literal(plan.inputs * plan.channels))
            body.assign(along, literal(plan.channels))
        whole = plan.channels // plan.lanes * plan.lanes
        if whole:
            with body.loop("channel", 0, whole, plan.lanes) as channel:
                self._transform_vector(body, from_x, (down, along), tile, channel, None, v)
        if whole < plan.channels:
            self._transform_vector(body, from_x, (down, along), tile, literal(whole), plan.channels - whole, v)

    def _transform_vector(
        self,
        body: Body,
        source: Pointer,
        strides: tuple[Expression, Expression],
        tile: Expression,
        channel: Expression,
        count: int | None,
        v: Pointer,
    ) -> None:
        plan = self.plan
        down, along = strides
        starts = [body.let("start", down * i + channel) for i in range(plan.inputs)]
        place = body.let("place", tile * plan.channels + channel)
        on_both_axes(
            body,
            plan.inputs,
            input_transform,
            lambda i, j: body.let("d", load(source, starts[i] + along * j, plan.lanes, count)),
            lambda number, value: body.store(v, place + number * plan.input_step, value, count),
        )

    def _copy_tile(
        self, body: Body, corner: Expression, top: Expression, left: Expression, copied: Pointer
    ) -> None:
        """The inputs of a tile at the border, with zeros around."""
        c, plan = self.c, self.plan
        with body.loop("i", 0, plan.inputs) as i, body.loop("j", 0, plan.inputs) as j:
            row, column = body.let("y", top + i), body.let("z", left + j)
            inside = both(both(row >= 0, row < c.axes[0].size), both(column >= 0, column < c.axes[1].size))
            place = body.let("place", (i * plan.inputs + j) * plan.channels)
            start = body.let("start", corner + i * c.x_strides[1] + j * c.x_strides[2])
            with body.when(inside), body.loop("channel", 0, plan.channels) as channel:
                body.store(copied, place + channel, load(Pointer("x", F32), start + channel))
            with body.otherwise(), body.loop("channel", 0, plan.channels) as channel:
                body.store(copied, place + channel, Literal(0.0, Type(F32)))

    def _product(
        self, body: Body, block: Expression, k: Expression, padded: Expression, v: Pointer, m: Pointer
    ) -> None:
        """One of the (m + 2)^2 products: tiles by channels times channels by a block of output channels."""
        plan = self.plan
        u = body.pointer("u", Pointer("weights", F32), (block * plan.products + k) * (plan.channels * plan.width))
        with body.loop("row", 0, padded, plan.pixels) as row:
            rows = body.pointer("rows", v, k * plan.input_step + row * plan.channels)
            target = body.pointer("target", m, k * plan.output_step + row * plan.width)
            zero = Literal(0.0, self.vector)
            sums = [[body.variable(f"sum{p}_{n}", zero) for n in range(plan.vectors)] for p in range(plan.pixels)]
            with body.loop("c", 0, plan.channels) as c:
                parts = [
                    body.let("weight", load(u, c * plan.width + n * plan.lanes, plan.lanes)) for n in range(plan.vectors)
                ]
                for p, accumulators in enumerate(sums):
                    value = body.let("value", splat(load(rows, c + p * plan.channels), plan.lanes))
                    for accumulator, weight in zip(accumulators, parts, strict=True):
                        body.assign(accumulator, accumulator + value * weight)
            for p, accumulators in enumerate(sums):
                for n, accumulator in enumerate(accumulators):
                    body.store(target, p * plan.width + n * plan.lanes, accumulator)

    def _result(self, body: Body, block: Expression, number: Expression, tile: Expression, m: Pointer) -> None:
        """A' M A of one tile and block, and what follows the convolution."""
        c, plan = self.c, self.plan
        image, row, column = self._place(body, number)
        height = body.let("height", least(literal(c.axes[0].only.count) - row, plan.outputs))
        length = body.let("length", least(literal(c.axes[1].only.count) - column, plan.outputs))
        kept = body.array("kept", F32, plan.outputs**2 * plan.lanes)
        with body.loop("lane", 0, plan.width, plan.lanes) as lane:
            output = body.let("output", block * plan.width + lane)

            def write(count: Expression | None) -> None:
                place = body.let("place", tile * plan.width + lane)
                on_both_axes(
                    body,
                    plan.inputs,
                    output_transform,
                    lambda i, j: body.let("p", load(m, place + (i * plan.inputs + j) * plan.output_step, plan.lanes)),
                    lambda number, value: body.store(kept, number * plan.lanes, value),
                )
                with body.loop("y", 0, height) as y, body.loop("z", 0, length) as z:
                    value = body.let("value", load(kept, (y * plan.outputs + z) * plan.lanes, plan.lanes))
                    self.epilogue.apply(body, value, [image, output, row + y, column + z], 1, count, self.out)

            if plan.columns % plan.width == 0:
                write(None)
            else:
                with body.when(output < plan.columns):
                    ragged = plan.columns % plan.lanes != 0
                    write(body.let("count", least(literal(plan.columns) - output, plan.lanes)) if ragged else None)


def low_end(axis: Axis) -> int:
    """Where the first output of an axis reads first."""
    return axis.only.shift + min(0, 2 * axis.tap_shift)


def least_of(a: Expression, b: Expression) -> Expression:
    """The smaller of two indices."""
    return select(a < b, a, b)
