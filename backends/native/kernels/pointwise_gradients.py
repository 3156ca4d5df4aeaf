"""Both gradients of a pointwise convolution from one pass over its images (kind ``pointwise_gradients``).

For y = W x at every pixel, with d the gradient of y::

    dx[p] = W^T d[p]        dW = sum over p of d[p] x[p]^T

A task takes some strips of pixels, a strip at a time: the light ops that make d, and those that make x, put the strip into memory
of the worker (:mod:`.pointwise_sides`); the direct algorithm makes dx of it, with its epilogue; the sums that batch norm takes
of dx, and the products for dW, follow while the strip is in the cache.  So d, batch norm's backward of a large image, is never
stored, and what it is made of is read once.  One part of dW and of the sums for each task; later phases add them in order.

In a training step of MobileNet-V2 (batch 8, two threads) that takes 0.56 to 0.92 of what three kernels took: 3.9 ms in place of
7.0 where 16 channels of 112 x 112 become 96.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from irconv.backends.arrays.base import scratch
from irconv.backends.arrays.lower import operand_ids
from irconv.backends.codegen.body import Body
from irconv.backends.codegen.c import print_c
from irconv.backends.codegen.form import INDEX, Expression, Operand, Pointer, Variable, compare, literal
from irconv.backends.codegen.statements import Function
from irconv.backends.native.base import NativeKernel, NativeRequest, Phase, Prepared, native, native_kernel
from irconv.backends.native.kernels.contraction import Contraction
from irconv.backends.native.kernels.direct import Direct
from irconv.backends.native.kernels.direct import Names as DirectNames
from irconv.backends.native.kernels.epilogue import Epilogue, make_epilogue
from irconv.backends.native.kernels.packing import pack_weight, packed_size
from irconv.backends.native.kernels.plan import Plan as DirectPlan
from irconv.backends.native.kernels.plan import make_plan as make_direct_plan
from irconv.backends.native.kernels.pointwise_parts import Parts, parts_of
from irconv.backends.native.kernels.pointwise_products import Products
from irconv.backends.native.kernels.pointwise_sides import Image, Side, flat_prologue, flat_strides, held_step
from irconv.backends.native.kernels.strips import PARTS
from irconv.backends.native.kernels.weight_gradient import problem_of
from irconv.backends.native.kernels.weight_gradient_code import (
    BATCH,
    CHUNKS,
    SIZES,
    SPLITS,
    Names,
    largest,
    smallest,
)
from irconv.backends.native.kernels.weight_gradient_plan import (
    SPLIT_BYTES,
    SUM_ELEMENTS,
    Plan,
    Problem,
    elements_of_row,
    flattened,
    make_plan,
)
from irconv.backends.native.kernels.weight_gradient_sum import add_function
from irconv.types import DType, TensorType

STRIP_PIXELS, STRIP_BYTES = 96, 256 * 1024
"""Pixels of a strip, about, and bytes that it takes at the most in a worker's memory: part of a second-level cache."""

MOST_TASKS = 32
"""As many tasks, and parts of the weight gradient, at the most."""

ENDLESS = 1 << 32
"""More tiles than a strip has."""


@dataclass(frozen=True)
class _Input:
    """The input gradient: its convolution over a strip's pixels, how that is cut, and what follows it."""

    c: Contraction
    plan: DirectPlan
    epilogue: Epilogue


@native("pointwise_gradients")
def pointwise_gradients(request: NativeRequest) -> NativeKernel | None:
    """The kernel; None where values are stored in an order that pixels cannot be counted through."""
    made = _Gradients.of(request, parts_of(request.graph, request.kernel))
    return None if made is None else made.kernel()


@dataclass
class _Gradients:
    """Writes the functions.

    d, x:    how the operands of the product over pixels are read;  ``plan``: how that product is cut.
    input:   the input gradient, where the kernel has one.
    buffers: (name, element type) of results and operands; what workers hold comes behind them.
    """

    request: NativeRequest
    problem: Problem
    plan: Plan
    d: Side
    x: Side
    input: _Input | None
    buffers: list[tuple[str, DType]]

    @classmethod
    def of(cls, request: NativeRequest, parts: Parts) -> _Gradients | None:
        """What there is to write; None where there is no code for it."""
        problem = _problem(request, parts)
        if problem is None:
            return None
        names = _names(request, parts)
        pointers = {i: Pointer(name, request.graph[i].type.dtype) for i, name in names.items()}
        plan = make_plan(problem, request.machine)
        d = _side(request, parts.d, parts.ahead_of_d, pointers, plan, plan.along_rows, "held_d")
        x = _side(request, parts.x, parts.ahead_of_x, pointers, plan, not plan.along_rows, "held_x")
        if d is None or x is None:
            return None
        made = None if parts.conv is None else _input_gradient(request, parts, pointers, d)
        if parts.conv is not None and made is None:
            return None
        results = {parts.weight.outputs[0]: ("gradient", problem.dtype), **_results(parts, made)}
        if results.keys() != set(request.kernel.outputs):
            return None
        buffers = [results[i] for i in request.kernel.outputs]
        buffers += [(name, request.graph[i].type.dtype) for i, name in names.items()]
        return cls(request, problem, plan, d, x, made, buffers)

    # --- how it is cut ---------------------------------------------------------------------------------------------------

    @property
    def strip(self) -> int:
        """Pixels of a strip: whole tiles of the input gradient."""
        tile = 1 if self.input is None else self.input.plan.pixels
        size = (self.d.step + self.x.step) * self.problem.dtype.bytes
        return max(1, min(STRIP_PIXELS, STRIP_BYTES // size) // tile) * tile

    @property
    def elements(self) -> int:
        """Elements of one part of the weight gradient."""
        return self.plan.blocks * self.plan.width * elements_of_row(self.problem, self.plan)

    def _sizes(self) -> tuple[int, ...]:
        """Run-time numbers: pixels, strips, tasks (each with a part of its own), and what adds the parts up."""
        p = self.problem
        pixels = p.batch * p.counts[0]
        strips = -(-pixels // self.strip)
        most = min(MOST_TASKS, max(1, SPLIT_BYTES // (self.elements * p.dtype.bytes)), strips)
        tasks = max(1, most // 4 * 4 if most > 4 else most)
        sums = max(1, min(self.plan.blocks * self.plan.vectors, -(-self.elements * tasks // SUM_ELEMENTS)))
        return pixels, strips, tasks, 1, sums

    # --- the kernel ------------------------------------------------------------------------------------------------------

    def kernel(self) -> NativeKernel:
        """All of it."""
        request, p, gradient = self.request, self.problem, self.input
        pixels, _, tasks, _, sums = sizes = self._sizes()
        held: list[tuple[str, TensorType]] = [
            (side.pointer.name, scratch(p.dtype, request.threads, side.held)) for side in self._held(self.strip)
        ]
        held.append(("partial", TensorType(p.dtype, (tasks, self.plan.blocks, elements_of_row(p, self.plan), self.plan.width))))
        if gradient is not None:
            held.append(("packed", scratch(p.dtype, packed_size(gradient.c, gradient.plan))))
        self.buffers += [(name, p.dtype) for name, _ in held]
        functions: list[Function] = []
        phases: list[Phase] = []
        prepared: tuple[Prepared, ...] = ()
        direct = None
        names: tuple[str, ...] = SIZES
        if gradient is not None:
            further = gradient.epilogue.further
            self.buffers += further.temporaries
            names += further.sizes
            functions.append(pack_weight(gradient.c, gradient.plan, self._typed("packed"), SIZES, gradient.c.channels))
            phases.append(Phase(functions[-1].name, gradient.plan.blocks))
            prepared = (Prepared(self._position("w"), self._position("packed"), 0),)
            direct = self._direct(gradient)
            functions.append(direct)
        functions.append(self._driver(gradient, direct, names))
        phases.append(Phase(functions[-1].name, tasks))
        pointers = Names(*(Pointer(name, p.dtype) for name in ("gradient", "", "", "partial", "")))
        functions.append(add_function(p, self.plan, pointers, self._typed("gradient")))
        phases.append(Phase(functions[-1].name, sums))
        kept = [t for _, t in held]
        if gradient is not None:
            outputs = tuple(name for name, _ in gradient.epilogue.further.outputs)
            addition = gradient.epilogue.addition(tasks if pixels else 0, self._typed(*outputs), names)
            functions += addition.functions
            phases += addition.phases
            sizes += addition.numbers
            kept += addition.scratch
        return native_kernel(
            print_c(functions), tuple(phases), sizes, tuple(kept), machine=request.machine, prepared=prepared
        )

    def _held(self, pixels: int) -> list[Side]:
        """The operands that are put into the worker's memory; it holds so many pixels from here on."""
        self.d, self.x = (replace(side, held=pixels * side.step if side.held else 0) for side in (self.d, self.x))
        return [side for side in (self.d, self.x) if side.held]

    def _typed(self, *written: str) -> tuple[tuple[str, DType, bool], ...]:
        return tuple((name, dtype, name in written) for name, dtype in self.buffers)

    def _position(self, name: str) -> int:
        return [each for each, _ in self.buffers].index(name)

    def _direct(self, gradient: _Input) -> Function:
        """The function that makes the input gradient of any number of pixels."""
        out = Pointer("out", self.problem.dtype)
        source = self.d.pointer.name
        names = DirectNames(self._typed("out"), ("batch",), source, out, Variable("batch", INDEX), literal(gradient.c.channels))
        return Direct(gradient.c, gradient.plan, replace(gradient.epilogue, statistics=None), names).function()

    def _driver(self, gradient: _Input | None, direct: Function | None, names: Sequence[str]) -> Function:
        """The function that goes through the strips; a task is some of them."""
        body = Body()
        with body.tasks() as task:
            sums = body.pointer("block_sums", Pointer("partial", self.problem.dtype), task * self.elements)
            seen = body.variable("seen", literal(0))
            first, last = (body.let("strip", (task + i) * CHUNKS // SPLITS) for i in (0, 1))
            # without a pixel there still is one turn, which writes zeros
            with body.loop("strip", first, largest(last, first + 1)) as strip:
                start = body.let("start", strip * self.strip)
                count = body.let("count", largest(smallest(BATCH - start, self.strip), 0))
                places = [side.place(body, start) for side in (self.d, self.x)]
                for side, place in zip((self.d, self.x), places, strict=True):
                    if side.held:
                        side.fill(body, place, start, count)
                if gradient is not None and direct is not None:
                    with body.when(compare(">", count, 0)):
                        body.run(direct, self._shown(gradient, places[0], start), [count], 0, 1)
                        statistics = gradient.epilogue.statistics
                        if statistics is not None:
                            out = Pointer("out", self.problem.dtype)
                            statistics.add_pixels(body, out, task, start, count, seen)
                self._products(places).add(body, sums, strip > first, start, count)
        written = ("partial", "held_d", "held_x", "out", PARTS)
        return body.function("pointwise_gradients", self._typed(*written), names)

    def _shown(self, gradient: _Input, d: Pointer, start: Expression) -> dict[int, tuple[Pointer, Operand]]:
        """The buffers of the input gradient from a strip on."""
        shown: dict[int, tuple[Pointer, Operand]] = {self._position(self.d.pointer.name): (d, 0)}
        out = Image(Pointer("out", self.problem.dtype), gradient.epilogue.strides[gradient.epilogue.result][0])
        shown |= {self._position(each.pointer.name): (each.pointer, start * each.step) for each in (out, *self._images())}
        return shown

    def _products(self, places: Sequence[Pointer]) -> Products:
        """The products of a strip whose operands begin at these places."""
        sides = [(place, side.step) for place, side in zip(places, (self.d, self.x), strict=True)]
        wide, narrow = sides if self.plan.along_rows else sides[::-1]
        return Products(self.problem.dtype, self.plan, wide, narrow, self.strip, self._images())

    def _images(self) -> list[Image]:
        """What a strip is made of: what ops that make an operand read, and what the input gradient's epilogue and sums do."""
        found: dict[str, Image] = {}
        for side in (self.d, self.x):
            found |= {each.pointer.name: each for each in side.images()}
        if self.input is not None:
            epilogue = self.input.epilogue
            read = [Image(epilogue.pointers[i], s[0]) for i, s in epilogue.strides.items() if s[0] and i != epilogue.result]
            found |= {each.pointer.name: each for each in read}
        return list(found.values())


def _problem(request: NativeRequest, parts: Parts) -> Problem | None:
    """The weight gradient over pixels that are counted through; None where they cannot be."""
    found = problem_of(replace(request, kernel=parts.weight))
    if found is None or found[1:] != (parts.d, parts.x):
        return None
    problem = flattened(found[0])
    return problem if problem.is_pointwise and len(problem.size) == 1 and problem.groups == 1 else None


def _names(request: NativeRequest, parts: Parts) -> dict[int, str]:
    """What the code calls the kernel's operands, by id, in their order."""
    names = {i: f"operand{at}" for at, i in enumerate(operand_ids(request.graph, request.kernel))}
    if parts.conv is not None:
        names[request.graph[parts.conv].operands[1]] = "w"
    return names


def _results(parts: Parts, made: _Input | None) -> dict[int, tuple[str, DType]]:
    """Names and element types of the input gradient and its sums, by id."""
    if made is None or parts.input is None:
        return {}
    further = zip(parts.input.outputs[1:], made.epilogue.further.outputs, strict=True)
    return {made.epilogue.result: ("out", made.c.dtype), **dict(further)}


def _side(
    request: NativeRequest,
    value: int,
    ahead: tuple[int, ...],
    pointers: dict[int, Pointer],
    plan: Plan,
    is_wide: bool,
    name: str,
) -> Side | None:
    """How an operand is read; None where it is stored in an order that pixels cannot be counted through."""
    type_ = request.graph[value].type
    channels, lanes, dtype = type_.shape[1], plan.lanes, type_.dtype
    strides = flat_strides(request, value, type_.shape)
    prologue = flat_prologue(request, ahead, value, pointers, lanes) if ahead else None
    if strides is None or strides[1] != 1 or (ahead and prologue is None):
        return None
    source = pointers.get(value, Pointer(name, dtype))
    if not ahead and not is_wide:
        return Side(channels, lanes, source, strides[0], None, source, strides[0], 0)
    step = held_step(channels, lanes, dtype.bytes)
    return Side(channels, lanes, source, strides[0], prologue, Pointer(name, dtype), step, step)


def _input_gradient(request: NativeRequest, parts: Parts, pointers: dict[int, Pointer], d: Side) -> _Input | None:
    """The input gradient over pixels that are counted through."""
    graph = request.graph
    assert parts.input is not None
    assert parts.conv is not None
    node = graph[parts.conv]
    w = request.strides[node.operands[1]]
    channels, columns = graph[node.operands[1]].type.shape[:2]
    c = Contraction(
        "input_gradient", node.type.dtype, 1, (), channels, columns, (d.step,), 1, (), w[0], w[1], (0,), 1
    )  # fmt: skip
    usual = make_direct_plan(c, request.machine)
    plan = replace(usual, chunk=usual.pixels * ENDLESS, task_blocks=usual.blocks, single=False)
    epilogue = make_epilogue(replace(request, kernel=parts.input), node.id, pointers, plan.lanes)
    if epilogue is None or request.strides[epilogue.result][1] != 1:
        return None
    strides = {i: flat_strides(request, i, node.type.shape) for i in epilogue.strides}
    known = {i: found for i, found in strides.items() if found is not None}
    if len(known) < len(strides) or graph[epilogue.result].type.dtype is not node.type.dtype:
        return None
    return _Input(c, plan, replace(epilogue, strides=known))
