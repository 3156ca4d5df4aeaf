"""Deformable convolution: every tap of every window reads at a place of its own."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from irconv.nn.functional.common import misshapen, refused, tensor_of
from irconv.nn.functional.sampling import sample_at
from irconv.op import Value
from irconv.ops import elementwise as e
from irconv.ops.contract import matmul
from irconv.ops.shape import narrow, reshape, squeeze
from irconv.ops.window import Padding, resolve_padding, window_axes, window_counts
from irconv.tensor import Tensor, as_tensor
from irconv.tracing import composite


def deform_conv(
    input: Any,
    weight: Any,
    offset: Any,
    bias: Any = None,
    mask: Any = None,
    stride: Any = 1,
    padding: Padding = 0,
    dilation: Any = 1,
    groups: int = 1,
    offset_groups: int = 1,
) -> Tensor:
    """x [N, C, *S] convolved with w [O, C / groups, *K], tap k of window p reading at its place plus an offset.

    offset: [N, offset_groups * taps * axes, *windows], in elements; places between elements are interpolated linearly, and what
    lies outside is zero.  mask [N, offset_groups * taps, *windows] multiplies what is read.  Each group of channels has its own.
    """
    x, w, shifts = as_tensor(input), as_tensor(weight), as_tensor(offset)
    rank = x.ndim - 2
    if rank < 1 or w.ndim != x.ndim or min(groups, offset_groups) < 1 or x.shape[1] % offset_groups:
        raise misshapen(
            f"input {list(x.shape)} and weight {list(w.shape)} do not fit, or the channels {offset_groups} offset groups"
        )
    if x.shape[1] != w.shape[1] * groups or w.shape[0] % groups:
        raise refused(f"{groups} groups do not divide input {list(x.shape)} and weight {list(w.shape)}")
    kernel, steps, gaps = window_axes(w.shape[2:], stride, dilation, rank)
    pairs = resolve_padding(padding, x.shape[2:], kernel, steps, gaps)
    windows = window_counts(x.shape[2:], kernel, steps, pairs, gaps)
    taps = math.prod(kernel)
    wanted = (x.shape[0], offset_groups * taps * rank, *windows)
    if shifts.shape != wanted:
        raise misshapen(f"offsets must have shape {list(wanted)}, got {list(shifts.shape)}")
    samples, points = x.shape[0] * offset_groups, taps * math.prod(windows)
    with composite("deform_conv"):
        shaped = reshape(shifts, (samples, taps, rank, math.prod(windows)))
        places = _places(kernel, windows, steps, [before for before, _ in pairs], gaps)
        moved = [e.add(squeeze(narrow(shaped, 2, i, i + 1), 2), as_tensor(place, like=shifts)) for i, place in enumerate(places)]
        positions = [reshape(place, (samples, points)) for place in moved]
        columns = sample_at(reshape(x, (samples, x.shape[1] // offset_groups, *x.shape[2:])), positions)
        if mask is not None:
            columns = e.multiply(columns, reshape(as_tensor(mask), (samples, 1, points)))
        return _multiplied(columns, x, w, bias, windows, groups)


def _places(
    kernel: tuple[int, ...], windows: tuple[int, ...], stride: tuple[int, ...], before: list[int], dilation: tuple[int, ...]
) -> list[np.ndarray]:
    """For each axis, where tap k of window p reads without an offset: [taps, windows]."""
    of_taps, of_windows = np.indices(kernel).reshape(len(kernel), -1, 1), np.indices(windows).reshape(len(kernel), 1, -1)
    return [of_windows[i] * stride[i] - before[i] + of_taps[i] * dilation[i] for i in range(len(kernel))]


def _multiplied(columns: Value, x: Tensor, w: Tensor, bias: Any, windows: tuple[int, ...], groups: int) -> Tensor:
    """The product of the weight with what was read."""
    depth, count = w.size // w.shape[0], math.prod(windows)
    rows = reshape(columns, (x.shape[0], groups, depth, count))
    product = matmul(reshape(w, (1, groups, w.shape[0] // groups, depth)), rows)
    result = reshape(product, (x.shape[0], w.shape[0], *windows))
    if bias is None:
        return tensor_of(result)
    return tensor_of(e.add(result, reshape(as_tensor(bias), (1, -1, *(1,) * len(windows)))))
