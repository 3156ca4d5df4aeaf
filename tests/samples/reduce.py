"""Samples of the reductions."""

from __future__ import annotations

import numpy as np

from irconv.ops.reduce import ReduceAttributes
from tests.samples import Sample, numbers

X = numbers(2, 3, 4)
AXES = ((), (0,), (1,), (2,), (0, 2), (1, 2), (0, 1, 2))
INTEGERS = np.random.default_rng(0).integers(-5, 6, (3, 4)).astype(np.int32)
TIES = np.array([[1.0, 3.0, 3.0, 2.0], [3.0, -1.0, -1.0, 3.0]])
NANS = np.array([[1.0, np.nan, 3.0, np.nan], [np.inf, 2.0, -np.inf, 0.0]])


def _every(name: str, differentiable: bool) -> list[Sample]:
    rows = [
        Sample(
            name,
            (X,),
            ReduceAttributes(axes, keepdims),
            about=f"axes {axes}{' kept' if keepdims else ''}",
            gradient=differentiable,
        )
        for axes in AXES
        for keepdims in (False, True)
    ]
    return [
        *rows,
        Sample(
            name, (numbers(6, 3, 8)[::-2, :, ::3],), ReduceAttributes((0, 1), False), about="strided", gradient=differentiable
        ),
        Sample(name, (np.array(1.5),), ReduceAttributes((), False), about="scalar", gradient=differentiable),
        Sample(name, (X.astype(np.float16),), ReduceAttributes((1,), True), about="float16", gradient=False),
        Sample(name, (X.astype(np.float32),), ReduceAttributes((0, 2), False), about="float32", gradient=False),
        Sample(name, (np.zeros((0, 3)),), ReduceAttributes((1,), False), about="empty batch", gradient=False),
        Sample(name, (numbers(1, 1, 5),), ReduceAttributes((0, 1), True), about="axes of size 1", gradient=differentiable),
    ]


def _integers(name: str) -> list[Sample]:
    return [
        Sample(name, (INTEGERS,), ReduceAttributes((1,), False), about="integers", gradient=False),
        Sample(name, (np.array([[200, 100], [3, 4]], np.uint8),), ReduceAttributes((0, 1), True), about="u8", gradient=False),
        Sample(name, (np.array([[True, True], [False, True]]),), ReduceAttributes((1,), False), about="bool", gradient=False),
    ]


def _particular() -> list[Sample]:
    zeros = X.copy()
    zeros[0, 0, 0] = zeros[1, 1, 1] = zeros[1, 1, 2] = 0.0
    rows = [
        Sample("sum", (np.zeros((2, 0, 3)),), ReduceAttributes((1,), False), about="of nothing"),
        Sample("prod", (np.zeros((2, 0, 3)),), ReduceAttributes((1,), False), about="of nothing"),
        Sample("prod", (zeros,), ReduceAttributes((2,), False), about="with zeros"),
        Sample("prod", (zeros,), ReduceAttributes((0, 2), True), about="with zeros, two axes"),
        Sample(
            "sum", (np.full((4096,), 1.25, np.float16),), ReduceAttributes((0,), False), about="float16, many", gradient=False
        ),
        Sample(
            "mean",
            (np.full((4096,), 60000.0, np.float16),),
            ReduceAttributes((0,), False),
            about="float16, large",
            gradient=False,
        ),
    ]
    for name in ("max", "min", "argmax", "argmin"):
        for about, x in (("ties", TIES), ("NaN", NANS)):
            rows.append(Sample(name, (x,), ReduceAttributes((1,), False), about=about, gradient=False))
            rows.append(Sample(name, (x,), ReduceAttributes((0, 1), False), about=f"{about}, all axes", gradient=False))
    return rows


SAMPLES = [
    *(sample for name in ("sum", "mean", "max", "min", "prod") for sample in _every(name, True)),
    *(sample for name in ("argmax", "argmin") for sample in _every(name, False)),
    *(sample for name in ("sum", "max", "min", "prod", "argmax", "argmin") for sample in _integers(name)),
    *_particular(),
]
