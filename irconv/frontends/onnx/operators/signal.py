"""Spectra: Fourier transforms as matrix products, and the mel scale.  Complex numbers are pairs on the last axis."""

from __future__ import annotations

import math

import numpy as np

from irconv.concrete import take_room
from irconv.errors import ModelError
from irconv.frontends.onnx.operators.common import constant, number, tensor_of
from irconv.frontends.onnx.registry import Call, operator
from irconv.frontends.onnx.tensors import element_type
from irconv.op import Value
from irconv.ops import elementwise as e
from irconv.ops.concat import stack
from irconv.ops.contract import matmul
from irconv.ops.index import take
from irconv.ops.pad import pad
from irconv.ops.shape import expand_dims, narrow, normalize_axis, squeeze, transpose
from irconv.tensor import Tensor
from irconv.types import TensorType, tensor_type

# --- transforms along the last axis ------------------------------------------------------------------------------------------


def _waves(rows: int, columns: int, length: int, type_: TensorType) -> tuple[Tensor, Tensor]:
    """cos and sin of 2 pi row column / length, [rows, columns]."""
    take_room(tensor_type(type_.dtype, (rows, columns)))
    # the product is reduced first: angles stay small and exact
    angles = np.arange(rows)[:, None] * np.arange(columns) % length * (2 * math.pi / length)
    return constant(np.cos(angles), type_.dtype), constant(np.sin(angles), type_.dtype)


def _forward(real: Value, imaginary: Value | None, bins: int) -> tuple[Value, Value]:
    """The first ``bins`` frequencies of signals along the last axis: sum of x[n] exp(-2 pi i n k / N)."""
    length = real.shape[-1]
    cosine, sine = _waves(length, bins, length, real.type)
    if imaginary is None:
        return matmul(real, cosine), e.negative(matmul(real, sine))
    return (
        e.add(matmul(real, cosine), matmul(imaginary, sine)),
        e.subtract(matmul(imaginary, cosine), matmul(real, sine)),
    )


def _backward(real: Value, imaginary: Value | None) -> tuple[Value, Value]:
    """The inverse of all frequencies: the conjugate transform of the conjugate, over N."""
    length = real.shape[-1]
    found, other = _forward(real, None if imaginary is None else e.negative(imaginary), length)
    return e.divide(found, length), e.negative(e.divide(other, length))


def _real_backward(real: Value, imaginary: Value | None, length: int) -> Value:
    """The real signal whose first frequencies these are; the others are their conjugates."""
    cosine, sine = _waves(real.shape[-1], length, length, real.type)
    twice = np.full((real.shape[-1], 1), 2.0)
    twice[0] = 1
    if length % 2 == 0 and real.shape[-1] > length // 2:
        twice[length // 2] = 1
    weights = constant(twice / length, real.type.dtype)
    result = matmul(real, e.multiply(cosine, weights))
    return result if imaginary is None else e.subtract(result, matmul(imaginary, e.multiply(sine, weights)))


# --- operators ---------------------------------------------------------------------------------------------------------------


def _parts(x: Tensor, axis: int) -> tuple[Value, Value | None, tuple[int, ...]]:
    """Real and imaginary part with ``axis`` last, and how to transpose back."""
    if x.ndim < 2 or x.shape[-1] not in (1, 2) or axis == x.ndim - 1:
        raise ModelError(f"a signal ends in an axis of 1 (real) or 2 (complex) numbers, got {list(x.shape)} and axis {axis}")
    order = [i for i in range(x.ndim - 1) if i != axis] + [axis]
    parts = [transpose(squeeze(narrow(x, -1, i, i + 1), -1), order) for i in range(x.shape[-1])]
    back = tuple(sorted(range(len(order)), key=order.__getitem__))
    return parts[0], parts[1] if len(parts) == 2 else None, back


def _fitted(x: Value | None, length: int) -> Value | None:
    """x cut or filled with zeros to a length along the last axis."""
    return None if x is None else pad(x, [(0, 0)] * (x.rank - 1) + [(0, length - x.shape[-1])])


def _transform(call: Call, x: Tensor, length: np.ndarray | None, axis: int) -> Tensor:
    a = call.attributes
    inverse, onesided = a.flag("inverse"), a.flag("onesided")
    axis = normalize_axis(axis, x.ndim)
    real, imaginary, back = _parts(x, axis)
    given = real.shape[-1]
    count = 2 * (given - 1) if inverse and onesided else given
    if length is not None:
        count = int(number(length, "dft_length"))
    if count < 1:
        raise ModelError(f"a transform of length {count}")
    half = count // 2 + 1
    needed = half if inverse and onesided else count
    fitted_real, fitted_imaginary = _fitted(real, needed), _fitted(imaginary, needed)
    assert fitted_real is not None
    if inverse and onesided:
        return tensor_of(expand_dims(transpose(_real_backward(fitted_real, fitted_imaginary, count), back), -1))
    if inverse:
        found = _backward(fitted_real, fitted_imaginary)
    else:
        found = _forward(fitted_real, fitted_imaginary, half if onesided else count)
    return tensor_of(stack([transpose(part, back) for part in found], -1))


@operator("DFT", since=17, static=(1,))
def transform_along_attribute(call: Call, x: Tensor, length: np.ndarray | None = None) -> Tensor:
    """The discrete Fourier transform along the attribute ``axis``."""
    return _transform(call, x, length, call.attributes.int("axis", 1))


@operator("DFT", since=20, static=(1, 2))
def transform(call: Call, x: Tensor, length: np.ndarray | None = None, axis: np.ndarray | None = None) -> Tensor:
    """The discrete Fourier transform along an axis, or its inverse; onesided: of real signals, half of the frequencies."""
    return _transform(call, x, length, -2 if axis is None else int(number(axis, "axis")))


@operator("STFT", since=17, static=(1, 3))
def short_time_transform(
    call: Call, signal: Tensor, step: np.ndarray, window: Tensor | None = None, frame_length: np.ndarray | None = None
) -> Tensor:
    """Fourier transforms of frames of a signal [batch, length, 1 or 2], each times the window: [batch, frames, bins, 2]."""
    hop = int(number(step, "frame_step"))
    if frame_length is None and window is None:
        raise ModelError("a window or a frame_length is needed")
    count = 0 if window is None else window.shape[0]
    if frame_length is not None:
        count = int(number(frame_length, "frame_length"))
    if signal.ndim != 3 or hop < 1 or not 1 <= count <= signal.shape[1]:
        raise ModelError(f"frames of {count} by steps of {hop} do not fit a signal of shape {list(signal.shape)}")
    real, imaginary, _ = _parts(signal, 1)
    starts = np.arange((signal.shape[1] - count) // hop + 1) * hop
    places = constant(starts[:, None] + np.arange(count))

    def frames(part: Value | None) -> Value | None:
        if part is None:
            return None
        cut = take(part, places, 1)
        return cut if window is None else e.multiply(cut, e.cast(window, part.type.dtype))

    framed = frames(real)
    assert framed is not None
    bins = count // 2 + 1 if call.attributes.flag("onesided", True) else count
    return tensor_of(stack(_forward(framed, frames(imaginary), bins), -1))


@operator("MelWeightMatrix", static=(0, 1, 2, 3, 4))
def mel_weights(
    call: Call, bands: np.ndarray, length: np.ndarray, rate: np.ndarray, low: np.ndarray, high: np.ndarray
) -> Tensor:
    """What each frequency of a spectrum counts in each band of the mel scale: triangles, [length // 2 + 1, bands]."""
    count, size, samples = (int(number(v, "a size")) for v in (bands, length, rate))
    dtype = element_type(call.attributes.int("output_datatype", 1), "the result of MelWeightMatrix")
    if count < 1 or size < 1 or samples < 1:
        raise ModelError(f"{count} bands of a spectrum of length {size} at rate {samples}")
    take_room(tensor_type(dtype, (size // 2 + 1, count)))
    first, last = (2595 * math.log10(1 + float(number(v, "a frequency")) / 700) for v in (low, high))
    mels = first + np.arange(count + 2) * (last - first) / (count + 2)
    corners = np.floor((size + 1) * 700 * (10 ** (mels / 2595) - 1) / samples)
    places = np.arange(size // 2 + 1)[:, None]
    left, centre, right = corners[:-2], corners[1:-1], corners[2:]
    with np.errstate(all="ignore"):
        rising = np.where(centre > left, (places - left) / (centre - left), places == centre)
        falling = np.where(right > centre, (right - places) / (right - centre), 0)
    weights = np.where(places < centre, rising, np.where(places == centre, 1.0, falling))
    return constant(np.clip(weights, 0, None), dtype)
