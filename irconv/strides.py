"""Strides of views, worked out before any array exists: which view ops can share their operand's buffer."""

from __future__ import annotations

from collections.abc import Sequence

from irconv.graph import Graph, Node
from irconv.op import Fusion
from irconv.types import TensorType

Strides = tuple[int, ...]
"""Distance between neighbours along each axis, in elements."""


def row_major(shape: Sequence[int]) -> Strides:
    """Strides of a C-contiguous array."""
    strides = [1] * len(shape)
    for axis in range(len(shape) - 2, -1, -1):
        strides[axis] = strides[axis + 1] * shape[axis + 1]
    return tuple(strides)


def storage_strides(type_: TensorType) -> Strides:
    """Strides of a value that a kernel writes, by the axes of its shape (layouts with blocks have none)."""
    if type_.layout is None:
        return row_major(type_.shape)
    order = type_.layout.order
    stored = row_major([type_.shape[axis] for axis in order])
    by_axis = dict(zip(order, stored, strict=True))
    return tuple(by_axis[axis] for axis in range(type_.rank))


def is_contiguous(shape: Sequence[int], strides: Strides) -> bool:
    """Whether elements lie one after the other in row-major order (axes of size 1 may have any stride)."""
    if 0 in shape:
        return True
    return all(n == 1 or s == expected for n, s, expected in zip(shape, strides, row_major(shape), strict=True))


def reshape_strides(shape: Sequence[int], strides: Strides, target: Sequence[int]) -> Strides | None:
    """Strides of the reshaped view, or None when the elements would have to be copied."""
    if 0 in shape or is_contiguous(shape, strides):
        return row_major(target)
    old = [(n, s) for n, s in zip(shape, strides, strict=True) if n != 1]
    result = [0] * len(target)
    position = axis = 0
    while position < len(old):
        # the smallest runs of old and new axes that hold equally many elements
        end, stop = position + 1, axis + 1
        old_size, new_size = old[position][0], target[axis]
        while old_size != new_size:
            if new_size < old_size:
                new_size *= target[stop]
                stop += 1
            else:
                old_size *= old[end][0]
                end += 1
        for first, second in zip(old[position : end - 1], old[position + 1 : end], strict=True):
            if first[1] != second[0] * second[1]:
                return None
        step = old[end - 1][1]
        for i in range(stop - 1, axis - 1, -1):
            result[i] = step
            step *= target[i]
        position, axis = end, stop
    return tuple(result)


def view_strides(node: Node, shape: Sequence[int], strides: Strides) -> Strides | None:
    """Strides of a view op's result given its operand's; None when it has to be copied, or the op is not a view."""
    attributes = node.attributes
    match node.op.name:
        case "reshape":
            return reshape_strides(shape, strides, attributes.shape)
        case "transpose":
            return tuple(strides[axis] for axis in attributes.axes)
        case "slice":
            return tuple(s * step for s, step in zip(strides, attributes.step, strict=True))
        case "flip":
            return tuple(-s if axis in attributes.axes else s for axis, s in enumerate(strides))
        case "broadcast":
            added = len(attributes.shape) - len(shape)
            kept = (0 if n != m else s for n, m, s in zip(shape, attributes.shape[added:], strides, strict=True))
            return (0,) * added + tuple(kept)
    return None


def value_strides(graph: Graph) -> dict[int, tuple[Strides, bool]]:
    """For every value: its strides, and whether it can be a view of its operand.

    Whatever a kernel computes is stored as its layout says, row-major without one; every leaf is row-major.
    """
    found: dict[int, tuple[Strides, bool]] = {}
    for node in graph:
        view = None
        if node.op.fusion is Fusion.VIEW:
            (operand,) = graph.operands(node)
            view = view_strides(node, operand.type.shape, found[operand.id][0])
        found[node.id] = (storage_strides(node.type), False) if view is None else (view, True)
    return found


def covers(type_: TensorType, strides: Strides, root: TensorType) -> bool:
    """Whether a view with these strides shows all of the root's buffer as a value of this type would be stored in it."""
    stored = storage_strides(type_)
    same = all(n == 1 or s == expected for n, s, expected in zip(type_.shape, strides, stored, strict=True))
    return type_.size == root.size and (same or type_.size == 0)
