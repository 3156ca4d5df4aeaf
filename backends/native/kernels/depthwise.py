"""Depthwise convolution and its transpose: every channel by itself, vectors along the channels.

See :mod:`irconv.backends.native.kernels.depthwise_plan` for how it goes by rows and tiles.  Weights are packed, once where they
are constant; what follows is computed on each pixel before it is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from irconv.backends.arrays.lower import operand_ids
from irconv.backends.codegen.body import Body
from irconv.backends.codegen.c import print_c
from irconv.backends.codegen.form import (
    INDEX,
    Expression,
    Literal,
    Pointer,
    Type,
    Variable,
    call,
    literal,
    load,
)
from irconv.backends.codegen.machine import Machine
from irconv.backends.codegen.statements import Function, PointerArray
from irconv.backends.native.base import NativeKernel, NativeRequest, Phase, Prepared, native_kernel
from irconv.backends.native.kernels.contraction import Residue, forward_axis, transposed_axis
from irconv.backends.native.kernels.depthwise_plan import (
    FEWEST_TAPS,
    Layer,
    Outer,
    Tile,
    first_channel,
    has_code,
    load_channels,
    output_row,
    rows_seen,
    tiles_of,
    uses_of,
)
from irconv.backends.native.kernels.depthwise_rows import ROWS, InputRows, input_rows
from irconv.backends.native.kernels.epilogue import Epilogue, make_epilogue, nodes_ahead
from irconv.backends.native.kernels.plan import even_share
from irconv.backends.native.kernels.prologue import STAGE, make_prologue
from irconv.backends.native.kernels.strips import PARTS
from irconv.graph import Node
from irconv.ops.window import Ints
from irconv.types import F32, F64, DType, TensorType

TASK_PRODUCTS = 250_000
"""Multiplications of a task, at most: 5 to 10 us."""

Buffers = tuple[tuple[str, DType, bool], ...]
BATCH = Variable("batch", INDEX)


def depthwise(request: NativeRequest) -> NativeKernel | None:
    """The kernel for ``groups`` equal to the input and output channels.

    None for several outputs for each channel, other element types, values stored row-major throughout, and extreme windows.
    """
    graph, operands = request.graph, operand_ids(request.graph, request.kernel)
    (node,) = (graph[i] for i in request.kernel.nodes if graph[i].op.name in ("conv", "conv_transpose"))
    x, w = node.operands
    channels = graph[x].type.shape[1]
    if node.attributes.groups != channels or node.type.shape[1] != channels or node.type.dtype not in (F32, F64):
        return None
    if row_major_throughout(request, node) or x == w:
        return None
    layer = depthwise_layer(request, node)
    lanes = request.machine.lanes(layer.dtype.bytes)
    if not has_code(layer, request.machine):
        return None
    names = [f"operand{i}" for i in range(len(operands))]
    names[len(operands) - 1 - operands[::-1].index(w)] = "w"
    ahead = nodes_ahead(graph, request.kernel, node.id)
    if not ahead:
        names[operands.index(x)] = "x"
    types = [graph[i].type.dtype for i in operands]
    pointers = {i: Pointer(name, dtype) for i, name, dtype in zip(operands, names, types, strict=True)}
    epilogue = make_epilogue(request, node.id, pointers, lanes)
    computed = input_rows(layer, make_prologue(request, node.id, pointers, lanes))
    if epilogue is None or (ahead and computed is None):
        return None
    out = Pointer("out", graph[epilogue.result].type.dtype)
    temporaries = [("packed", layer.dtype), *([] if computed is None else [(ROWS, layer.dtype)])]

    further = epilogue.further

    def buffers(*written: str) -> Buffers:
        parts = [(out.name, out.dtype), *further.outputs, *zip(names, types, strict=True), *temporaries]
        return tuple((name, dtype, name in written) for name, dtype in [*parts, *further.temporaries])

    sizes = ("batch", *([] if computed is None else [STAGE]), *further.sizes)
    code = DepthwiseCode(layer, request.machine, epilogue, out, computed)
    tasks = -(-layer.batch * layer.rows // code.task_rows)
    addition = epilogue.addition(tasks, buffers(*(name for name, _ in further.outputs)), sizes)
    functions = [pack_depthwise(layer, lanes, buffers("packed"), sizes), code.function(buffers("out", ROWS, PARTS), sizes)]
    phases = (Phase(functions[0].name, 1), Phase(functions[1].name, tasks), *addition.phases)
    packed = TensorType(layer.dtype, (layer.outer_taps, layer.width, layer.padded(lanes)))
    results = 1 + len(further.outputs)
    return native_kernel(
        print_c([*functions, *addition.functions]),
        phases,
        (layer.batch, *([] if computed is None else [computed.memory]), *addition.numbers),
        (packed, *([] if computed is None else [computed.scratch(request.threads)]), *addition.scratch),
        machine=request.machine,
        prepared=(Prepared(results + operands.index(w), results + len(operands), 0),),
    )


def row_major_throughout(request: NativeRequest, node: Node) -> bool:
    """Whether channels are neighbours neither in the input nor in the result: array kernels are as fast there."""
    return request.strides[node.operands[0]][1] != 1 and request.strides[request.kernel.outputs[0]][1] != 1


def depthwise_layer(request: NativeRequest, node: Node) -> Layer:
    """The convolution as the code here sees it."""
    x, w = request.graph.operands(node)
    a, size, kernel, counts = node.attributes, x.type.shape[2:], w.type.shape[2:], node.type.shape[2:]
    transposed = node.op.name == "conv_transpose"
    before: Ints = a.padding if transposed else tuple(before for before, _ in a.padding)
    every = size, counts, kernel, a.stride, a.dilation, before
    make = transposed_axis if transposed else forward_axis
    return Layer(
        dtype=node.type.dtype,
        batch=x.type.shape[0],
        channels=x.type.shape[1],
        outer=Outer.along(transposed, *(values[:-1] for values in every)),
        last=make(*(values[-1] for values in every)),
        width=kernel[-1],
        x_strides=request.strides[x.id],
        w_strides=request.strides[w.id],
    )


def pack_depthwise(layer: Layer, lanes: int, buffers: Buffers, sizes: Sequence[str]) -> Function:
    """Weights by taps, channels side by side."""
    body = Body()
    w, packed = Pointer("w", layer.dtype), Pointer("packed", layer.dtype)
    # w is [channels, 1, *taps]
    channel, _, *steps = layer.w_strides
    taps = [*(axis.taps for axis in layer.outer), layer.width]
    with body.tasks(), ExitStack() as loops:
        number, offset = literal(0), literal(0)
        at: Expression = number
        source: Expression = offset
        for count, step in zip(taps, steps, strict=True):
            tap = loops.enter_context(body.loop("tap", 0, count))
            at, source = at * count + tap, source + tap * step
        row = body.pointer("row", packed, at * layer.padded(lanes))
        from_ = body.pointer("from", w, source)
        with body.loop("c", 0, layer.channels) as c:
            body.store(row, c, load(from_, c * channel))
        if layer.padded(lanes) > layer.channels:
            with body.loop("c", layer.channels, layer.padded(lanes)) as c:
                body.store(row, c, literal(0, Type(layer.dtype)))
    return body.function("depthwise_pack", buffers, sizes)


class DepthwiseCode:
    """Writes the function that does the sums."""

    def __init__(
        self, layer: Layer, machine: Machine, epilogue: Epilogue, out: Pointer, computed: InputRows | None = None
    ):
        self.machine, self.epilogue, self.out, self.computed = machine, epilogue, out, computed
        self.layer = layer if computed is None else computed.held
        self.lanes = machine.lanes(layer.dtype.bytes)
        self.body = Body()
        self.count = None if layer.channels >= self.lanes else layer.channels
        taps = max(FEWEST_TAPS, layer.outer_taps * layer.last.most_taps)
        row = layer.channels * layer.last.outputs * taps
        most = max(1, min(layer.rows, TASK_PRODUCTS // max(1, row)))
        self.task_rows = even_share(layer.rows, most) if computed is None else computed.task_rows(most)

    def function(self, buffers: Buffers, sizes: Sequence[str]) -> Function:
        layer, body = self.layer, self.body
        xs = body.pointers("inputs", layer.dtype, layer.outer_taps)
        ws = body.pointers("weights", layer.dtype, layer.outer_taps)
        rows = BATCH * layer.rows
        with body.tasks() as task:
            last = call("smaller", (task + 1) * self.task_rows, rows)
            ring = None if self.computed is None else self.computed.begin(body)
            source = Pointer("x", layer.dtype) if ring is None else ring.pointer
            with self._strips(task, last) as (begin, end), body.loop("row", begin, end) as row:
                sample, places = output_row(body, layer, row)
                if ring is not None:
                    ring.fill(body, sample, places[0])
                per_tap = layer.width * layer.padded(self.lanes)
                with rows_seen(body, layer, sample, places) as (offset, tap, seen):
                    body.set_pointer(xs, seen, source, offset)
                    body.set_pointer(ws, seen, Pointer("packed", layer.dtype), tap * per_tap)
                index = [sample, *places]
                for residue in layer.last.residues:
                    for tile in tiles_of(layer, residue, self.machine):
                        step = self.layer.last.step
                        with body.loop("tile", 0, tile.turns) as turn:
                            shift = body.let("shift", turn * (tile.pixels * step * layer.x_strides[-1]))
                            first = body.let("first_pixel", turn * (tile.pixels * self.layer.last.out_step))
                            self.tile(residue, tile, first, shift, xs, ws, seen, index)
        return body.function("depthwise", buffers, sizes)

    @contextmanager
    def _strips(self, task: Expression, last: Expression) -> Iterator[tuple[Expression, Expression]]:
        """Statements for the rows of a task; with statistics for some at a time, which are added when they are written."""
        body, statistics = self.body, self.epilogue.statistics
        first = task * self.task_rows
        if statistics is None:
            yield first, last
            return
        pixels = self.layer.last.outputs
        size = max(1, statistics.strip(self.layer.channels) // pixels)
        seen = body.variable("seen", literal(0))
        with body.loop("strip", first, last, size) as strip:
            end = body.let("strip_end", call("smaller", strip + size, last))
            yield strip, end
            statistics.add_pixels(body, self.out, task, strip * pixels, (end - strip) * pixels, seen)

    def tile(
        self,
        residue: Residue,
        tile: Tile,
        first: Expression,
        shift: Expression,
        xs: PointerArray,
        ws: PointerArray,
        seen: Expression,
        index: list[Expression],
    ) -> None:
        """All channels of a tile of pixels."""
        layer, body, lanes, axis = self.layer, self.body, self.lanes, self.layer.last
        by_input = uses_of(layer, residue, tile)
        with body.loop("vector", 0, -(-layer.channels // lanes)) as vector:
            channel = first_channel(body, layer, vector, lanes)
            sums = [body.variable("sum", literal(0, Type(layer.dtype, lanes))) for _ in range(tile.pixels)]
            if by_input:
                with body.loop("i", 0, seen) as i:
                    x, w = body.get_pointer("input", xs, i), body.get_pointer("weight", ws, i)
                    taps = sorted({t for uses in by_input.values() for _, t in uses})
                    weights = {t: body.let("w", load(w, channel + self.weight_at(residue, t), lanes)) for t in taps}
                    for position, uses in by_input.items():
                        at = shift + position * layer.x_strides[-1]
                        value = body.let("x", load_channels(layer, layer.x_strides[1], x, at, channel, lanes))
                        for pixel, t in uses:
                            body.assign(sums[pixel], sums[pixel] + value * weights[t])
            places = [first + (residue.start + (tile.start + p) * axis.out_step) for p in range(tile.pixels)]
            self.write(sums, index, places, channel)

    def weight_at(self, residue: Residue, tap: int) -> int:
        return (residue.first_tap + tap * self.layer.last.tap_step) * self.layer.padded(self.lanes)

    def write(self, sums: list[Variable], index: list[Expression], places: list[Expression], channel: Expression) -> None:
        """The epilogue of each pixel; a long one is written once, and goes over the pixels in a loop."""
        body, lanes = self.body, self.lanes
        lead, outer = index[0], index[1:]
        if self.epilogue.is_light or len(sums) == 1:
            for value, place in zip(sums, places, strict=True):
                self.epilogue.apply(body, value, [lead, channel, *outer, place], 1, self._part(), self.out)
            return
        held = body.array("held", self.layer.dtype, len(sums) * lanes)
        for p, value in enumerate(sums):
            body.store(held, p * lanes, value)
        with body.loop("pixel", 0, len(sums)) as pixel:
            place = places[0] + pixel * self.layer.last.out_step
            product = body.let("product", load(held, pixel * lanes, lanes))
            self.epilogue.apply(body, product, [lead, channel, *outer, place], 1, self._part(), self.out)

    def _part(self) -> Literal | None:
        return None if self.count is None else literal(self.count)
