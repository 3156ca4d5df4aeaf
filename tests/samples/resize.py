"""Samples of resize and its adjoint: every pair of size, mode, coordinates and scales."""

from __future__ import annotations

import itertools

import numpy as np

from irconv.ops.resize import COORDINATES, MODES, ResizeAttributes
from tests.samples import Sample, numbers

SIZES = ((4, 6), (9, 5), (1, 3), (2, 2))
SCALES = (None, (1.9, 1.6))


def _grid() -> list[Sample]:
    rows = []
    for size, mode, coordinates, scales in itertools.product(SIZES, MODES, COORDINATES, SCALES):
        about = f"{size[0]}x{size[1]} {mode} {coordinates}{' scales' if scales else ''}"
        rows.append(Sample("resize", (numbers(1, 2, 2, 3),), ResizeAttributes(size, mode, coordinates, scales), about))
        back = ResizeAttributes((2, 3), mode, coordinates, scales)
        rows.append(Sample("resize_adjoint", (numbers(1, 2, *size),), back, about))
    return rows


def _particular() -> list[Sample]:
    linear = ResizeAttributes((3, 2, 4), "linear", "half_pixel", None)
    return [
        Sample("resize", (numbers(1, 1, 5),), ResizeAttributes((3,), "linear", "half_pixel", (0.55,)), about="1-D, shrink"),
        Sample("resize", (numbers(1, 2, 2, 3, 2),), linear, about="3-D"),
        Sample("resize_adjoint", (numbers(1, 1, 2, 3, 2),), linear, about="3-D"),
        Sample("resize_adjoint", (numbers(1, 1, 3),), ResizeAttributes((5,), "linear", "half_pixel", (0.55,)), about="shrunk"),
        Sample(
            "resize", (numbers(2, 3),), ResizeAttributes((4, 4), "nearest", "asymmetric", None), about="no batch, no channels"
        ),
        Sample("resize", (np.zeros((0, 2, 3)),), ResizeAttributes((5,), "linear", "align_corners", None), about="empty batch"),
        Sample(
            "resize_adjoint", (np.zeros((0, 2, 3)),), ResizeAttributes((5,), "nearest", "half_pixel", None), about="empty batch"
        ),
        Sample(
            "resize",
            (np.arange(6, dtype=np.uint8).reshape(1, 2, 3),),
            ResizeAttributes((5,), "nearest", "half_pixel", None),
            about="integers",
            gradient=False,
        ),
        Sample(
            "resize",
            (numbers(1, 2, 4).astype(np.float16),),
            ResizeAttributes((7,), "linear", "half_pixel", None),
            about="float16",
            gradient=False,
        ),
        Sample(
            "resize_adjoint",
            (np.ones((1, 4100), np.float16),),
            ResizeAttributes((1,), "linear", "half_pixel", None),
            about="float16 sums in float32",
            gradient=False,
        ),
    ]


SAMPLES = [*_grid(), *_particular()]
