"""What an op is: one :class:`OpDef` per primitive, held in one registry.

Everything that is true of an op on every machine stands in its section of ``irconv/ops/<family>.py``, in this order:
constructor with docstring and formula, attributes, type rule, reference, gradient rule, cost, registration.

- *attributes*: a frozen dataclass with typed fields (see ``ATTRIBUTE_FIELDS`` for the field types the IR text knows).
- *type rule*: ``infer(attributes, *operand_types) -> TensorType``; raises ShapeError / DTypeError / AttributeValueError.
- *reference*: ``reference(attributes, *arrays) -> array``; plain NumPy, the meaning of the op.
- *gradient rule*: ``gradient(site, d) -> one Value or None per operand``, built from ordinary ops; or ``NoGradient``.
- *cost*: ``cost(attributes, operand_types, result_type) -> Work``.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from irconv.errors import GraphError, IrconvError
from irconv.types import DType, TensorType


class Fusion(enum.Enum):
    """How an op reads its operands: what a fusion pass has to know."""

    LEAF = "leaf"  # input, state, constant
    ELEMENTWISE = "elementwise"  # out[i] from operands[i], with broadcasting
    VIEW = "view"  # the same elements under another index map; no arithmetic
    MOVEMENT = "movement"  # copies elements: pad, concatenate, gather
    REDUCTION = "reduction"  # folds axes
    CONTRACTION = "contraction"  # matmul, convolution
    WINDOW = "window"  # pooling, im2col: small neighbourhoods
    RANDOM = "random"  # counter-based random bits


@dataclass(frozen=True, slots=True)
class NoAttributes:
    """The attributes of an op that has none."""


NO_ATTRIBUTES = NoAttributes()


@dataclass(frozen=True, slots=True)
class NoGradient:
    """Why an op has no gradient: its result does not depend differentiably on any operand."""

    reason: str


@dataclass(frozen=True, slots=True)
class Work:
    """Arithmetic of one execution: multiply-adds of contractions, and all floating-point operations (2 per MAC)."""

    macs: int = 0
    flops: int = 0


class Value:
    """A handle on one value under construction: its type, and the builder that can make more.

    Two kinds exist: a node of a graph (:class:`irconv.builder.GraphValue`) and a tensor (:mod:`irconv.tensor`), traced or
    holding data.  The constructors in ``irconv/ops`` take and return either kind.
    """

    __slots__ = ()

    type: TensorType
    builder: Any  # irconv.builder.Builder or one of its kin: emit(op, attributes, operands) and constant(array)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.type.shape

    @property
    def rank(self) -> int:
        return len(self.type.shape)


@dataclass(frozen=True, slots=True)
class Site:
    """What a gradient rule may look at: the forward op with its operands and result, and which gradients are wanted."""

    attributes: Any
    operands: tuple[Value, ...]
    result: Value
    wanted: tuple[bool, ...]


Gradients = Sequence[Value | None]


def one_flop_per_element(attributes: Any, operands: tuple[TensorType, ...], result: TensorType) -> Work:
    """Cost of an elementwise op."""
    return Work(flops=result.size)


def no_work(attributes: Any, operands: tuple[TensorType, ...], result: TensorType) -> Work:
    """Cost of an op that only moves or renames elements."""
    return Work()


@dataclass(frozen=True, slots=True)
class OpDef:
    """The definition of one primitive.  ``operands`` names the operand slots; a last name ``"*"`` takes one or more."""

    name: str
    operands: tuple[str, ...]
    infer: Callable[..., TensorType]
    reference: Callable[..., np.ndarray]
    gradient: Callable[[Site, Value], Gradients] | NoGradient
    fusion: Fusion
    attributes: type = NoAttributes
    cost: Callable[[Any, tuple[TensorType, ...], TensorType], Work] = one_flop_per_element
    pure: bool = True

    def takes(self, count: int) -> bool:
        """Whether the op takes this many operands."""
        if self.operands and self.operands[-1] == "*":
            return count >= max(1, len(self.operands) - 1)
        return count == len(self.operands)

    def result_type(self, attributes: Any, operands: Sequence[TensorType]) -> TensorType:
        """Run the type rule, with operand count and attribute class checked; errors carry the op and its operand types."""
        if not isinstance(attributes, self.attributes):
            raise GraphError(f"{self.name} needs {self.attributes.__name__}, got {type(attributes).__name__}")
        if not self.takes(len(operands)):
            raise GraphError(f"{self.name} takes operands ({', '.join(self.operands)}), got {len(operands)}")
        try:
            return self.infer(attributes, *(o if o.layout is None else o.logical for o in operands))
        except IrconvError as error:
            raise error.at(excerpt=f"{self.name}({', '.join(map(str, operands))}) {describe(attributes)}".rstrip()) from None


def describe(attributes: Any) -> str:
    """Attributes as ``name=value`` pairs for messages."""
    fields = getattr(attributes, "__dataclass_fields__", {})
    return " ".join(f"{name}={getattr(attributes, name)!r}" for name, field in fields.items() if field.repr)


OPS: dict[str, OpDef] = {}
"""Every registered op by name."""


def register(op: OpDef) -> OpDef:
    """Enter an op into the registry; returns it, so that a module can name it."""
    if op.name in OPS:
        raise GraphError(f"op {op.name!r} is registered twice")
    OPS[op.name] = op
    return op


def emit(op: OpDef, attributes: Any, *operands: Value) -> Value:
    """Apply an op to values: into a graph if any of them is being traced or built, at once if all hold data."""
    chosen = operands[0].builder
    for operand in operands[1:]:
        if operand.builder.priority > chosen.priority:
            chosen = operand.builder
    result: Value = chosen.emit(op, attributes, operands)
    return result


def constant_like(value: Value, number: Any, dtype: DType | None = None) -> Value:
    """A scalar constant of the value's element type (or ``dtype``), where the value is being built."""
    constant: Value = value.builder.constant(np.asarray(number, dtype=(dtype or value.type.dtype).numpy))
    return constant


def lift(value: Value | float | int | bool, like: Value) -> Value:
    """``value`` itself, or a Python number as a scalar constant of ``like``'s element type."""
    return value if isinstance(value, Value) else constant_like(like, value)
