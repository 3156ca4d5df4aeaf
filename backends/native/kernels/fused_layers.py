"""A pointwise convolution, a depthwise one and another pointwise one as one kernel (:mod:`irconv.passes.fused_layers`).

A task takes a band of rows of the last result and works out which rows each layer has to give for it.  Each layer is the code
that it would be as a kernel of its own, run on the rows of the band with buffers that begin so that they come to lie in the
scratch of the thread::

    for the bands of a task:
        pointwise: the rows that the depthwise layer reads, into scratch
        depthwise: the rows of the band, into scratch
        pointwise: the band, into the result

96 channels of 112 x 112 between the layers are 4.8 MB, which otherwise go to memory and back.  Where bands meet, rows of the
first layer are computed twice; bands are as high as half of the second-level cache allows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from irconv.backends.arrays.base import scratch
from irconv.backends.arrays.lower import operand_ids
from irconv.backends.codegen.body import FIRST, LAST, WORKER, Body
from irconv.backends.codegen.c import print_c
from irconv.backends.codegen.form import (
    INDEX,
    Expression,
    Operand,
    Pointer,
    Variable,
    compare,
    literal,
    select,
)
from irconv.backends.codegen.statements import Function
from irconv.backends.native.base import NativeKernel, NativeRequest, Phase, Prepared, native, native_kernel
from irconv.backends.native.kernels.contraction import Contraction, Group, forward_axis
from irconv.backends.native.kernels.depthwise import DepthwiseCode, depthwise_layer, pack_depthwise
from irconv.backends.native.kernels.depthwise_plan import Layer, has_code
from irconv.backends.native.kernels.direct import Direct, Names
from irconv.backends.native.kernels.epilogue import Epilogue, make_epilogue
from irconv.backends.native.kernels.packing import Buffers, least, pack_weight, packed_size
from irconv.backends.native.kernels.plan import Plan, Wish, even_share, make_plan
from irconv.graph import Graph, Node
from irconv.kernel import Kernel
from irconv.types import DType

FEWEST_BANDS = 4
"""Bands of an image at the least, so that there is work for several threads."""

ENDLESS = 1 << 32
"""More tiles than an image has."""


@dataclass(frozen=True)
class _Stage:
    """One layer: its convolution, what it reads and writes, and its place among the layers."""

    number: int
    conv: Node
    kernel: Kernel
    is_depthwise: bool

    @property
    def result(self) -> int:
        return self.kernel.outputs[0]

    @property
    def name(self) -> str:
        return f"{'depthwise' if self.is_depthwise else 'pointwise'}{self.number}"


@native("fused_layers")
def fused_layers(request: NativeRequest) -> NativeKernel | None:
    """The kernel; None where a layer has no code."""
    stages = _stages(request.graph, request.kernel)
    plan = _Bands(request, stages)
    return plan.kernel()


def _stages(graph: Graph, kernel: Kernel) -> list[_Stage]:
    """The layers: each begins with its convolution."""
    starts = [at for at, i in enumerate(kernel.nodes) if graph[i].op.name == "conv"]
    found = []
    for number, (start, stop) in enumerate(zip(starts, [*starts[1:], len(kernel.nodes)], strict=True)):
        nodes = kernel.nodes[start:stop]
        conv = graph[nodes[0]]
        read = dict.fromkeys(i for node in nodes for i in graph[node].operands if i not in nodes)
        part = Kernel(graph[nodes[-1]].name, "conv_epilogue" if len(nodes) > 1 else "conv", nodes, tuple(read), nodes[-1:])
        found.append(_Stage(number, conv, part, conv.attributes.groups > 1))
    return found


class _Bands:
    """Writes the functions of all layers and the one that runs them band by band."""

    def __init__(self, request: NativeRequest, stages: Sequence[_Stage]):
        self.request, self.stages = request, stages
        graph = request.graph
        self.operands = operand_ids(graph, request.kernel)
        self.dtype: DType = stages[0].conv.type.dtype
        self.last = stages[-1]
        shape = self.last.conv.type.shape
        self.batch, self.rows = shape[0], shape[2]
        # the result, the operands, the packed weights, then what lies between the layers
        count = len(self.operands)
        self.packed = {stage.number: 1 + count + stage.number for stage in stages}
        self.between = {stage.result: 1 + count + len(stages) + stage.number for stage in stages[:-1]}
        self.position = {**{i: 1 + at for at, i in enumerate(self.operands)}, **self.between, self.last.result: 0}
        self.band = self._band()
        self.functions: list[Function] = []
        self.epilogues: dict[int, Epilogue] = {}
        self.packs: list[tuple[Phase, int]] = []

    # --- how high a band is --------------------------------------------------------------------------------------------

    def _rows_of(self, stage: _Stage, rows: int) -> int:
        """The most rows that a layer has to give for so many of the last result."""
        for later in reversed(self.stages[stage.number + 1 :]):
            if later.is_depthwise:
                taps = self.request.graph[later.conv.operands[1]].type.shape[2]
                rows = (rows - 1) * later.conv.attributes.stride[0] + taps
        return min(rows, stage.conv.type.shape[2])

    def _elements(self, stage: _Stage, rows: int) -> int:
        """Elements of what a layer gives for a band."""
        _, channels, _, columns = stage.conv.type.shape
        return self._rows_of(stage, rows) * columns * channels

    def _band(self) -> int:
        """Rows of a band: the most for which what lies between the layers fills half of the cache, then evened out."""
        limit = self.request.machine.cache_bytes // 2 // self.dtype.bytes
        rows = next(
            (n for n in range(self.rows, 1, -1) if sum(self._elements(stage, n) for stage in self.stages[:-1]) <= limit), 1
        )
        return even_share(self.rows, min(rows, -(-self.rows // FEWEST_BANDS)), fixed=self._repeated())

    def _repeated(self) -> int:
        """Rows that a band costs more than the others, about: those that the first layer gives again for the next band."""
        first = self.stages[0]
        if first.is_depthwise:
            return 0
        scale = first.conv.type.shape[2] / self.rows
        return round((self._rows_of(first, 8) - 8 * scale) / scale)

    # --- the layers ------------------------------------------------------------------------------------------------------

    def kernel(self) -> NativeKernel | None:
        sizes: list = []
        for stage in self.stages:
            elements = self._depthwise(stage) if stage.is_depthwise else self._pointwise(stage)
            if elements is None:
                return None
            sizes.append(scratch(self.dtype, elements))
        sizes += [scratch(self.dtype, self.request.threads, self._elements(s, self.band)) for s in self.stages[:-1]]
        self.functions.append(self._driver())
        bands = self.batch * -(-self.rows // self.band)
        phases = [phase for phase, _ in self.packs] + [Phase(self.functions[-1].name, bands)]
        prepared = [
            Prepared(self.position[stage.conv.operands[1]], self.packed[stage.number], number)
            for number, stage in enumerate(self.stages)
        ]
        return native_kernel(
            print_c(self.functions),
            tuple(phases),
            (self.batch,),
            tuple(sizes),
            machine=self.request.machine,
            prepared=tuple(prepared),
        )

    def _names(self, stage: _Stage) -> list[str]:
        """What the functions of a layer call the buffers of the kernel."""
        names = [f"buffer{position}" for position in range(1 + len(self.operands) + 2 * len(self.stages) - 1)]
        x, w = stage.conv.operands
        for name, position in (
            ("w", self.position[w]),
            ("x", self.position[x]),
            ("out", self.position[stage.result]),
            ("packed", self.packed[stage.number]),
        ):
            names[position] = name
        return names

    def _buffers(self, stage: _Stage, written: str) -> Buffers:
        graph = self.request.graph
        types = [graph[self.last.result].type.dtype, *(graph[i].type.dtype for i in self.operands)]
        names = self._names(stage)
        types += [self.dtype] * (len(names) - len(types))
        return [(name, dtype, name == written) for name, dtype in zip(names, types, strict=True)]

    def _epilogue(self, stage: _Stage, lanes: int) -> Epilogue | None:
        names, graph = self._names(stage), self.request.graph
        pointers = {i: Pointer(names[self.position[i]], graph[i].type.dtype) for i in stage.kernel.inputs}
        made = make_epilogue(replace(self.request, kernel=stage.kernel), stage.conv.id, pointers, lanes)
        if made is not None:
            self.epilogues[stage.number] = made
        return made

    def _pointwise(self, stage: _Stage) -> int | None:
        """The functions of a pointwise layer on any number of rows of one image; elements of its packed weight."""
        c = self._contraction(stage)
        usual = make_plan(c, self.request.machine, Wish(coarse=True))
        plan: Plan = replace(usual, chunk=usual.pixels * ENDLESS, task_blocks=usual.blocks)
        epilogue = self._epilogue(stage, plan.lanes)
        if epilogue is None:
            return None
        channels = literal(c.channels)
        pack = pack_weight(c, plan, self._buffers(stage, "packed"), ["batch"], channels)
        out = Pointer("out", self.request.graph[stage.result].type.dtype)
        names = Names(tuple(self._buffers(stage, "out")), ("batch",), "x", out, Variable("batch", INDEX), channels)
        self.packs.append((Phase(pack.name, plan.blocks), stage.number))
        self.functions += [pack, Direct(c, plan, epilogue, names).function()]
        return packed_size(c, plan)

    def _contraction(self, stage: _Stage) -> Contraction:
        """The rows of an image are what the batch is elsewhere: any number of them."""
        graph = self.request.graph
        x, w = (self.request.strides[i] for i in stage.conv.operands)
        columns, channels = graph[stage.conv.operands[1]].type.shape[:2]
        rows, width = stage.conv.type.shape[2:]
        return Contraction(
            stage.name,
            self.dtype,
            rows,
            (forward_axis(width, width, 1, 1, 1, 0),),
            channels,
            columns,
            x[2:],
            x[1],
            (0,),
            w[1],
            w[0],
            (2, 3),
            1,
            (Group(1, 0, 0, (0, 1)),),
        )

    def _depthwise(self, stage: _Stage) -> int | None:
        """The functions of the depthwise layer, whose tasks are rows; elements of its packed weight."""
        request = replace(self.request, kernel=stage.kernel)
        layer: Layer = depthwise_layer(request, stage.conv)
        lanes = request.machine.lanes(self.dtype.bytes)
        epilogue = self._epilogue(stage, lanes)
        if epilogue is None or not has_code(layer, request.machine):
            return None
        pack = pack_depthwise(layer, lanes, tuple(self._buffers(stage, "packed")), ["batch"])
        code = DepthwiseCode(layer, request.machine, epilogue, Pointer("out", request.graph[stage.result].type.dtype))
        code.task_rows = 1
        self.packs.append((Phase(pack.name, 1), stage.number))
        self.functions += [pack, code.function(tuple(self._buffers(stage, "out")), ["batch"])]
        return layer.outer_taps * layer.width * layer.padded(lanes)

    # --- the bands -------------------------------------------------------------------------------------------------------

    def _driver(self) -> Function:
        """The function that runs the layers; a task is a band of rows."""
        body = Body()
        graph = self.request.graph
        types = [graph[self.last.result].type.dtype, *(graph[i].type.dtype for i in self.operands)]
        names = ["out", *(f"operand{at}" for at in range(len(self.operands)))]
        names += [f"packed{stage.number}" for stage in self.stages]
        names += [f"between{stage.number}" for stage in self.stages[:-1]]
        types += [self.dtype] * (len(names) - len(types))
        written = {0, *self.between.values()}
        buffers = [(name, dtype, at in written) for at, (name, dtype) in enumerate(zip(names, types, strict=True))]
        runs = {stage.number: self.functions[2 * stage.number + 1] for stage in self.stages}
        bands = -(-self.rows // self.band)
        with body.loop("task", FIRST, LAST) as task:
            image = body.let("image", task // bands)
            start = body.let("start", task % bands * self.band)
            spans = self._spans(body, start, body.let("stop", least(start + self.band, self.rows)))
            for stage in self.stages:
                first, last = spans[stage.number]
                shown = {}
                for i in (*stage.kernel.inputs, stage.result):
                    at = self.position[i]
                    pointer = Pointer(names[at], types[at])
                    if i in self.between:
                        shown[at] = (pointer, self._held(stage, i, first, spans))
                    elif (offset := self._offset(stage, i, image, first)) is not None:
                        shown[at] = (pointer, offset)
                if stage.is_depthwise:
                    body.run(runs[stage.number], shown, [1], first, last)
                else:
                    body.run(runs[stage.number], shown, [last - first], 0, 1)
        return body.function("fused_layers", buffers, ["batch"])

    def _spans(self, body: Body, start: Expression, stop: Expression) -> dict[int, tuple[Expression, Expression]]:
        """The rows that each layer has to give: from, and up to."""
        spans = {self.last.number: (start, stop)}
        for stage in reversed(self.stages[1:]):
            first, last = spans[stage.number]
            if stage.is_depthwise:
                a = stage.conv.attributes
                x, w = (graph_node.type.shape for graph_node in self.request.graph.operands(stage.conv))
                low = first * a.stride[0] - a.padding[0][0]
                high = (last - 1) * a.stride[0] + (w[2] - a.padding[0][0])
                first = body.let("first_row", select(compare(">", low, 0), low, 0))
                last = body.let("last_row", least(high, x[2]))
            spans[stage.number - 1] = first, last
        return spans

    def _held(
        self, stage: _Stage, value: int, first: Expression, spans: dict[int, tuple[Expression, Expression]]
    ) -> Operand:
        """Where a value between the layers begins, for a layer that counts rows from ``first``, or from 0 if it is depthwise."""
        maker = next(s for s in self.stages if s.result == value)
        row = self.request.strides[value][2]
        held = spans[maker.number][0]
        mine = WORKER * self._elements(maker, self.band)
        return mine - held * row if stage.is_depthwise else mine + (first - held) * row

    def _offset(self, stage: _Stage, value: int, image: Expression, first: Expression) -> Operand | None:
        """Elements to the image and the first row, for what lies outside of the kernel; None where it has neither."""
        x, w = stage.conv.operands
        if value == w:
            return None
        strides = self.request.strides[value] if value == x else self.epilogues[stage.number].strides.get(value)
        if strides is None or (strides[0] == 0 and strides[2] == 0):
            return None
        offset = image * strides[0]
        return offset if stage.is_depthwise else offset + first * strides[2]
