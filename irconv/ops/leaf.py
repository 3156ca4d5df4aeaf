"""Leaves: values that no kernel computes.  Input, state (parameters, buffers, ...) and constant."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from irconv.errors import AttributeValueError
from irconv.op import Fusion, NoGradient, OpDef, no_work, register
from irconv.types import TensorType, type_of

ROLES = ("param", "frozen", "buffer", "state")
"""Trained parameter; parameter that receives no gradient; buffer (running statistics); optimiser, random and scalar state."""


def _not_computed(attributes: Any) -> np.ndarray:
    raise AssertionError("the value of an input or state comes from outside the graph")


@dataclass(frozen=True, slots=True)
class InputAttributes:
    """type: what callers must pass."""

    type: TensorType


INPUT = register(
    OpDef(
        "input",
        (),
        infer=lambda attributes: attributes.type,
        reference=_not_computed,
        gradient=NoGradient("an input has no operands"),
        fusion=Fusion.LEAF,
        attributes=InputAttributes,
        cost=no_work,
    )
)


@dataclass(frozen=True, slots=True)
class StateAttributes:
    """type: of the array behind it; role: one of ``ROLES``."""

    type: TensorType
    role: str

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise AttributeValueError(f"role {self.role!r} is not one of {', '.join(ROLES)}")


STATE = register(
    OpDef(
        "state",
        (),
        infer=lambda attributes: attributes.type,
        reference=_not_computed,
        gradient=NoGradient("a state has no operands"),
        fusion=Fusion.LEAF,
        attributes=StateAttributes,
        cost=no_work,
    )
)


@dataclass(frozen=True, eq=False)
class ConstantAttributes:
    """value: a read-only NumPy array.  Two constants are equal when dtype, shape and bits are."""

    value: np.ndarray

    def __post_init__(self) -> None:
        type_of(self.value)
        object.__setattr__(self, "value", np.ascontiguousarray(self.value).reshape(self.value.shape))
        self.value.flags.writeable = False

    @cached_property
    def digest(self) -> str:
        """SHA-256 of dtype, shape and bits, in hex: the constant's name in a .safetensors file."""
        header = f"{self.value.dtype.str}{self.value.shape}".encode()
        return hashlib.sha256(header + self.value.tobytes()).hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ConstantAttributes) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)


CONSTANT = register(
    OpDef(
        "constant",
        (),
        infer=lambda attributes: type_of(attributes.value),
        reference=lambda attributes: attributes.value,
        gradient=NoGradient("a constant has no operands"),
        fusion=Fusion.LEAF,
        attributes=ConstantAttributes,
        cost=no_work,
    )
)
