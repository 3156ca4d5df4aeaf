"""Reading and writing by index, sorting, and what is made of indices."""

from __future__ import annotations

from typing import Any

import numpy as np

from irconv.errors import ModelError
from irconv.frontends.onnx.operators.common import constant, limited, number, tensor_of
from irconv.frontends.onnx.registry import Call, operator
from irconv.frontends.onnx.tensors import element_type
from irconv.op import Value
from irconv.ops import elementwise as e
from irconv.ops import reduce
from irconv.ops.index import gather, take
from irconv.ops.index_nd import gather_nd, scatter_nd
from irconv.ops.scatter import scatter
from irconv.ops.shape import broadcast, expand_dims, flip, narrow, normalize_axis, reshape, slice_, slice_update
from irconv.ops.sort import top_k
from irconv.tensor import Tensor
from irconv.types import I64

# --- gather ----------------------------------------------------------------------------------------------------------------


@operator("Gather")
def gather_slices(call: Call, x: Tensor, indices: Tensor) -> Tensor:
    """Slices of x at indices along one axis."""
    return tensor_of(take(x, indices, call.attributes.int("axis", 0)))


@operator("GatherElements")
def gather_elements(call: Call, x: Tensor, indices: Tensor) -> Tensor:
    """Elements of x at indices along one axis, in the frame of the indices."""
    axis = normalize_axis(call.attributes.int("axis", 0), x.ndim)
    return tensor_of(gather(_in_frame(x, indices, axis), indices, axis))


@operator("GatherND")
def gather_tuples(call: Call, x: Tensor, indices: Tensor) -> Tensor:
    """Slices of x at tuples of indices."""
    return tensor_of(gather_nd(x, indices, call.attributes.int("batch_dims", 0)))


def _in_frame(x: Tensor, indices: Tensor, axis: int) -> Value:
    """The part of x that indices along an axis may mean: on the other axes they may be shorter."""
    if x.ndim != indices.ndim:
        raise ModelError(f"indices {list(indices.shape)} and data {list(x.shape)} differ in rank")
    stop = [n if i == axis else indices.shape[i] for i, n in enumerate(x.shape)]
    if any(a > b for a, b in zip(stop, x.shape, strict=True)):
        raise ModelError(f"indices {list(indices.shape)} are larger than data {list(x.shape)} beside axis {axis}")
    return slice_(x, (0,) * x.ndim, stop)


# --- scatter ---------------------------------------------------------------------------------------------------------------

_REDUCTIONS = {"none": "set", "add": "add", "mul": "mul", "max": "max", "min": "min"}


def _reduction(call: Call) -> str:
    return _REDUCTIONS[call.attributes.string("reduction", "none", choices=tuple(_REDUCTIONS))]


@operator("Scatter", since=9)
@operator("ScatterElements", since=11)
def scatter_elements(call: Call, x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    """x with updates written at, or combined with what stands at, indices along one axis."""
    axis = normalize_axis(call.attributes.int("axis", 0), x.ndim)
    written = scatter(_in_frame(x, indices, axis), indices, updates, axis, _reduction(call))
    return tensor_of(written if written.shape == x.shape else slice_update(x, written, (0,) * x.ndim))


@operator("ScatterND", since=11)
def scatter_tuples(call: Call, x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    """x with updates written at, or combined with what stands at, tuples of indices."""
    return tensor_of(scatter_nd(x, indices, updates, _reduction(call)))


@operator("TensorScatter", since=24)
def write_to_cache(call: Call, x: Tensor, update: Tensor, starts: Tensor | None = None) -> Tensor:
    """x with the update written along one axis from a start that each sample has, round the end if the mode is circular."""
    axis = normalize_axis(call.attributes.int("axis", -2), x.ndim)
    circular = call.attributes.string("mode", "linear", choices=("linear", "circular")) == "circular"
    places: Value = constant(np.arange(limited(update.shape[axis], "the update")).reshape(-1, *(1,) * (x.ndim - axis - 1)))
    if starts is not None:
        places = e.add(places, reshape(e.cast(starts, I64), (-1, *(1,) * (x.ndim - 1))))
    if circular:
        places = e.remainder(places, x.shape[axis])
    return tensor_of(scatter(x, broadcast(places, update.shape), update, axis))


# --- order -----------------------------------------------------------------------------------------------------------------


@operator("TopK")
def top_k_by_attribute(call: Call, x: Tensor) -> tuple[Tensor, ...]:
    """The k largest elements along an axis, and where they are."""
    return _top_k(call, x, call.attributes.int("k"))


@operator("TopK", since=10, static=(1,))
def top_k_by_input(call: Call, x: Tensor, k: np.ndarray) -> tuple[Tensor, ...]:
    """The k largest or smallest elements along an axis, and where they are; always in order."""
    return _top_k(call, x, number(k, "k"))


def _top_k(call: Call, x: Tensor, k: int) -> tuple[Tensor, ...]:
    values, indices = top_k(x, k, call.attributes.int("axis", -1), call.attributes.flag("largest", True))
    return tensor_of(values), tensor_of(indices)


@operator("ArgMax")
def argmax(call: Call, x: Tensor) -> Tensor:
    """Where the largest element along an axis is."""
    return _extreme(call, x, reduce.argmax)


@operator("ArgMin")
def argmin(call: Call, x: Tensor) -> Tensor:
    """Where the smallest element along an axis is."""
    return _extreme(call, x, reduce.argmin)


def _extreme(call: Call, x: Tensor, find: Any) -> Tensor:
    axis = normalize_axis(call.attributes.int("axis", 0), x.ndim)
    keepdims = call.attributes.flag("keepdims", True)
    if call.attributes.flag("select_last_index"):
        return tensor_of(e.subtract(x.shape[axis] - 1, find(flip(x, axis), axis, keepdims)))
    return tensor_of(find(x, axis, keepdims))


@operator("Unique", since=11, static=(0,))
def unique(call: Call, x: np.ndarray) -> tuple[Tensor, ...]:
    """The different elements, or slices along an axis; where each is first, which of them each was, and how often each occurs."""
    axis = call.attributes.int("axis", None)
    values, first, inverse, counts = np.unique(x, True, True, True, axis=axis)
    if not call.attributes.flag("sorted", True):
        order = np.argsort(first, kind="stable")
        values, first, counts = np.take(values, order, axis or 0), first[order], counts[order]
        inverse = np.argsort(order)[inverse.reshape(-1)]
    return constant(values), *(constant(found.reshape(-1), I64) for found in (first, inverse, counts))


# --- selections known at import ------------------------------------------------------------------------------------------------


@operator("NonZero", since=9, static=(0,))
def nonzero(call: Call, x: np.ndarray) -> Tensor:
    """The indices of the elements that are not zero, one column for each."""
    return constant(np.argwhere(x).T, I64)


@operator("Compress", since=9, static=(1,))
def compress(call: Call, x: Tensor, condition: np.ndarray) -> Tensor:
    """The slices along an axis (without one: the elements) for which the condition holds."""
    axis = call.attributes.int("axis", None)
    source = reshape(x, (-1,)) if axis is None else x
    return tensor_of(take(source, constant(np.flatnonzero(condition), I64), axis or 0))


# --- made of indices -------------------------------------------------------------------------------------------------------


@operator("OneHot", since=9, static=(1,))
def one_hot(call: Call, indices: Tensor, depth: np.ndarray, values: Tensor) -> Tensor:
    """values[1] where the new axis has the index, values[0] elsewhere; an index out of range is nowhere."""
    count = limited(int(number(depth, "depth")), "depth")
    axis = normalize_axis(call.attributes.int("axis", -1), indices.ndim + 1)
    whole = e.cast(indices, I64)
    places = constant(np.arange(count).reshape(-1, *(1,) * (indices.ndim - axis)))
    chosen = e.equal(expand_dims(e.where(e.less(whole, 0), e.add(whole, count), whole), axis), places)
    off, on = (reshape(narrow(values, 0, i, i + 1), ()) for i in (0, 1))
    return tensor_of(e.where(chosen, on, off))


@operator("EyeLike", since=9, shape_only=True)
def eye_like(call: Call, x: Tensor) -> Tensor:
    """Ones on the k-th diagonal, zeros elsewhere, in the shape of x."""
    if x.ndim != 2:
        raise ModelError(f"EyeLike needs a matrix, got shape {list(x.shape)}")
    rows, columns = x.shape
    limited(rows * columns, "the size of the matrix")
    number_of_type = call.attributes.int("dtype", None)
    dtype = x.type.dtype if number_of_type is None else element_type(number_of_type, "the result")
    return constant(np.eye(rows, columns, call.attributes.int("k", 0)), dtype)


@operator("Trilu", since=14, static=(1,))
def trilu(call: Call, x: Tensor, k: np.ndarray | None = None) -> Tensor:
    """The upper or lower triangle of matrices, zeros elsewhere; it ends at the k-th diagonal."""
    if x.ndim < 2:
        raise ModelError(f"Trilu needs matrices, got shape {list(x.shape)}")
    diagonal = 0 if k is None else int(number(k, "k"))
    rows, columns = x.shape[-2:]
    limited(rows * columns, "the size of the matrices")
    behind = np.arange(columns) - np.arange(rows)[:, None]
    kept = behind >= diagonal if call.attributes.flag("upper", True) else behind <= diagonal
    return tensor_of(e.where(constant(kept), x, 0))


@operator("ReverseSequence", since=10)
def reverse_sequence(call: Call, x: Tensor, sequence_lens: Tensor) -> Tensor:
    """The first sequence_lens[b] entries of sample b in reverse order."""
    batch = normalize_axis(call.attributes.int("batch_axis", 1), x.ndim)
    time = normalize_axis(call.attributes.int("time_axis", 0), x.ndim)
    if batch == time or sequence_lens.shape != (x.shape[batch],):
        raise ModelError(f"lengths {list(sequence_lens.shape)} do not fit axes {batch} (batch) and {time} (time) of {x.type}")

    def along(values: Value, axis: int) -> Value:
        return reshape(values, tuple(values.type.size if i == axis else 1 for i in range(x.ndim)))

    places = along(constant(np.arange(limited(x.shape[time], "the time axis"))), time)
    ends = along(e.cast(sequence_lens, I64), batch)
    order = e.where(e.less(places, ends), e.subtract(e.subtract(ends, 1), places), places)
    return tensor_of(gather(x, broadcast(order, x.shape), time))
