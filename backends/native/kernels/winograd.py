"""3x3 convolution at stride 1 by Winograd's algorithm: transformed tiles, small products, tiles of the result.

::

    U = G w G'        once per weight: [block of output channels][product][input channel][width]
    V = B' x B        [product][tile][input channel]
    M = V U           [product][tile][output channel], accumulators in registers as in the direct algorithm
    A' M A, then the epilogue, per tile and vector; pixels beyond the border are left out

Most layers: a task does all this for a *chunk* of tiles, whose V and M stay in a core's cache.  Where U exceeds that cache, it
would come from behind it for every chunk.  Such kernels have a second way: V, M and the result are phases, each for all
tiles, and U is read once, from one end to the other.  Which way is taken follows from the batch, at run time: phases of the other
way have no tasks.  Either way the next panel of U is fetched, evenly, while the last one is multiplied.

Tiles at the border are copied first, with zeros where there is no input.  Sums run over the channels in order, and tiles do not
depend on each other, so neither tasks nor threads change a bit.

Rounding: the largest error stays below 1e-5 (m = 4) or 1e-6 (m = 2) times the largest of (|x| convolved with |w|).  Measured
over 16 to 512 channels, normal data and the same after a ReLU: 2.3e-6 and 1.2e-7 of it, which is 2e-6 to 2e-5 and 2e-7 to 1e-6 of
the largest output (the direct algorithm: 3e-7, or 3e-7 to 2e-6).
A strict request does not come here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from irconv.backends.arrays.base import scratch
from irconv.backends.arrays.lower import operand_ids
from irconv.backends.codegen.body import WORKER, Body
from irconv.backends.codegen.c import print_c
from irconv.backends.codegen.form import INDEX, Expression, Pointer, Variable, compare, literal, load, select
from irconv.backends.codegen.statements import Function
from irconv.backends.native.base import Candidate, NativeKernel, NativeRequest, Phase, Prepared, native_kernel
from irconv.backends.native.kernels.contraction import Contraction
from irconv.backends.native.kernels.epilogue import Epilogue, make_epilogue
from irconv.backends.native.kernels.packing import unravel
from irconv.backends.native.kernels.pooled import Pooled
from irconv.backends.native.kernels.prologue import Prologue, make_prologue
from irconv.backends.native.kernels.strips import PARTS
from irconv.backends.native.kernels.winograd_code import WEIGHT_CHANNELS, Buffers, Steps, WinogradCode
from irconv.backends.native.kernels.winograd_cost import best_plan, is_phased, winograd_plans
from irconv.backends.native.kernels.winograd_plan import WinogradPlan, cut, cut_phases, odd_lines
from irconv.graph import Node
from irconv.types import F32, I64, DType, TensorType

Make = Callable[[NativeRequest, Node, Contraction, WinogradPlan], NativeKernel | None]
"""Makes the kernel of a plan."""

CHUNK_SIZES = ("batch", "chunk", "parts", "workers")
PHASE_SIZES = ("group", "shares", "padded", "input_step", "output_step")
"""Run-time numbers of the two ways: chunk by chunk and phase by phase."""

CHUNK_BUFFERS = [("own", F32), ("held", I64)]
PHASE_BUFFERS = [("transformed", F32), ("multiplied", F32), ("edges", F32)]
"""Their temporaries."""

HELD, HELD_STEP = Pointer("held", I64), 8
"""For each thread, a cache line apart, the number of the chunk whose transformed inputs it has in memory of its own."""


def winograd_candidates(
    request: NativeRequest, node: Node, c: Contraction, kernel: Make | None = None
) -> tuple[list[Candidate], list[Candidate]]:
    """What by estimate is faster than the direct algorithm (one or none), and the others; nothing for a strict request.

    kernel: makes the kernel of a plan, if not :func:`winograd_kernel`.
    """
    if request.strict:
        return [], []
    best = best_plan(c, request.machine, prepares=not is_kept(request, node.operands[1]))

    def candidate(plan: WinogradPlan) -> Candidate:
        return Candidate(plan.name, partial(kernel or winograd_kernel, request, node, c, plan))

    others = [candidate(plan) for plan in winograd_plans(c, request.machine) if plan != best]
    return [] if best is None else [candidate(best)], others


def is_kept(request: NativeRequest, weight: int) -> bool:
    """Whether the transformed weight will serve many calls: it is a constant, or a state of a program that updates none."""
    graph = request.graph
    return graph[weight].op.name == "constant" or (weight in graph.states and not graph.updates)


def winograd_kernel(
    request: NativeRequest,
    node: Node,
    c: Contraction,
    plan: WinogradPlan,
    pooled: Pooled | None = None,
    also: Sequence[Function] = (),
) -> NativeKernel | None:
    """The kernel by this plan, which stores the results or what they are pooled to; None where there is no code for the epilogue.

    also: functions to stand in the same source.
    """
    graph = request.graph
    operands = operand_ids(graph, request.kernel)
    x, w = node.operands
    if len(request.kernel.nodes) > 1 and x == w:
        return None
    names = [f"operand{i}" for i in range(len(operands))]
    weight_at = len(operands) - 1 - operands[::-1].index(w)
    names[weight_at] = "w"
    if x in operands:
        names[operands.index(x)] = "x"
    types = [graph[i].type.dtype for i in operands]
    pointers = {i: Pointer(name, dtype) for i, name, dtype in zip(operands, names, types, strict=True)}
    epilogue = make_epilogue(request, node.id, pointers, plan.lanes)
    if epilogue is None:
        return None
    prologue = make_prologue(request, node.id, pointers, plan.lanes)
    if prologue is not None and prologue.lanes != plan.lanes:
        return None
    out = Pointer("out", graph[epilogue.result].type.dtype)
    outs = [("out", out.dtype)] if pooled is None else [(pointer.name, pointer.dtype) for pointer in pooled.pointers]
    outs += epilogue.further.outputs
    outer = [*outs, *zip(names, types, strict=True), ("weights", F32)]
    r = _Request(request.threads, c, plan, epilogue, out, outer, pooled, prologue)
    ways = [_chunked(r)]
    if plan.is_far:
        ways.append(_phased(r))
        taken = ways[is_phased(plan, c.batch)]
        ways = [way if way is taken else way.idle() for way in ways]
    weights = WinogradCode(c, plan, epilogue, out, _chunk_steps(plan), r.sizes).weights(r.written("weights"))
    functions = [weights, *(function for way in ways for function in way.functions)]
    counts = [plan.blocks * -(-plan.channels // WEIGHT_CHANNELS), *(count for way in ways for count in way.tasks)]
    moments = r.written(*(name for name, _ in epilogue.further.outputs))
    addition = epilogue.addition(sum(way.parts for way in ways), moments, r.sizes)
    return native_kernel(
        print_c([*functions, *addition.functions, *also]),
        (*(Phase(function.name, tasks) for function, tasks in zip(functions, counts, strict=True)), *addition.phases),
        (*(number for way in ways for number in way.sizes), *addition.numbers),
        (scratch(F32, plan.weight_elements), *(t for way in ways for t in way.scratch), *addition.scratch),
        machine=request.machine,
        prepared=(Prepared(len(outs) + weight_at, len(outs) + len(operands), 0),),
    )


@dataclass(frozen=True)
class _Request:
    """What both ways of putting the pieces together need; ``outer``: the buffers but for temporaries of theirs."""

    threads: int
    c: Contraction
    plan: WinogradPlan
    epilogue: Epilogue
    out: Pointer
    outer: list[tuple[str, DType]]
    pooled: Pooled | None
    prologue: Prologue | None

    @property
    def outs(self) -> list[str]:
        """The names of what is written in the end."""
        return ["out", PARTS] if self.pooled is None else [pointer.name for pointer in self.pooled.pointers]

    @property
    def sizes(self) -> tuple[str, ...]:
        """Run-time numbers that functions get."""
        return CHUNK_SIZES + PHASE_SIZES * self.plan.is_far + self.epilogue.further.sizes

    def written(self, *wanted: str) -> Buffers:
        """All buffers, those named being written."""
        temporaries = CHUNK_BUFFERS + PHASE_BUFFERS * self.plan.is_far
        buffers = [*self.outer, *temporaries, *self.epilogue.further.temporaries]
        return tuple((name, dtype, name in wanted) for name, dtype in buffers)


@dataclass(frozen=True)
class _Way:
    """Functions with their numbers of tasks, and what they add to the run-time sizes and temporaries.

    parts: of statistics, where there are any.
    """

    functions: tuple[Function, ...]
    tasks: tuple[int, ...]
    sizes: tuple[int, ...]
    scratch: tuple[TensorType, ...]
    parts: int

    def idle(self) -> _Way:
        """Without tasks, and only as much memory as it takes to name it."""
        kept = tuple(scratch(t.dtype, 1) for t in self.scratch)
        return replace(self, tasks=(0,) * len(self.tasks), scratch=kept, parts=0)


# --- chunk by chunk --------------------------------------------------------------------------------------------------------


def _chunk_steps(plan: WinogradPlan) -> Steps:
    """Distances in what belongs to a thread."""
    return Steps(literal(plan.input_step), literal(plan.output_step), plan.width, plan.panel_step)


def _chunked(r: _Request) -> _Way:
    """Everything for a chunk of tiles and some blocks of output channels in one task."""
    plan = r.plan
    code = WinogradCode(r.c, plan, r.epilogue, r.out, _chunk_steps(plan), r.sizes, r.pooled, r.prologue)
    functions = _start(code, r.written("held")), _chunk(code, r.written(*r.outs, "own", "held"))
    shares = cut(plan, r.c.batch)
    own = scratch(F32, r.threads, sum(plan.parts)), scratch(I64, r.threads, HELD_STEP)
    return _Way(functions, (1, shares.tasks), (r.c.batch, shares.chunk, shares.parts, r.threads), own, shares.chunks)


def _start(code: WinogradCode, buffers: Buffers) -> Function:
    """Note that no thread holds the transformed inputs of any chunk; one task."""
    body = Body()
    with body.tasks(), body.loop("thread", 0, Variable("workers", INDEX)) as thread:
        body.store(HELD, thread * HELD_STEP, literal(-1))
    return body.function(f"{code.c.name}_winograd_start", buffers, code.sizes)


def _chunk(code: WinogradCode, buffers: Buffers) -> Function:
    """All of a chunk.  Tasks of one chunk are neighbours: a thread that does several of them transforms the inputs once."""
    plan, body = code.plan, Body()
    batch, chunk, parts, _ = (Variable(name, INDEX) for name in CHUNK_SIZES)
    inputs, products, _ = plan.parts
    with body.tasks() as task:
        own = body.pointer("mine", Pointer("own", F32), WORKER * sum(plan.parts))
        v, m = body.pointer("v", own, 0), body.pointer("m", own, inputs)
        copied = body.pointer("copied", own, inputs + products)
        part = body.let("part", task % parts)
        number = body.let("number", task // parts)
        first = body.let("first_tile", number * chunk)
        count = body.let("tiles", _least_of(batch * plan.tiles - first, chunk))
        padded = body.let("padded_tiles", (count + (plan.pixels - 1)) // plan.pixels * plan.pixels)
        with body.when(compare("!=", load(HELD, WORKER * HELD_STEP), number)):
            body.store(HELD, WORKER * HELD_STEP, number)
            with body.loop("tile", 0, count) as tile:
                code.transform(body, first + tile, tile, v, copied)
            code.blank(body, count, padded, v)
        start = body.let("first_block", part * plan.blocks // parts)
        stop = body.let("last_block", (part + 1) * plan.blocks // parts)
        with body.loop("block", start, stop) as block:
            with body.loop("k", 0, plan.products) as k:
                code.product(body, block, k, padded, v, m)
            seen = body.variable("seen", literal(0))
            with body.loop("tile", 0, count) as tile:
                code.result(body, block, first + tile, tile, m, number, seen)
    return body.function(f"{code.c.name}_winograd", buffers, code.sizes)


# --- phase by phase --------------------------------------------------------------------------------------------------------


def _phased(r: _Request) -> _Way:
    """Inputs, products and results as phases over all tiles."""
    plan = r.plan
    shares = cut_phases(plan, r.c.batch)
    steps = Steps(Variable("input_step", INDEX), Variable("output_step", INDEX), plan.blocks * plan.width, plan.panel)
    code = WinogradCode(r.c, plan, r.epilogue, r.out, steps, r.sizes, r.pooled, r.prologue)
    functions = (
        _inputs(code, r.written("transformed", "edges")),
        _products(code, r.written("multiplied")),
        _results(code, r.written(*r.outs)),
    )
    groups, results = (-(-tiles // shares.chunk) for tiles in (shares.padded, r.c.batch * plan.tiles))
    input_step, output_step = odd_lines(shares.padded * plan.channels), odd_lines(shares.padded * steps.row)
    kept = (
        scratch(F32, plan.products, input_step),
        scratch(F32, plan.products, output_step),
        scratch(F32, r.threads, plan.parts[2]),
    )
    sizes = (shares.chunk, shares.parts, shares.padded, input_step, output_step)
    return _Way(functions, (groups, plan.products * shares.parts, results), sizes, kept, results)


def _inputs(code: WinogradCode, buffers: Buffers) -> Function:
    """Transform the inputs; a task is a group of tiles."""
    plan, body = code.plan, Body()
    batch, group, padded = (Variable(name, INDEX) for name in ("batch", "group", "padded"))
    with body.tasks() as task:
        copied = body.pointer("copied", Pointer("edges", F32), WORKER * plan.parts[2])
        v, first = Pointer("transformed", F32), body.let("first_tile", task * group)
        last = body.let("last_tile", _least_of(first + group, padded))
        tiles = body.let("tiles", _least_of(batch * plan.tiles, last))
        with body.loop("tile", first, tiles) as tile:
            code.transform(body, tile, tile, v, copied)
        code.blank(body, select(first < tiles, tiles, first), last, v)
    return body.function(f"{code.c.name}_winograd_inputs", buffers, code.sizes)


def _products(code: WinogradCode, buffers: Buffers) -> Function:
    """The products; a task is one of the (m + 2)^2, for some blocks of output channels."""
    plan, body = code.plan, Body()
    shares, padded = (Variable(name, INDEX) for name in ("shares", "padded"))
    with body.tasks() as task:
        k, share = (body.let(name, e) for name, e in zip(("k", "share"), unravel(task, [0, shares]), strict=True))
        start = body.let("first_block", share * plan.blocks // shares)
        stop = body.let("last_block", (share + 1) * plan.blocks // shares)
        with body.loop("block", start, stop) as block:
            code.product(body, block, k, padded, Pointer("transformed", F32), Pointer("multiplied", F32))
    return body.function(f"{code.c.name}_winograd_products", buffers, code.sizes)


def _results(code: WinogradCode, buffers: Buffers) -> Function:
    """Tiles of the result; a task is a group of them."""
    plan, body = code.plan, Body()
    batch, group = (Variable(name, INDEX) for name in ("batch", "group"))
    with body.tasks() as task:
        last = body.let("last_tile", _least_of((task + 1) * group, batch * plan.tiles))
        ahead = body.variable("ahead", literal(0))
        with body.loop("tile", task * group, last) as tile:
            seen = body.variable("seen", ahead)
            with body.loop("block", 0, plan.blocks) as block:
                body.assign(seen, ahead)
                code.result(body, block, tile, tile, Pointer("multiplied", F32), task, seen)
            body.assign(ahead, seen)
    return body.function(f"{code.c.name}_winograd_results", buffers, code.sizes)


def _least_of(a: Expression, b: Expression) -> Expression:
    """The smaller of two indices."""
    return select(a < b, a, b)
