"""What the elementwise ops share: type rules, registration, and plain numbers as operands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from irconv.errors import DTypeError
from irconv.op import NO_ATTRIBUTES, Fusion, NoGradient, OpDef, Value, emit, lift, register
from irconv.types import BOOL, TensorType, broadcast_shapes

Number = int | float | bool
Operand = Value | Number


def float_only(attributes: Any, x: TensorType) -> TensorType:
    if not x.dtype.is_float:
        raise DTypeError(f"needs floating-point elements, got {x.dtype}", hint="cast first, for example x.astype('float32')")
    return TensorType(x.dtype, x.shape)


def numeric(attributes: Any, x: TensorType) -> TensorType:
    if x.dtype is BOOL:
        raise DTypeError("needs numbers, got bool", hint="cast first, for example x.astype('float32')")
    return TensorType(x.dtype, x.shape)


def same(attributes: Any, *operands: TensorType) -> TensorType:
    first = operands[0]
    if any(t.dtype is not first.dtype for t in operands):
        raise DTypeError(
            f"operands have different element types: {', '.join(str(t.dtype) for t in operands)}", hint="cast them to one"
        )
    return TensorType(first.dtype, broadcast_shapes(*(t.shape for t in operands)))


def same_numeric(attributes: Any, x: TensorType, y: TensorType) -> TensorType:
    if x.dtype is BOOL:
        raise DTypeError("needs numbers, got bool", hint="cast first, or use logical_and / logical_or")
    return same(attributes, x, y)


def compare(attributes: Any, x: TensorType, y: TensorType) -> TensorType:
    return TensorType(BOOL, same(attributes, x, y).shape)


def logical(attributes: Any, *operands: TensorType) -> TensorType:
    if any(t.dtype is not BOOL for t in operands):
        raise DTypeError(f"needs bool operands, got {', '.join(str(t.dtype) for t in operands)}", hint="compare first (x != 0)")
    return same(attributes, *operands)


def define(
    name: str,
    operands: tuple[str, ...],
    infer: Callable[..., TensorType],
    reference: Callable[..., np.ndarray],
    gradient: Callable[..., Any] | NoGradient,
) -> OpDef:
    """Register an elementwise op without attributes; ``reference`` takes the arrays alone."""
    return register(
        OpDef(
            name,
            operands,
            infer=infer,
            reference=lambda attributes, *arrays: reference(*arrays),
            gradient=gradient,
            fusion=Fusion.ELEMENTWISE,
        )
    )


PIECEWISE_CONSTANT = NoGradient("its derivative is zero wherever it exists")
BOOLEAN = NoGradient("its result is not a number")


def wide(function: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    """Evaluate float16 in float32 and round once."""

    def evaluate(x: np.ndarray) -> np.ndarray:
        return np.asarray(function(x.astype(np.float32)), np.float16) if x.dtype == np.float16 else np.asarray(function(x))

    return evaluate


def binary(op: OpDef, x: Operand, y: Operand) -> Value:
    """Apply a two-operand op; a Python number takes the other operand's element type."""
    if isinstance(x, Value):
        return emit(op, NO_ATTRIBUTES, x, lift(y, x))
    if isinstance(y, Value):
        return emit(op, NO_ATTRIBUTES, lift(x, y), y)
    raise DTypeError(f"{op.name} of two plain numbers is not an op", hint="make one of them a tensor")
