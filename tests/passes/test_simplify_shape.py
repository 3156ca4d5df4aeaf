"""The rules of simplify on shapes, reductions and windows: the text they leave, the same bits, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest

from irconv.op import emit
from irconv.ops.concat import CONCAT, ConcatAttributes, concat, split
from irconv.ops.contract import im2col
from irconv.ops.conv import conv
from irconv.ops.pad import PAD, PadAttributes, pad
from irconv.ops.pool import avg_pool, max_pool, min_pool
from irconv.ops.reduce import reduce_max, reduce_mean, reduce_min, reduce_prod, reduce_sum
from irconv.ops.shape import (
    BROADCAST,
    EMBED,
    FLIP,
    RESHAPE,
    SLICE,
    TRANSPOSE,
    BroadcastAttributes,
    EmbedAttributes,
    FlipAttributes,
    ReshapeAttributes,
    SliceAttributes,
    TransposeAttributes,
    broadcast,
    embed,
    flip,
    narrow,
    reshape,
    slice_,
    transpose,
)
from irconv.passes.simplify import Simplify
from tests.passes.building import build, check_simplified, golden, run, text

F = "f32[2,3]"

# --- shapes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("op", "attributes"),
    [
        (RESHAPE, ReshapeAttributes((2, 3))),
        (TRANSPOSE, TransposeAttributes((0, 1))),
        (BROADCAST, BroadcastAttributes((2, 3))),
        (SLICE, SliceAttributes((0, 0), (2, 3), (1, 1))),
        (EMBED, EmbedAttributes((0, 0), (1, 1), (2, 3))),
        (FLIP, FlipAttributes(())),
        (PAD, PadAttributes(((0, 0), (0, 0)), "edge", 0.0)),
        (CONCAT, ConcatAttributes(1)),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_shape_ops_that_do_nothing(op, attributes):
    check_simplified(lambda x: emit(op, attributes, x), "return y = %x", x=F)


def test_flip_of_single_elements():
    check_simplified(lambda x: flip(x, 0), "return y = %x", x="f32[1,3]")


@pytest.mark.parametrize(
    ("function", "type_", "expected"),
    [
        (lambda x: reshape(reshape(x, (6,)), (3, 2)), F, "reshape(%x) shape=[3,2] : f32[3,2]"),
        (lambda x: broadcast(broadcast(x, (2, 3)), (4, 2, 3)), "f32[3]", "broadcast(%x) shape=[4,2,3] : f32[4,2,3]"),
        (
            lambda x: transpose(transpose(x, (1, 2, 0)), (1, 2, 0)),
            "f32[2,3,4]",
            "transpose(%x) axes=[2,0,1] : f32[4,2,3]",
        ),
        (lambda x: flip(flip(x, 0), 1), F, "flip(%x) axes=[0,1] : f32[2,3]"),
        (
            lambda x: slice_(slice_(x, (1,), (10,), (3,)), (0,), (3,), (2,)),
            "f32[12]",
            "slice(%x) start=[1] stop=[8] step=[6] : f32[2]",
        ),
        (
            lambda x: slice_(slice_(x, (1,), (10,), (3,)), (1,), (3,), (2,)),
            "f32[12]",
            "slice(%x) start=[4] stop=[5] step=[1] : f32[1]",
        ),
        (
            lambda x: pad(pad(x, 1, value=2.0), ((1, 2), (0, 1)), value=2.0),
            F,
            "pad(%x) padding=[[2,3],[1,2]] mode=constant value=2.0 : f32[7,6]",
        ),
    ],
)
def test_one_after_another(function, type_, expected):
    graph = build(function, x=type_)
    name = graph[graph.outputs["y"]].name
    check_simplified(function, f"%{name} = {expected}\nreturn y = %{name}", x=type_)


@pytest.mark.parametrize(
    ("function", "type_"),
    [
        (lambda x: reshape(reshape(x, (6,)), (2, 3)), F),
        (lambda x: transpose(transpose(x, (1, 2, 0)), (2, 0, 1)), "f32[2,3,4]"),
        (lambda x: flip(flip(x, 0), 0), F),
        (lambda x: concat(split(x, 3, 1), 1), F),
        (lambda x: narrow(concat([x, x], 1), 1, 3, 6), F),
        (lambda x: slice_(pad(x, ((1, 1), (2, 0)), value=3.0), (1, 2), (3, 5)), F),
        (lambda x: slice_(embed(x, (1, 2), (2, 1), (5, 5)), (1, 2), (4, 5), (2, 1)), F),
        (lambda x: reduce_prod(x, (), True), F),
        (lambda x: reduce_max(x, 1, True), "f32[2,1]"),
        (lambda x: max_pool(x, 1), "f32[1,2,4,4]"),
        (lambda x: min_pool(x, 1), "f32[1,2,4,4]"),
        (lambda x: avg_pool(x, 1), "f32[1,2,4,4]"),
    ],
)
def test_undoing(function, type_):
    graph = build(function, x=type_)
    after, notes = run(Simplify(), graph)
    assert text(after) == "return y = %x" and not notes


@pytest.mark.parametrize(
    ("function", "note"),
    [
        (lambda x: pad(pad(x, 1, value=2.0), 1), "pad-of-pad: they fill with 2.0 and 0.0"),
        (
            lambda x: pad(pad(x, 1, "edge"), 1, "edge"),
            "pad-of-pad: modes are 'edge' and 'edge'; only padding with a constant adds up",
        ),
        (
            lambda x: pad(pad(x, -1), 1),
            "pad-of-pad: padding [(-1, -1), (-1, -1)] or [(1, 1), (1, 1)] crops",
        ),
        (
            lambda x: narrow(concat([x, narrow(x, 1, 0, 2)], 1), 1, 2, 4),
            "slice-of-concat: 2:4 of axis 1 spans parts of sizes [3, 2]",
        ),
        (
            lambda x: slice_(pad(x, ((1, 1), (2, 0)), value=3.0), (0, 2), (3, 5)),
            "slice-of-pad: 0:3 of axis 0 is not inside 1:3, the unpadded elements",
        ),
        (
            lambda x: slice_(embed(x, (1, 2), (2, 1), (5, 5)), (0, 2), (4, 5), (2, 1)),
            "slice-of-embed: takes [2, 3] from [0, 2] by [2, 1], but [2, 3] were put at [1, 2] by [2, 1]",
        ),
    ],
)
def test_shapes_refuse(function, note):
    graph = build(function, x=F)
    after, notes = run(Simplify(), graph)
    assert text(after) == text(graph)
    assert [f"{each.rule}: {each.reason}" for each in notes] == [note]


def test_slices_of_concat():
    def function(x, y):
        joined = concat([x, y], 1)
        return narrow(joined, 1, 1, 2), narrow(joined, 1, 3, 4), slice_(joined, (0, 0), (2, 3), (1, 2))

    expected = """
        %slice = slice(%x) start=[0,1] stop=[2,2] step=[1,1] : f32[2,1]
        %slice_1 = slice(%y) start=[0,0] stop=[2,1] step=[1,1] : f32[2,1]
        %slice_2 = slice(%x) start=[0,0] stop=[2,3] step=[1,2] : f32[2,2]
        return y0 = %slice, y1 = %slice_1, y2 = %slice_2
    """
    check_simplified(function, expected, x=F, y="f32[2,2]")


def test_concat_of_slices_in_another_order_stays():
    graph = build(lambda x: concat(split(x, 3, 1)[::-1], 1), x=F)
    assert text(run(Simplify(), graph)[0]) == text(graph)


def test_reductions_of_single_elements():
    def function(x, i, b):
        return reduce_prod(x, 1), reduce_min(x, 2), reduce_sum(i, 1), reduce_sum(b, 1)

    expected = """
        %min = min(%x) axes=[2] keepdims=false : f32[2,1]
        %sum_1 = sum(%b) axes=[1] keepdims=false : i64[2]
        %prod = reshape(%x) shape=[2,3] : f32[2,3]
        %sum = reshape(%i) shape=[2] : i32[2]
        return y0 = %prod, y1 = %min, y2 = %sum, y3 = %sum_1
    """
    check_simplified(function, expected, x="f32[2,1,3]", i="i32[2,1]", b="bool[2,1]")


def test_sums_of_single_floats_lose_the_sign_of_zero():
    expected = """
        %sum.reshape = reshape(%x) shape=[2] : f32[2]
        %constant = constant() value=0.0 : f32[]
        %sum = add(%sum.reshape, %constant) : f32[2]
        %constant_1 = constant() value=0.0 : f32[]
        %mean = add(%x, %constant_1) : f32[2,1]
        return y0 = %sum, y1 = %mean
    """
    graph = build(lambda x: (reduce_sum(x, 1), reduce_mean(x, ())), x="f32[2,1]")
    after, notes = run(Simplify(), graph, {"x": np.array([[-0.0], [1.0]], np.float32)})
    assert text(after) == golden(expected)
    assert [note.rule for note in notes] == ["add-zero", "add-zero"]


def test_pools_that_do_something_stay():
    for function in (lambda x: avg_pool(x, 1, divisor_override=2), lambda x: max_pool(x, 1, 2)):
        graph = build(function, x="f32[1,2,4,4]")
        assert text(run(Simplify(), graph)[0]) == text(graph)


# --- padding before windows ------------------------------------------------------------------------------------------

IMAGE, WEIGHT = "f32[1,2,5,5]", "f32[3,2,3,3]"


def test_padding_goes_into_the_window():
    def function(x, w):
        padded = pad(x, ((0, 0), (0, 0), (1, 2), (0, 1)))
        return conv(padded, w, padding=1), im2col(padded, 3)

    expected = """
        %conv = conv(%x, %w) stride=[1,1] padding=[[2,3],[1,2]] dilation=[1,1] groups=1 : f32[1,3,8,6]
        %im2col = im2col(%x) kernel=[3,3] stride=[1,1] padding=[[1,2],[0,1]] dilation=[1,1] groups=1 : f32[1,24,18]
        return y0 = %conv, y1 = %im2col
    """
    check_simplified(function, expected, x=IMAGE, w=WEIGHT)


@pytest.mark.parametrize(
    ("padding", "options", "window", "reason"),
    [
        (((0, 0), (0, 0), (1, 2), (0, 1)), {"value": 1.0}, 0, "conv pads with zeros, not with 1.0"),
        (((0, 0), (0, 0), (1, 2), (0, 1)), {"mode": "edge"}, 0, "conv pads with zeros, not with edge"),
        (((1, 0), (0, 0), (1, 2), (0, 1)), {}, 0, "padding [(1, 0), (0, 0)] of batch and channels stays"),
        (((0, 0), (0, 0), (-1, 2), (0, 1)), {}, 1, "(-1, 2) crops elements, (1, 1) puts zeros in their place"),
    ],
)
def test_other_padding_stays(padding, options, window, reason):
    graph = build(lambda x, w: conv(pad(x, padding, **options), w, padding=window), x=IMAGE, w=WEIGHT)
    after, notes = run(Simplify(), graph)
    assert text(after) == text(graph) and [note.reason for note in notes] == [reason]
