"""Custom gradients: an identity that replaces the gradient rule of what it stands behind.

``attach_gradient(y, x1, ..., xn, s1, ..., sm)`` is y; its gradient with respect to the x is what the user's rule makes of
the output gradient and the saved values s.  :class:`irconv.Function` emits it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from irconv.errors import GradientError
from irconv.op import Fusion, OpDef, Site, Value, emit, no_work, register
from irconv.types import TensorType

Rule = Callable[[Sequence[Value], Value], Sequence[Value | None]]


@dataclass(frozen=True, slots=True)
class AttachGradientAttributes:
    """function: name of the user's function; inputs: number n of operands that receive gradients.

    rule: called with (saved values, output gradient), returns n gradients.  It is Python: IR text does not carry it, and a
    graph read from text runs but cannot be differentiated through this op.
    """

    function: str
    inputs: int
    rule: Rule | None = field(default=None, compare=False, repr=False, metadata={"text": False})


def attach_gradient(y: Value, inputs: Sequence[Value], saved: Sequence[Value], function: str, rule: Rule) -> Value:
    """y, whose gradient flows to ``inputs`` by ``rule`` and not to what y was computed from."""
    return emit(ATTACH_GRADIENT, AttachGradientAttributes(function, len(inputs), rule), y, *inputs, *saved)


def _type(attributes: AttachGradientAttributes, y: TensorType, *others: TensorType) -> TensorType:
    return TensorType(y.dtype, y.shape)


def _gradient(site: Site, d: Value) -> tuple[Value | None, ...]:
    attributes = site.attributes
    if attributes.rule is None:
        raise GradientError(
            f"the backward of {attributes.function!r} is a Python function and was not stored with the graph",
            hint="differentiate the graph in the program that traced it, before writing it as text",
        )
    first_saved = 1 + attributes.inputs
    gradients = attributes.rule(site.operands[first_saved:], d)
    return (None, *gradients, *(None for _ in site.operands[first_saved:]))


ATTACH_GRADIENT = register(
    OpDef(
        "attach_gradient",
        ("y", "*"),
        infer=_type,
        reference=lambda attributes, y, *others: np.copy(y),
        gradient=_gradient,
        fusion=Fusion.ELEMENTWISE,
        attributes=AttachGradientAttributes,
        cost=no_work,
    )
)
