"""The types of values in generated code: scalars and vectors of elements."""

from __future__ import annotations

from dataclasses import dataclass

from irconv.types import BOOL, F32, F64, I8, I16, I32, I64, U8, U16, U32, U64, DType


@dataclass(frozen=True, slots=True)
class Type:
    """A scalar (one lane) or a vector."""

    dtype: DType
    lanes: int = 1

    @property
    def mask(self) -> Type:
        """What comparing two values of this type gives."""
        return Type(BOOL) if self.lanes == 1 else Type({1: I8, 2: I16, 4: I32, 8: I64}[self.dtype.bytes], self.lanes)

    @property
    def unsigned(self) -> Type:
        """The bits of such a value, as unsigned numbers."""
        return Type({1: U8, 2: U16, 4: U32, 8: U64}[self.dtype.bytes], self.lanes)

    @property
    def scalar(self) -> Type:
        return Type(self.dtype)

    def __str__(self) -> str:
        return self.dtype.name if self.lanes == 1 else f"{self.dtype.name}x{self.lanes}"


INDEX = Type(I64)
FLOAT, DOUBLE, TRUTH = Type(F32), Type(F64), Type(BOOL)
