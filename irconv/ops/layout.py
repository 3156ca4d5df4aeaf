"""Storage: the same values, stored in another order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from irconv.op import Fusion, OpDef, Site, Value, emit, no_work, register
from irconv.types import Layout, TensorType


@dataclass(frozen=True, slots=True)
class RelayoutAttributes:
    """layout: how the result is stored; ``{0,1,...}`` is row-major."""

    layout: Layout


def relayout(x: Value, layout: Layout) -> Value:
    """x, stored as ``layout`` says.  The shape and every element stay what they are."""
    return emit(RELAYOUT, RelayoutAttributes(layout), x)


def _relayout_type(attributes: RelayoutAttributes, x: TensorType) -> TensorType:
    attributes.layout.check(x.rank)
    row_major = attributes.layout.axes == tuple((axis, 0) for axis in range(x.rank))
    return TensorType(x.dtype, x.shape, None if row_major else attributes.layout)


def _relayout_gradient(site: Site, d: Value) -> tuple[Value]:
    return (d,)


RELAYOUT = register(
    OpDef(
        "relayout",
        ("x",),
        infer=_relayout_type,
        reference=lambda attributes, x: np.copy(x),
        gradient=_relayout_gradient,
        fusion=Fusion.MOVEMENT,
        attributes=RelayoutAttributes,
        cost=no_work,
    )
)
