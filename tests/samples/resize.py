"""Samples of resize and its adjoint: sizes, modes, coordinates with and without scales, and every option."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np

from irconv.ops.resize_taps import COORDINATES, MODES, ROUNDINGS, ResizeAttributes
from tests.samples import Sample, numbers

SIZES = ((4, 6), (9, 5), (1, 3), (2, 2))
SCALES = (None, (1.9, 1.6))


def _grid() -> list[Sample]:
    rows = []
    for turn, (size, mode, coordinates) in enumerate(itertools.product(SIZES, MODES, COORDINATES)):
        scales = SCALES[(turn + turn // len(COORDINATES)) % 2]
        about = f"{size[0]}x{size[1]} {mode} {coordinates}{' scales' if scales else ''}"
        region = (-0.2, 0.1, 0.7, 1.3) if coordinates == "tf_crop_and_resize" else None
        a = ResizeAttributes(size, mode, coordinates, scales, region=region)
        rows.append(Sample("resize", (numbers(1, 2, 2, 3),), a, about))
        back = replace(a, size=(2, 3))
        rows.append(Sample("resize_adjoint", (numbers(1, 2, *size),), back, about))
    return rows


def _options() -> list[Sample]:
    """Rounding, the cubic coefficient, exclusion and antialias, enlarging and shrinking."""
    chosen = {
        f"rounding {rounding}": ResizeAttributes((4, 3), "nearest", "half_pixel", None, rounding) for rounding in ROUNDINGS
    }
    chosen |= {"rounding asymmetric": ResizeAttributes((4, 3), "nearest", "asymmetric", (1.5, 0.6), "round_prefer_floor")}
    for mode, excluded in itertools.product(("linear", "cubic"), (False, True)):
        a = ResizeAttributes((2, 9), mode, "half_pixel", None, None, -0.5, excluded, True)
        name = f"{mode}{' excluding' if excluded else ''}"
        chosen |= {f"antialias {name}": a, f"antialias {name}, scales": replace(a, coordinates="asymmetric", scales=(0.45, 1.3))}
        chosen[name] = replace(a, antialias=False, coefficient=-1.0, coordinates="align_corners")
    start_at_one = (1.2, 0.0, 0.3, 1.0)
    chosen["region backwards"] = ResizeAttributes((3, 2), "linear", "tf_crop_and_resize", None, region=start_at_one)
    rows = []
    for about, a in chosen.items():
        rows.append(Sample("resize", (numbers(1, 5, 7),), a, about=about))
        rows.append(Sample("resize_adjoint", (numbers(1, *a.size),), replace(a, size=(5, 7)), about=about))
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


SAMPLES = [*_grid(), *_options(), *_particular()]
