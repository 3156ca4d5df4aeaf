"""Samples of the shape ops: views, embed, slice_update and concat."""

from __future__ import annotations

import numpy as np

from irconv.ops.concat import ConcatAttributes
from irconv.ops.layout import RelayoutAttributes
from irconv.ops.shape import (
    BroadcastAttributes,
    EmbedAttributes,
    FlipAttributes,
    ReshapeAttributes,
    SliceAttributes,
    SliceUpdateAttributes,
    TransposeAttributes,
)
from irconv.types import Layout
from tests.samples import Sample, numbers

X = numbers(2, 3, 4)
INTEGERS = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
STRIDED = numbers(4, 3, 8)[::-2, :, ::2]


def _views() -> list[Sample]:
    return [
        Sample("reshape", (X,), ReshapeAttributes((4, 6)), about="4x6"),
        Sample("reshape", (X,), ReshapeAttributes((24,)), about="flat"),
        Sample("reshape", (X,), ReshapeAttributes((2, 1, 3, 1, 4)), about="axes of size 1"),
        Sample("reshape", (STRIDED,), ReshapeAttributes((6, 4)), about="strided operand"),
        Sample("reshape", (np.array(3.0),), ReshapeAttributes((1, 1)), about="scalar"),
        Sample("reshape", (np.zeros((0, 4)),), ReshapeAttributes((2, 0)), about="empty"),
        Sample("transpose", (X,), TransposeAttributes((2, 0, 1)), about="rotate"),
        Sample("transpose", (X,), TransposeAttributes((1, 0, 2)), about="swap outer"),
        Sample("transpose", (STRIDED,), TransposeAttributes((0, 2, 1)), about="swap inner, strided"),
        Sample("transpose", (INTEGERS,), TransposeAttributes((2, 1, 0)), about="integers", gradient=False),
        Sample("transpose", (np.array(3.0),), TransposeAttributes(()), about="scalar"),
        Sample("broadcast", (numbers(3, 1),), BroadcastAttributes((3, 4)), about="last axis"),
        Sample("broadcast", (numbers(1, 4),), BroadcastAttributes((2, 3, 4)), about="new axis and first"),
        Sample("broadcast", (np.array(2.5),), BroadcastAttributes((2, 2)), about="scalar"),
        Sample("broadcast", (numbers(1),), BroadcastAttributes((0,)), about="to nothing"),
        Sample("broadcast", (np.array([[True], [False]]),), BroadcastAttributes((2, 3)), about="bool", gradient=False),
        Sample("flip", (X,), FlipAttributes((1,)), about="one axis"),
        Sample("flip", (X,), FlipAttributes((0, 2)), about="two axes"),
        Sample("flip", (X,), FlipAttributes(()), about="no axis"),
        Sample("flip", (STRIDED,), FlipAttributes((0, 1, 2)), about="all axes, strided"),
        Sample("flip", (INTEGERS,), FlipAttributes((2,)), about="integers", gradient=False),
    ]


def _layouts() -> list[Sample]:
    last = RelayoutAttributes(Layout(((0, 0), (2, 0), (1, 0))))
    return [
        Sample("relayout", (X,), last, about="channels last"),
        Sample("relayout", (STRIDED,), last, about="channels last, strided"),
        Sample("relayout", (X,), RelayoutAttributes(Layout(((0, 0), (1, 0), (2, 0)))), about="row-major"),
        Sample("relayout", (X,), RelayoutAttributes(Layout(((2, 0), (1, 0), (0, 0)))), about="column-major"),
        Sample("relayout", (INTEGERS,), last, about="integers", gradient=False),
    ]


def _slices() -> list[Sample]:
    whole = (0, 0, 0), (2, 3, 4), (1, 1, 1)
    return [
        Sample("slice", (X,), SliceAttributes(*whole), about="everything"),
        Sample("slice", (X,), SliceAttributes((1, 0, 2), (2, 3, 4), (1, 1, 1)), about="corner"),
        Sample("slice", (X,), SliceAttributes((0, 0, 0), (1, 3, 4), (1, 2, 3)), about="steps"),
        Sample("slice", (X,), SliceAttributes((0, 1, 1), (2, 3, 4), (1, 1, 2)), about="from 1 by 2"),
        Sample("slice", (X,), SliceAttributes((0, 2, 0), (2, 2, 4), (1, 1, 1)), about="nothing"),
        Sample("slice", (INTEGERS,), SliceAttributes((0, 1, 0), (2, 2, 3), (1, 1, 2)), about="integers", gradient=False),
        Sample("slice", (np.array(1.0),), SliceAttributes((), (), ()), about="scalar"),
        Sample("embed", (numbers(2, 3),), EmbedAttributes((1, 0), (1, 1), (4, 3)), about="rows"),
        Sample("embed", (numbers(2, 3),), EmbedAttributes((0, 1), (3, 2), (4, 7)), about="steps"),
        Sample("embed", (numbers(2, 3),), EmbedAttributes((0, 0), (1, 1), (2, 3)), about="everything"),
        Sample("embed", (np.zeros((0, 3)),), EmbedAttributes((0, 0), (1, 1), (2, 3)), about="nothing"),
        Sample("embed", (INTEGERS[0],), EmbedAttributes((1, 1), (2, 1), (7, 6)), about="integers", gradient=False),
        Sample("slice_update", (X, numbers(1, 2, 4, seed=3)), SliceUpdateAttributes((1, 1, 0), (1, 1, 1)), about="block"),
        Sample("slice_update", (X, numbers(2, 2, 2, seed=3)), SliceUpdateAttributes((0, 0, 1), (1, 2, 2)), about="steps"),
        Sample("slice_update", (X, numbers(1, 1, 2, seed=3)), SliceUpdateAttributes((1, 0, 0), (2, 1, 3)), about="corner steps"),
        Sample("slice_update", (X, X[::-1]), SliceUpdateAttributes((0, 0, 0), (1, 1, 1)), about="everything"),
        Sample("slice_update", (X, np.zeros((2, 0, 4))), SliceUpdateAttributes((0, 3, 0), (1, 1, 1)), about="nothing"),
        Sample(
            "slice_update",
            (INTEGERS, -INTEGERS[:1]),
            SliceUpdateAttributes((1, 0, 0), (1, 1, 1)),
            about="integers",
            gradient=False,
        ),
    ]


def _concats() -> list[Sample]:
    return [
        Sample("concat", (X, numbers(1, 3, 4, seed=2)), ConcatAttributes(0), about="first axis"),
        Sample("concat", (X, numbers(2, 1, 4, seed=2), numbers(2, 2, 4, seed=4)), ConcatAttributes(1), about="three operands"),
        Sample("concat", (X, STRIDED), ConcatAttributes(2), about="last axis, strided"),
        Sample("concat", (X,), ConcatAttributes(1), about="one operand"),
        Sample("concat", (X, X[:, :0]), ConcatAttributes(1), about="an empty operand"),
        Sample("concat", (INTEGERS, INTEGERS), ConcatAttributes(2), about="integers", gradient=False),
        Sample("concat", (X.astype(np.float16), X.astype(np.float16)), ConcatAttributes(0), about="float16", gradient=False),
    ]


SAMPLES = [*_views(), *_layouts(), *_slices(), *_concats()]
