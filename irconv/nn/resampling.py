"""Layers that pad or resize the spatial axes."""

from __future__ import annotations

from typing import Any

import irconv.nn.functional as F
from irconv.nn.functional.common import misshapen, refused
from irconv.nn.module import Module
from irconv.tensor import Tensor, as_tensor


class Upsample(Module):
    """Resizing to ``size`` or by ``scale_factor``; modes as :func:`irconv.nn.functional.interpolate`."""

    def __init__(
        self,
        size: Any = None,
        scale_factor: Any = None,
        mode: str = "nearest",
        align_corners: bool | None = None,
        recompute_scale_factor: bool | None = None,
    ):
        self.size, self.scale_factor, self.mode, self.align_corners = size, scale_factor, mode, align_corners
        self.recompute_scale_factor = recompute_scale_factor

    def forward(self, input: Tensor) -> Tensor:
        return F.interpolate(
            input, self.size, self.scale_factor, self.mode, self.align_corners, self.recompute_scale_factor
        )

    def extra_repr(self) -> str:
        by = f"scale_factor={self.scale_factor}" if self.size is None else f"size={self.size}"
        return f"{by}, mode={self.mode!r}"


class _Pad(Module):
    """Padding of the last ``rank`` axes of an input with or without batch axis."""

    rank = 0
    mode = "constant"

    def __init__(self, padding: Any):
        self.padding = (int(padding),) * (2 * self.rank) if hasattr(padding, "__index__") else tuple(padding)
        if len(self.padding) != 2 * self.rank:
            raise refused(
                f"padding {list(self.padding)} is not (before, after) for each of {self.rank} axes, last axis first"
            )

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(self._checked(input), self.padding, self.mode)

    def _checked(self, input: Any) -> Tensor:
        x = as_tensor(input)
        if x.ndim not in (self.rank + 1, self.rank + 2):
            raise misshapen(
                f"{type(self).__name__} takes [batch, channels, {self.rank} spatial axes], or those without batch, "
                f"got shape {list(x.shape)}"
            )
        return x

    def extra_repr(self) -> str:
        return str(self.padding)


class _ConstantPad(_Pad):
    def __init__(self, padding: Any, value: float):
        super().__init__(padding)
        self.value = value

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(self._checked(input), self.padding, "constant", self.value)

    def extra_repr(self) -> str:
        return f"padding={self.padding}, value={self.value}"


class ConstantPad1d(_ConstantPad):
    """A constant around the last axis; padding (left, right) or one number."""

    rank = 1


class ConstantPad2d(_ConstantPad):
    """A constant around the last two axes; padding (left, right, top, bottom) or one number."""

    rank = 2


class ConstantPad3d(_ConstantPad):
    """A constant around the last three axes; padding (left, right, top, bottom, front, back) or one number."""

    rank = 3


class ZeroPad1d(_Pad):
    """Zeros around the last axis; padding (left, right) or one number."""

    rank = 1


class ZeroPad2d(_Pad):
    """Zeros around the last two axes; padding (left, right, top, bottom) or one number."""

    rank = 2


class ZeroPad3d(_Pad):
    """Zeros around the last three axes; padding (left, right, top, bottom, front, back) or one number."""

    rank = 3


class ReflectionPad1d(_Pad):
    """The input reflected at its ends, without repeating the end itself; amounts below the size."""

    rank, mode = 1, "reflect"


class ReflectionPad2d(_Pad):
    """The input reflected over two axes, see :class:`ReflectionPad1d`."""

    rank, mode = 2, "reflect"


class ReflectionPad3d(_Pad):
    """The input reflected over three axes, see :class:`ReflectionPad1d`."""

    rank, mode = 3, "reflect"


class ReplicationPad1d(_Pad):
    """The end elements repeated."""

    rank, mode = 1, "replicate"


class ReplicationPad2d(_Pad):
    """The edges repeated over two axes."""

    rank, mode = 2, "replicate"


class ReplicationPad3d(_Pad):
    """The faces repeated over three axes."""

    rank, mode = 3, "replicate"


class CircularPad1d(_Pad):
    """The input repeated periodically; amounts up to the size."""

    rank, mode = 1, "circular"


class CircularPad2d(_Pad):
    """The input repeated periodically over two axes."""

    rank, mode = 2, "circular"


class CircularPad3d(_Pad):
    """The input repeated periodically over three axes."""

    rank, mode = 3, "circular"
