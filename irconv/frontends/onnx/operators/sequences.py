"""Sequences of tensors, whose lengths are known while the model is imported: they leave no trace in the graph."""

from __future__ import annotations

import numpy as np

from irconv.errors import ModelError
from irconv.frontends.onnx.operators.common import constant, integers, number, tensor_of
from irconv.frontends.onnx.registry import Call, TensorList, operator
from irconv.ops.concat import concat, split, stack
from irconv.ops.shape import normalize_axis, squeeze
from irconv.tensor import Tensor
from irconv.types import I64


def _place(position: np.ndarray, length: int) -> int:
    """A position in a sequence, counted from the front."""
    place = int(number(position, "the position"))
    if not -length <= place < length:
        raise ModelError(f"position {place} is out of range for a sequence of {length} tensors")
    return place % length


@operator("SequenceConstruct")
def construct(call: Call, *tensors: Tensor) -> TensorList:
    """The tensors as a sequence."""
    return TensorList(tensors)


@operator("SequenceEmpty")
def empty(call: Call) -> TensorList:
    """A sequence of none."""
    return TensorList(())


@operator("SequenceInsert", static=(2,))
def insert(call: Call, sequence: TensorList, tensor: Tensor, position: np.ndarray | None = None) -> TensorList:
    """The sequence with a tensor put in, at the end by default."""
    items = list(sequence.items)
    place = len(items)
    if position is not None:
        # one more place than there are tensors
        place = _place(position, len(items) + 1) if number(position, "the position") >= 0 else _place(position, len(items))
    items.insert(place, tensor)
    return TensorList(tuple(items))


@operator("SequenceErase", static=(1,))
def erase(call: Call, sequence: TensorList, position: np.ndarray | None = None) -> TensorList:
    """The sequence without one tensor, the last by default."""
    place = _place(np.array(-1) if position is None else position, len(sequence.items))
    return TensorList(sequence.items[:place] + sequence.items[place + 1 :])


@operator("SequenceAt", static=(1,))
def at(call: Call, sequence: TensorList, position: np.ndarray) -> Tensor:
    """One tensor of the sequence."""
    return sequence.items[_place(position, len(sequence.items))]


@operator("SequenceLength", shape_only=True)
def length(call: Call, sequence: TensorList) -> Tensor:
    """How many tensors there are."""
    return constant(len(sequence.items), I64)


@operator("SplitToSequence", static=(1,))
def split_to_sequence(call: Call, x: Tensor, sizes: np.ndarray | None = None) -> TensorList:
    """Pieces of x along an axis: of the given sizes, all of one given size but the last, or of one entry each."""
    axis = normalize_axis(call.attributes.int("axis", 0), x.ndim)
    total = x.shape[axis]
    if sizes is None:
        pieces = split(x, (1,) * total, axis)
        keep = call.attributes.flag("keepdims", True)
        return TensorList(tuple(tensor_of(p if keep else squeeze(p, axis)) for p in pieces))
    if sizes.ndim == 0:
        each = int(number(sizes, "split"))
        if each < 1:
            raise ModelError(f"pieces of {each} entries")
        wanted = tuple(min(each, total - start) for start in range(0, total, each))
    else:
        wanted = integers(sizes, "split") or ()
    return TensorList(tuple(tensor_of(piece) for piece in split(x, wanted, axis)))


@operator("ConcatFromSequence")
def concat_from_sequence(call: Call, sequence: TensorList) -> Tensor:
    """The tensors one after another along an axis, or side by side along a new one."""
    axis = call.attributes.int("axis")
    join = stack if call.attributes.flag("new_axis") else concat
    return tensor_of(join(sequence.items, axis))


@operator("SequenceMap")
def map_sequence(call: Call, sequence: TensorList, *others: Tensor | TensorList) -> tuple[TensorList, ...]:
    """A subgraph run on each tensor of a sequence, with the tensors at its place of other sequences, and other tensors."""
    results = []
    for place, tensor in enumerate(sequence.items):
        given = []
        for other in others:
            if isinstance(other, TensorList) and len(other.items) != len(sequence.items):
                raise ModelError(f"sequences of {len(sequence.items)} and {len(other.items)} tensors")
            given.append(other.items[place] if isinstance(other, TensorList) else other)
        results.append(call.run("body", tensor, *given))
    columns = zip(*results, strict=True) if results else ((),) * len(call.node.outputs)
    return tuple(TensorList(tuple(column)) for column in columns)
