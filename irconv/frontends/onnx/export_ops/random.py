"""Random bits in ONNX: Philox4x32-10 from integer operators, as functions that the model brings along.

ONNX's own random operators leave open which numbers they draw.  ``Philox`` makes four words of 32 bits from key and counter by
ten calls of ``PhiloxRound``.  All is done in int64, in which nothing overflows: products of a 32-bit word are taken with its two
halves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from onnx import FunctionProto, NodeProto, helper, numpy_helper

from irconv.frontends.onnx.export_ops.writer import DOMAIN, Writer, lowering
from irconv.graph import Node
from irconv.ops.random import MULTIPLIERS, ROUNDS, WEYL
from irconv.types import I64, U32, U64

WORDS = ("c0", "c1", "c2", "c3", "k0", "k1")
"""The counter and the key."""


class _Body:
    """Collects the nodes of a function."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []

    def op(self, kind: str, *inputs: str, to: str | None = None, domain: str = "", count: int = 1) -> list[str]:
        names = [to] if to else [f"{kind.lower()}{len(self.nodes)}_{i}" for i in range(count)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, domain=domain))
        return names

    def one(self, kind: str, *inputs: str, to: str | None = None) -> str:
        return self.op(kind, *inputs, to=to)[0]

    def number(self, value: int) -> str:
        name = f"number{len(self.nodes)}"
        tensor = numpy_helper.from_array(np.asarray(value, np.int64))
        self.nodes.append(helper.make_node("Constant", [], [name], value=tensor))
        return name

    def function(self, name: str, outputs: Sequence[str], opset: int) -> FunctionProto:
        imports = [helper.make_opsetid("", opset), helper.make_opsetid(DOMAIN, 1)]
        return helper.make_function(DOMAIN, name, WORDS, list(outputs), self.nodes, imports)


def _product(body: _Body, word: str, multiplier: int) -> tuple[str, str]:
    """The high and the low word of word * multiplier."""
    half, whole, factor = body.number(2**16), body.number(2**32), body.number(multiplier)
    lower = body.one("Mod", word, half)
    # not Div(word, half): onnxruntime takes Mul(Div(1, a), b) for b / a, with integers too
    upper = body.one("Div", body.one("Sub", word, lower), half)
    low_part, high_part = body.one("Mul", lower, factor), body.one("Mul", upper, factor)
    middle = body.one("Add", high_part, body.one("Div", low_part, half))
    high = body.one("Div", middle, half)
    low = body.one("Add", body.one("Mul", body.one("Mod", middle, half), half), body.one("Mod", low_part, half))
    return high, body.one("Mod", low, whole)


def _round(opset: int) -> FunctionProto:
    body = _Body()
    (high0, low0), (high1, low1) = _product(body, "c0", MULTIPLIERS[0]), _product(body, "c2", MULTIPLIERS[1])
    body.one("BitwiseXor", body.one("BitwiseXor", high1, "c1"), "k0", to="d0")
    body.one("Identity", low1, to="d1")
    body.one("BitwiseXor", body.one("BitwiseXor", high0, "c3"), "k1", to="d2")
    body.one("Identity", low0, to="d3")
    for i, step in enumerate(WEYL):
        body.one("Mod", body.one("Add", f"k{i}", body.number(step)), body.number(2**32), to=f"l{i}")
    return body.function("PhiloxRound", ("d0", "d1", "d2", "d3", "l0", "l1"), opset)


def _philox(opset: int) -> FunctionProto:
    body = _Body()
    words: Sequence[str] = WORDS
    for _ in range(ROUNDS):
        words = body.op("PhiloxRound", *words, domain=DOMAIN, count=6)
    for i in range(4):
        body.one("Identity", words[i], to=f"w{i}")
    return body.function("Philox", ("w0", "w1", "w2", "w3"), opset)


@lowering("random_bits")
def _random_bits(w: Writer, node: Node, key: str, step: str) -> str:
    w.functions.setdefault("PhiloxRound", _round(w.opset))
    w.functions.setdefault("Philox", _philox(w.opset))
    count = math.prod(node.type.shape)
    key = w.cast(key, I64)
    pair = [w.op("Gather", key, w.constant(i, I64), axis=0) for i in range(2)]
    zero = w.constant(0, I64)
    stream = [w.constant(word, I64) for word in node.attributes.stream]
    subkey = w.ops("Philox", *stream, zero, zero, *pair, outputs=4, domain=DOMAIN)[:2]
    count_of_blocks = -(-count // 4)
    blocks = w.op("Range", zero, w.constant(count_of_blocks, I64), w.constant(1, I64))
    whole = w.constant(2**32, I64)
    counter = [w.op("Mod", blocks, whole), w.op("Div", blocks, whole)]
    shift = w.constant(32, U64)
    upper = w.op("BitShift", step, shift, direction="RIGHT")
    lower = w.op("BitwiseXor", step, w.op("BitShift", upper, shift, direction="LEFT"))
    words = w.ops("Philox", *counter, w.cast(lower, I64), w.cast(upper, I64), *subkey, outputs=4, domain=DOMAIN)
    columns = [w.reshape(word, (count_of_blocks, 1)) for word in words]
    flat = w.reshape(w.op("Concat", *columns, axis=1), (4 * count_of_blocks,))
    if count % 4:
        flat = w.slice(flat, [0], [count], [1], [0])
    return w.reshape(w.cast(flat, U32), node.type.shape)
