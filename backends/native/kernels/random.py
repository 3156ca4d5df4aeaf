"""Random bits: Philox4x32-10, a vector of counters at a time, the same words as the reference to the bit.

The four words of a block are held in the lower halves of 64-bit numbers, so that a product of two words is one instruction.
Stream and shape are run-time sizes: all random ops of a model share one unit.
"""

from __future__ import annotations

import math

from irconv.backends.codegen.body import FIRST, LAST, Body
from irconv.backends.codegen.c import print_c
from irconv.backends.codegen.form import (
    Bits,
    Call,
    Expression,
    Literal,
    Pointer,
    Type,
    call,
    convert,
    literal,
    load,
    splat,
)
from irconv.backends.native.base import NativeKernel, NativeRequest, Phase, native, native_kernel
from irconv.backends.native.kernels.element_loops import Sizes
from irconv.ops.random import MULTIPLIERS, ROUNDS, WEYL
from irconv.strides import is_contiguous
from irconv.types import U32, U64

FUNCTION = "random_bits"
TASK_BLOCKS = 8192
"""Blocks of four words in a task: about 20 us."""

WORD = 2**32 - 1
Words = tuple[Expression, Expression, Expression, Expression]


@native("random_bits")
def _random_bits(request: NativeRequest) -> NativeKernel | None:
    """None for a result that is not row-major: places are counted in that order."""
    node = request.graph[request.kernel.nodes[0]]
    if not is_contiguous(node.type.shape, request.strides[node.id]):
        return None
    count = math.prod(node.type.shape)
    blocks = -(-count // 4)
    body, sizes = Body(), Sizes()
    total = sizes.add("words", count)
    key, step, out = Pointer("key", U32), Pointer("step", U64), Pointer("out", U32)
    key_stride = sizes.add("key_stride", request.strides[node.operands[0]][0])
    stream = [convert(sizes.add(f"stream{i}", word), U64) for i, word in enumerate(node.attributes.stream)]
    zero = Literal(0, Type(U64))
    keys = tuple(convert(load(key, key_stride * i), U64) for i in range(2))
    subkey = _philox(body, (stream[0], stream[1], zero, zero), keys, 1)
    lanes = request.machine.lanes(8)
    when = body.let("when", load(step, 0))
    low_step, high_step = (body.let("step_word", splat(x, lanes)) for x in (when & WORD, when >> 32))

    def vector(block: Expression) -> tuple[Expression, Expression]:
        """Vectors of the words of ``lanes`` blocks, in the order in which they are stored."""
        number = body.let("number", Call("counting", (convert(block, U64),), Type(U64, lanes)))
        c = _philox(body, (number, number >> 32, low_step, high_step), tuple(splat(k, lanes) for k in subkey[:2]), lanes)
        first, second = (body.let("pair", (c[i] & WORD) | (c[i + 1] << 32)) for i in (0, 2))
        pairs = (call(f"interleave_{half}", first, second) for half in ("low", "high"))
        return tuple(body.let("words", Bits(pair, Type(U32, 2 * lanes))) for pair in pairs)  # type: ignore[return-value]

    start, stop = body.let("start", FIRST * TASK_BLOCKS), body.let("stop", LAST * TASK_BLOCKS)
    whole = body.let("whole", total // (4 * lanes) * lanes)
    with body.loop("block", start, call("smaller", stop, whole), lanes) as block:
        for half, value in enumerate(vector(block)):
            body.store(out, block * 4 + half * 2 * lanes, value)
    # what is left is less than a vector of blocks, and part of one task
    with body.when((start <= whole) & (whole < stop) & (whole * 4 < total)):
        for half, value in enumerate(vector(whole)):
            left = body.let("left", total - whole * 4 - half * 2 * lanes)
            with body.when(left > 0):
                body.store(out, whole * 4 + half * 2 * lanes, value, call("smaller", left, literal(2 * lanes)))
    buffers = [("out", U32, True), ("key", U32, False), ("step", U64, False)]
    function = body.function(FUNCTION, buffers, sizes.names)
    tasks = max(1, -(-blocks // TASK_BLOCKS))
    return native_kernel(print_c([function]), (Phase(FUNCTION, tasks),), tuple(sizes.values))


def _philox(body: Body, counter: Words, key: tuple[Expression, ...], lanes: int) -> Words:
    """Ten rounds; only the lower halves of what comes out count."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(ROUNDS):
        first = body.let("first_product", call("multiply_words", c0, Literal(MULTIPLIERS[0], Type(U64, lanes))))
        second = body.let("second_product", call("multiply_words", c2, Literal(MULTIPLIERS[1], Type(U64, lanes))))
        c0, c2 = (body.let("word", (p >> 32) ^ c ^ k) for p, c, k in ((second, c1, k0), (first, c3, k1)))
        c1, c3 = second, first
        k0, k1 = (body.let("round_key", k + w) for k, w in zip((k0, k1), WEYL, strict=True))
    return c0, c1, c2, c3
