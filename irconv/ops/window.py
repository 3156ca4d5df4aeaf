"""The arithmetic of sliding windows, shared by im2col, convolution and pooling.

Along one axis of size n with padding (before, after), stride s, dilation d and k taps, tap t of window o reads position
``o * s + t * d - before`` of the input.  Positions outside 0..n-1 are padding.  Negative padding crops: those elements
are not there.  A window spans ``d * (k - 1) + 1`` positions.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from irconv.errors import AttributeValueError, ShapeError
from irconv.op import Value
from irconv.types import TensorType

Ints = tuple[int, ...]
Pairs = tuple[tuple[int, int], ...]
Padding = int | str | Sequence[int] | Sequence[tuple[int, int]]
"""What constructors take as padding: one number, one per axis, a (before, after) pair per axis, or a mode by name."""

PADDING_NAMES = ("valid", "same", "same_upper", "same_lower")
"""No padding; enough for ceil(n / stride) windows, an odd position going after (same, same_upper) or before."""

LIMIT = 2**31 - 1
"""No window parameter may be larger: beyond it only mistakes lie."""

# --- parameters -------------------------------------------------------------------------------------------------------


def spatial_rank(x: Value | TensorType) -> int:
    """How many spatial axes [batch, channels, *spatial] has.  Raises ShapeError if there is none."""
    rank = len(x.shape) - 2
    if rank < 1:
        raise ShapeError(
            f"needs [batch, channels, *spatial] with at least one spatial axis, got shape {list(x.shape)}",
            hint="add the missing axes, for example x[None] for a single sample",
        )
    return rank


def per_axis(value: Any, rank: int, name: str) -> Ints:
    """``value`` as one integer per spatial axis; a single integer holds for all of them.

    Raises AttributeValueError for anything but integers and for the wrong number of them.
    """
    try:
        values = tuple(value)
    except TypeError:
        values = (value,) * rank
    try:
        numbers = tuple(int(operator.index(v)) for v in values)
    except TypeError:
        raise AttributeValueError(f"{name} must be an integer or a tuple of {rank} integers, got {value!r}") from None
    if len(numbers) != rank:
        raise AttributeValueError(f"{name} has {len(numbers)} values {list(numbers)} for {rank} spatial axes")
    return numbers


def integer(value: Any, name: str) -> int:
    """``value`` as a Python integer.  Raises AttributeValueError for anything else."""
    try:
        return int(operator.index(value))
    except TypeError:
        raise AttributeValueError(f"{name} must be an integer, got {value!r}") from None


def window_axes(kernel: Any, stride: Any, dilation: Any, rank: int) -> tuple[Ints, Ints, Ints]:
    """Kernel, stride and dilation as checked integers per spatial axis."""
    taps, steps = per_axis(kernel, rank, "kernel"), per_axis(stride, rank, "stride")
    gaps = per_axis(dilation, rank, "dilation")
    check_window(kernel=taps, stride=steps, dilation=gaps)
    return taps, steps, gaps


def resolve_padding(padding: Padding, size: Ints, kernel: Ints, stride: Ints, dilation: Ints) -> Pairs:
    """Padding as (before, after) per spatial axis, from any form that constructors take.

    The named modes are ONNX's: 'same_upper' and 'same_lower' pad in total ``max(0, (ceil(n/s) - 1) s + span - n)``;
    'same' is 'same_upper', which at stride 1 is PyTorch's.
    """
    rank = len(size)
    if isinstance(padding, str):
        if padding not in PADDING_NAMES:
            raise AttributeValueError(f"padding {padding!r} is not one of {', '.join(PADDING_NAMES)}")
        if padding == "valid":
            return ((0, 0),) * rank
        spans = window_spans(kernel, dilation)
        totals = [max(0, (-(-n // s) - 1) * s + span - n) for n, s, span in zip(size, stride, spans, strict=True)]
        return tuple(halves(total, odd_before=padding == "same_lower") for total in totals)
    given: Any = padding
    try:
        pairs = [tuple(pair) for pair in given]
    except TypeError:
        return tuple((amount, amount) for amount in per_axis(padding, rank, "padding"))
    if len(pairs) != rank or any(len(pair) != 2 for pair in pairs):
        raise AttributeValueError(f"padding {padding!r} is not one (before, after) pair for each of {rank} spatial axes")
    before = per_axis([pair[0] for pair in pairs], rank, "padding")
    after = per_axis([pair[1] for pair in pairs], rank, "padding")
    return tuple(zip(before, after, strict=True))


def halves(total: int, odd_before: bool) -> tuple[int, int]:
    """``total`` split in two, an odd one going before or after."""
    small = total // 2
    return (total - small, small) if odd_before else (small, total - small)


def check_window(**parameters: Ints | Pairs) -> None:
    """Raise AttributeValueError unless all have one entry per axis, and kernel, stride and dilation are positive."""
    counts = {name: len(values) for name, values in parameters.items()}
    if len(set(counts.values())) > 1:
        described = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise AttributeValueError(f"window parameters differ in their number of axes: {described}")
    for name, values in parameters.items():
        numbers = [n for value in values for n in (value if isinstance(value, tuple) else (value,))]
        if name != "padding" and any(n < 1 for n in numbers):
            raise AttributeValueError(f"{name} must be at least 1 on every axis, got {numbers}")
        if any(abs(n) > LIMIT for n in numbers):
            raise AttributeValueError(f"{name} must be below 2^31, got {numbers}")


def check_groups(groups: int) -> None:
    """Raise AttributeValueError unless the number of groups is positive."""
    if groups < 1:
        raise AttributeValueError(f"groups must be at least 1, got {groups}")


def check_divides(groups: int, channels: int, what: str) -> None:
    """Raise AttributeValueError unless ``groups`` divides the channels, and ShapeError if there are none."""
    if channels < 1:
        raise ShapeError(f"needs at least one of the {what} channels")
    if channels % groups:
        raise AttributeValueError(f"groups={groups} does not divide the {channels} {what} channels")


# --- sizes ------------------------------------------------------------------------------------------------------------


def window_spans(kernel: Ints, dilation: Ints) -> Ints:
    """How many positions a window spans along each axis: d (k - 1) + 1."""
    return tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True))


def window_counts(
    size: Ints, kernel: Ints, stride: Ints, padding: Pairs, dilation: Ints, ceil_mode: bool = False
) -> Ints:
    """How many windows fit along each axis: floor((n + before + after - span) / s) + 1.

    ``ceil_mode`` rounds up, so that the last window may hang over the end, but drops a last window that would start
    beyond the input, in the padding after it.  Raises ShapeError where no window fits or the input is empty.
    """
    if len(size) != len(stride):
        raise ShapeError(f"the window has {len(stride)} spatial axes, the input {len(size)}")
    counts = []
    for axis, (n, k, s, (before, after), d) in enumerate(zip(size, kernel, stride, padding, dilation, strict=True)):
        if n < 1:
            raise ShapeError(f"spatial axis {axis} has no elements, so there is nothing to slide a window over")
        span = d * (k - 1) + 1
        room = n + before + after - span
        count = (-(-room // s) if ceil_mode else room // s) + 1
        if ceil_mode and (count - 1) * s >= n + before + min(after, 0):
            count -= 1
        if count < 1:
            raise ShapeError(
                f"no window fits spatial axis {axis}: {n} elements with padding {before} before and {after} after, "
                f"for a window that spans {span} ({k} taps, dilation {d})",
                hint="use a larger input, more padding or a smaller kernel",
            )
        counts.append(count)
    return tuple(counts)


# --- NumPy ------------------------------------------------------------------------------------------------------------


def accumulating(x: np.ndarray) -> np.ndarray:
    """``x`` in the type its sums are carried in: float16 as float32, anything else as it is."""
    return x.astype(np.float32) if x.dtype == np.float16 else x


def shifted(x: np.ndarray, start: Ints, size: Ints, fill: Any = 0) -> np.ndarray:
    """result[..., j] = x[..., start + j] over the last axes, ``fill`` where that lies outside x."""
    lead = x.ndim - len(size)
    result = np.full(x.shape[:lead] + size, fill, x.dtype)
    source: list[slice] = [slice(None)] * lead
    target: list[slice] = [slice(None)] * lead
    for n, first, count in zip(x.shape[lead:], start, size, strict=True):
        low, high = max(first, 0), min(first + count, n)
        source.append(slice(low, max(low, high)))
        target.append(slice(low - first, max(low, high) - first))
    if all(part.start < part.stop for part in source[lead:]):
        result[tuple(target)] = x[tuple(source)]
    return result


def covered(size: Ints, kernel: Ints, stride: Ints, dilation: Ints) -> Ints:
    """How many positions all ``size`` windows of an axis span together: (count - 1) s + span."""
    spans = window_spans(kernel, dilation)
    return tuple((count - 1) * s + span for count, s, span in zip(size, stride, spans, strict=True))


def padded_input(
    x: np.ndarray, counts: Ints, kernel: Ints, stride: Ints, padding: Pairs, dilation: Ints, fill: Any = 0
) -> np.ndarray:
    """The input with its padding, exactly as far as the windows reach (a tail is cut, a ceil overhang filled)."""
    start = tuple(-before for before, _ in padding)
    return shifted(_cropped(x, x.shape[2:], padding), start, covered(counts, kernel, stride, dilation), fill)


def unpadded(total: np.ndarray, size: Ints, padding: Pairs) -> np.ndarray:
    """The adjoint of :func:`padded_input`: the part [N, C, *size] that is input, zero where windows did not reach."""
    ends = tuple(before + n for n, (before, _) in zip(size, padding, strict=True))
    return shifted(_cropped(total, ends, padding), tuple(before for before, _ in padding), size)


def _cropped(x: np.ndarray, ends: Ints, padding: Pairs) -> np.ndarray:
    """x without what negative padding takes from the end, so that no ceil overhang reads it."""
    keep = [slice(None), slice(None)]
    for end, (_, after) in zip(ends, padding, strict=True):
        keep.append(slice(max(0, end + after)) if after < 0 else slice(None))
    return x[tuple(keep)]


def tap_views(padded: np.ndarray, counts: Ints, kernel: Ints, stride: Ints, dilation: Ints) -> Iterator[np.ndarray]:
    """For each tap, in row-major order, the view [..., *counts] of what that tap sees in every window."""
    for taps in itertools.product(*map(range, kernel)):
        positions = zip(taps, counts, stride, dilation, strict=True)
        parts: list[Any] = [slice(t * d, t * d + (o - 1) * s + 1, s) for t, o, s, d in positions]
        yield padded[(..., *parts)]


def windows(padded: np.ndarray, kernel: Ints, stride: Ints, dilation: Ints) -> np.ndarray:
    """A read-only view [..., *counts, *kernel] of all windows of a padded input that they cover exactly."""
    axes = tuple(range(padded.ndim - len(kernel), padded.ndim))
    view = np.lib.stride_tricks.sliding_window_view(padded, window_spans(kernel, dilation), axis=axes)
    steps: list[Any] = [slice(None, None, step) for step in (*stride, *dilation)]
    return view[(..., *steps)]

