"""Random bits: Philox4x32-10 on whole arrays of counters, in blocks, with 64-bit arithmetic in temporaries."""

from __future__ import annotations

import math

from irconv.backends.arrays.base import Array, ArrayKernel, Request, kernel, scratch, spans
from irconv.ops.random import MULTIPLIERS, ROUNDS, WEYL
from irconv.types import U32, U64

BLOCK = 16 * 1024
"""Counters worked on at once on a CPU: six arrays of 64-bit words that stay in cache."""


@kernel("random_bits")
def _random_bits(request: Request) -> ArrayKernel:
    xp, stream, shape = request.xp, request.attributes.stream, request.result.shape
    total = math.prod(shape)
    count = -(-total // 4)
    pieces = spans(count, count if request.parallel is None else BLOCK)
    largest = max((stop - start for start, stop in pieces), default=1)
    multipliers = [xp.asarray(m, xp.uint64) for m in MULTIPLIERS]
    weyl = [xp.asarray(w, xp.uint64) for w in WEYL]
    low, word = xp.asarray(0xFFFFFFFF, xp.uint64), xp.asarray(32, xp.uint64)

    def round_(c: list[Array], keys: tuple[Array, Array], spare: list[Array]) -> None:
        """One round; the four counter words and two spare arrays change roles, nothing is copied."""
        first, second = spare
        xp.multiply(c[0], multipliers[0], first)
        xp.multiply(c[2], multipliers[1], second)
        # new words: (second >> 32) ^ c1 ^ k0, low half of second, (first >> 32) ^ c3 ^ k1, low half of first
        xp.right_shift(second, word, c[0])
        xp.bitwise_xor(c[0], c[1], c[0])
        xp.bitwise_xor(c[0], keys[0], c[0])
        xp.right_shift(first, word, c[2])
        xp.bitwise_xor(c[2], c[3], c[2])
        xp.bitwise_xor(c[2], keys[1], c[2])
        xp.bitwise_and(second, low, second)
        xp.bitwise_and(first, low, first)
        c[1], c[3], spare[0], spare[1] = second, first, c[1], c[3]

    def philox(c: list[Array], spare: list[Array], key: tuple[Array, Array]) -> None:
        k0, k1 = key
        for _ in range(ROUNDS):
            round_(c, (k0, k1), spare)
            k0, k1 = (k0 + weyl[0]) & low, (k1 + weyl[1]) & low

    def run(out: Array, key: Array, step: Array, counters: Array, words: Array) -> None:
        wide = key.astype(xp.uint64)
        small = counters[:, :1]
        for i, value in enumerate((*stream, 0, 0)):
            small[i] = value
        c = [small[i] for i in range(4)]
        philox(c, [small[4], small[5]], (wide[0], wide[1]))
        subkey = (c[0].copy(), c[1].copy())
        steps = (step & low, step >> word)
        flat = out.reshape(-1)
        for start, stop in pieces:
            size = stop - start
            c = [counters[i, :size] for i in range(4)]
            xp.copyto(c[1], xp.arange(start, stop, dtype=xp.uint64))
            xp.bitwise_and(c[1], low, c[0])
            xp.right_shift(c[1], word, c[1])
            xp.copyto(c[2], steps[0])
            xp.copyto(c[3], steps[1])
            philox(c, [counters[4, :size], counters[5, :size]], subkey)
            for i in range(4):
                xp.copyto(words[:size, i], c[i], casting="same_kind")
            end = min(4 * stop, total)
            xp.copyto(flat[4 * start : end], words[:size].reshape(-1)[: end - 4 * start])

    return ArrayKernel(run, (scratch(U64, 6, largest), scratch(U32, largest, 4)))
