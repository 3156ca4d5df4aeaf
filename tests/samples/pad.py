"""Samples of pad and its adjoint."""

from __future__ import annotations

import numpy as np

from irconv.ops.pad import PadAdjointAttributes, PadAttributes
from tests.samples import Sample, numbers

X = numbers(2, 3, 4)
REPEATING = ("edge", "reflect", "wrap", "mean")


def _constant() -> list[Sample]:
    image = numbers(1, 2, 3, 3)
    return [
        Sample("pad", (X,), PadAttributes(((1, 1), (0, 2), (3, 0)), "constant", 0.0), about="zeros"),
        Sample("pad", (X,), PadAttributes(((0, 0), (1, 0), (0, 1)), "constant", -1.5), about="a value"),
        Sample("pad", (X,), PadAttributes(((0, 0), (-1, 2), (2, -3)), "constant", 7.0), about="crop and add"),
        Sample("pad", (X,), PadAttributes(((0, -1), (-1, -1), (-4, 0)), "constant", 0.0), about="crop to nothing"),
        Sample("pad", (X,), PadAttributes(((0, 0), (-5, 4), (0, 0)), "constant", 2.0), about="crop beyond the operand"),
        Sample("pad", (image,), PadAttributes(((0, 0), (0, 0), (5, 5), (5, 5)), "constant", 0.5), about="larger than the images"),
        Sample(
            "pad", (image,), PadAttributes(((0, 0), (0, 0), (1, 1), (1, 1)), "constant", -np.inf), about="-inf", gradient=False
        ),
        Sample("pad", (np.zeros((0, 2)),), PadAttributes(((1, 1), (0, 1)), "constant", 3.0), about="empty operand"),
        Sample(
            "pad", (np.arange(4, dtype=np.uint8),), PadAttributes(((2, 1),), "constant", 255.0), about="integers", gradient=False
        ),
        Sample("pad", (np.array([True]),), PadAttributes(((1, 1),), "constant", 0.0), about="bool", gradient=False),
        Sample(
            "pad",
            (X.astype(np.float16),),
            PadAttributes(((1, 0), (0, 0), (0, 1)), "constant", 0.5),
            about="float16",
            gradient=False,
        ),
    ]


def _repeating() -> list[Sample]:
    rows = []
    small, large = ((0, 0), (1, 2), (2, 1)), ((5, 0), (0, 7), (9, 11))
    for mode in REPEATING:
        integers = np.array([[3, 8, 10]], np.int32)
        rows += [
            Sample("pad", (X,), PadAttributes(small, mode, 0.0), about=f"{mode}"),
            Sample("pad", (X,), PadAttributes(large, mode, 0.0), about=f"{mode}, larger than the operand"),
            Sample("pad", (numbers(1, 3),), PadAttributes(((2, 1), (0, 0)), mode, 0.0), about=f"{mode}, one element"),
            Sample("pad", (np.zeros((0, 3)),), PadAttributes(((0, 0), (1, 1)), mode, 0.0), about=f"{mode}, empty batch"),
            Sample("pad", (integers,), PadAttributes(((0, 1), (2, 2)), mode, 0.0), about=f"{mode}, integers", gradient=False),
            Sample("pad_adjoint", (numbers(2, 6, 7),), PadAdjointAttributes(small, mode), about=f"{mode}"),
            Sample("pad_adjoint", (numbers(7, 10, 24),), PadAdjointAttributes(large, mode), about=f"{mode}, large", second=False),
            Sample(
                "pad_adjoint",
                (numbers(4, 3).astype(np.float16),),
                PadAdjointAttributes(((2, 1), (0, 0)), mode),
                about=f"{mode}, one element, float16",
                gradient=False,
            ),
        ]
    return rows


SAMPLES = [*_constant(), *_repeating()]
