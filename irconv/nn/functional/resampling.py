"""Padding and resizing."""

from __future__ import annotations

import math
from typing import Any

from irconv.nn.functional.adaptive import adaptive_average
from irconv.nn.functional.common import amounts, misshapen, refused, tensor_of
from irconv.ops import pad as pad_ops
from irconv.ops.resize import resize
from irconv.ops.shape import int_tuple
from irconv.tensor import Tensor, as_tensor

PAD_MODES = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap", "mean": "mean"}
"""PyTorch's names for NumPy's padding modes; 'mean' is NumPy's alone."""

RESIZE_MODES = {
    "nearest": ("nearest", "asymmetric"),
    "nearest-exact": ("nearest", "half_pixel"),
    "linear": ("linear", "half_pixel"),
    "bilinear": ("linear", "half_pixel"),
    "trilinear": ("linear", "half_pixel"),
    "bicubic": ("cubic", "half_pixel"),
}
_WEIGHED_AXES = {"linear": 1, "bilinear": 2, "trilinear": 3, "bicubic": 2}


def pad(input: Any, pad: Any, mode: str = "constant", value: float | None = None) -> Tensor:
    """x with elements added at the ends of its last axes.

    pad:  (before, after) of the last axis, then of the one before it, and so on; negative amounts crop.
    mode: 'constant' (``value``, 0 by default), 'reflect' (amounts below the size), 'replicate', 'circular' (amounts up to
          the size), or 'mean' (the mean along the axis, axis by axis, as numpy.pad).
    """
    x = as_tensor(input)
    widths = int_tuple(pad, "pad")
    if mode not in PAD_MODES:
        raise refused(f"padding mode {mode!r} is not one of {', '.join(PAD_MODES)}")
    if len(widths) % 2 or len(widths) > 2 * x.ndim:
        raise refused(
            f"pad {list(widths)} must be (before, after) pairs for at most the {x.ndim} axes of {list(x.shape)}, last axis first"
        )
    if value and mode != "constant":
        raise refused(f"padding mode {mode!r} takes no value, got {value}")
    named = [(widths[i], widths[i + 1]) for i in range(0, len(widths), 2)][::-1]
    pairs = [(0, 0)] * (x.ndim - len(named)) + named
    if mode == "constant":
        return tensor_of(pad_ops.pad(x, pairs, "constant", 0.0 if value is None else value))
    cropped = pad_ops.pad(x, [(min(before, 0), min(after, 0)) for before, after in pairs])
    added = [(max(before, 0), max(after, 0)) for before, after in pairs]
    for axis, (n, pair) in enumerate(zip(cropped.shape, added, strict=True)):
        limit = {"reflect": n - 1, "circular": n}.get(mode, math.inf)
        if max(pair) > limit:
            raise refused(
                f"{mode} padding of axis {axis} by {list(pair)}: it has {n} elements, so at most {limit} can be added on a side"
            )
    return tensor_of(pad_ops.pad(cropped, added, PAD_MODES[mode]))


def interpolate(
    input: Any,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Tensor:
    """x [N, C, *spatial] resized to ``size``, or by ``scale_factor`` (one of the two), see :mod:`irconv.ops.resize`.

    mode: 'nearest', 'nearest-exact', 'linear' (1 axis), 'bilinear' (2), 'trilinear' (3), 'bicubic' (2), or 'area' (adaptive
          averages).
    recompute_scale_factor: compute positions from the sizes rather than from ``scale_factor`` as given.
    antialias: widen the kernel of an axis that shrinks ('bilinear' and 'bicubic', which then has the coefficient -0.5).
    """
    x = as_tensor(input)
    rank = x.ndim - 2
    if rank < 1:
        raise misshapen(f"interpolate takes [batch, channels, *spatial], got shape {list(x.shape)}")
    if mode not in RESIZE_MODES and mode != "area":
        raise refused(f"interpolation mode {mode!r} is not one of {', '.join([*RESIZE_MODES, 'area'])}")
    if _WEIGHED_AXES.get(mode, rank) != rank:
        raise misshapen(f"mode {mode!r} takes {_WEIGHED_AXES[mode]} spatial axes, got shape {list(x.shape)}")
    if align_corners is not None and mode not in _WEIGHED_AXES:
        raise refused(f"align_corners has no meaning in mode {mode!r}", "leave it at None")
    if antialias and mode not in ("bilinear", "bicubic"):
        raise refused(f"antialias has no meaning in mode {mode!r}", "use 'bilinear' or 'bicubic'")
    new_size, scales = _sizes(x.shape[2:], size, scale_factor)
    if mode == "area":
        return adaptive_average(x, new_size)
    kind, coordinates = RESIZE_MODES[mode]
    if align_corners:
        coordinates, scales = "align_corners", None
    used = None if recompute_scale_factor else scales
    if antialias:
        return tensor_of(resize(x, new_size, kind, coordinates, used, antialias=True, exclude_outside=True, coefficient=-0.5))
    return tensor_of(resize(x, new_size, kind, coordinates, used))


def _sizes(size: tuple[int, ...], wanted: Any, scale_factor: Any) -> tuple[tuple[int, ...], tuple[float, ...] | None]:
    """The new size, and the scale factors if they were what was given."""
    rank = len(size)
    if (wanted is None) == (scale_factor is None):
        raise refused("interpolate needs size or scale_factor, and not both")
    if wanted is not None:
        new = amounts(wanted, rank, "size")
        scales = None
    else:
        given = tuple(scale_factor) if hasattr(scale_factor, "__iter__") else (scale_factor,) * rank
        if len(given) != rank or not all(s > 0 for s in given):
            raise refused(f"scale_factor must be positive, one number or {rank} of them, got {scale_factor!r}")
        scales = tuple(float(s) for s in given)
        new = tuple(math.floor(n * s) for n, s in zip(size, scales, strict=True))
    if min(new) < 1:
        raise refused(f"cannot resize {list(size)} to {list(new)}")
    return new, scales


def upsample(
    input: Any, size: Any = None, scale_factor: Any = None, mode: str = "nearest", align_corners: bool | None = None
) -> Tensor:
    """As :func:`interpolate`."""
    return interpolate(input, size, scale_factor, mode, align_corners)
