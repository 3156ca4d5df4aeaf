"""Convolution layers, with PyTorch's parameters, weight layouts and initialisation."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import irconv.nn.functional as F
from irconv.nn import init
from irconv.nn.functional.common import amounts, refused
from irconv.nn.functional.resampling import PAD_MODES
from irconv.nn.module import Module, Parameter
from irconv.ops.window import PADDING_NAMES
from irconv.tensor import Tensor
from irconv.types import F32, as_dtype

_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_CONV_TRANSPOSE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def empty_parameter(shape: tuple[int, ...], dtype: Any) -> Parameter:
    """A parameter for an initialiser to fill."""
    return Parameter(np.zeros(shape, as_dtype(dtype).numpy))


class _Convolution(Module):
    """What convolutions share: parameters, their checks and initialisation."""

    rank = 0
    transposed = False

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any,
        padding: Any,
        dilation: Any,
        groups: int,
        bias: bool,
        padding_mode: str,
        dtype: Any,
    ):
        if groups < 1 or in_channels < 1 or out_channels < 1 or in_channels % groups or out_channels % groups:
            raise refused(
                f"groups={groups} must divide in_channels={in_channels} and out_channels={out_channels}, all at least 1"
            )
        if padding_mode not in PAD_MODES.keys() - {"constant"} | {"zeros"}:
            raise refused(f"padding_mode {padding_mode!r} is not one of zeros, reflect, replicate, circular, mean")
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size = amounts(kernel_size, self.rank, "kernel_size")
        self.stride = amounts(stride, self.rank, "stride")
        self.dilation = amounts(dilation, self.rank, "dilation")
        if min(*self.kernel_size, *self.stride, *self.dilation) < 1:
            raise refused(
                f"kernel_size {list(self.kernel_size)}, stride {list(self.stride)} and dilation {list(self.dilation)} "
                "must be at least 1"
            )
        if isinstance(padding, str) and padding not in PADDING_NAMES:
            raise refused(f"padding {padding!r} is neither numbers nor one of {', '.join(PADDING_NAMES)}")
        self.padding: Any = padding if isinstance(padding, str) else amounts(padding, self.rank, "padding")
        self.padding_mode = padding_mode
        channels = (in_channels, out_channels // groups) if self.transposed else (out_channels, in_channels // groups)
        self.weight = empty_parameter((*channels, *self.kernel_size), dtype)
        self.bias = empty_parameter((out_channels,), dtype) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Fill weight and bias: uniform in +-1 / sqrt(fan_in)."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(init.fans(self.weight)[0])
            init.uniform_(self.bias, -bound, bound)

    def extra_repr(self) -> str:
        parts = [f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"]
        if isinstance(self.padding, str) or any(self.padding):
            parts.append(f"padding={self.padding!r}")
        if any(d != 1 for d in self.dilation):
            parts.append(f"dilation={self.dilation}")
        if self.groups != 1:
            parts.append(f"groups={self.groups}")
        if self.bias is None:
            parts.append("bias=False")
        if self.padding_mode != "zeros":
            parts.append(f"padding_mode={self.padding_mode!r}")
        return ", ".join(parts)


class _Conv(_Convolution):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        *,
        dtype: Any = F32,
    ):
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, dtype
        )
        if padding == "same" and any(s != 1 for s in self.stride):
            raise refused(f"padding 'same' keeps the size only at stride 1, got stride {list(self.stride)}")

    def forward(self, input: Tensor) -> Tensor:
        padding: Any = self.padding
        if self.padding_mode != "zeros":
            input = F.pad(input, self._edges(), self.padding_mode)
            padding = 0
        return _CONV[self.rank](input, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)

    def _edges(self) -> list[int]:
        """What to pad, last axis first, as :func:`irconv.nn.functional.pad` takes it."""
        if self.padding == "valid":
            return [0, 0] * self.rank
        if isinstance(self.padding, str) and self.padding != "same":
            raise refused(f"padding {self.padding!r} goes with padding_mode 'zeros' only, got {self.padding_mode!r}")
        if self.padding == "same":
            totals = [d * (k - 1) for k, d in zip(self.kernel_size, self.dilation, strict=True)]
            pairs = [(total // 2, total - total // 2) for total in totals]
        else:
            pairs = [(p, p) for p in self.padding]
        return [amount for pair in reversed(pairs) for amount in pair]


class Conv1d(_Conv):
    """Cross-correlation of [N, C, L] (or [C, L]) with ``weight`` [out, in / groups, K], plus ``bias`` [out].

    padding: per axis, 'valid', or 'same' (stride 1); padding_mode: zeros, reflect, replicate, circular or mean.
    """

    rank = 1


class Conv2d(_Conv):
    """Cross-correlation of [N, C, H, W] (or [C, H, W]) with ``weight`` [out, in / groups, *K], see :class:`Conv1d`."""

    rank = 2


class Conv3d(_Conv):
    """Cross-correlation of [N, C, D, H, W] (or [C, D, H, W]) with ``weight`` [out, in / groups, *K], see :class:`Conv1d`."""

    rank = 3


class _ConvTranspose(_Convolution):
    transposed = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Any = 1,
        padding_mode: str = "zeros",
        *,
        dtype: Any = F32,
    ):
        if padding_mode != "zeros":
            raise refused(f"transposed convolutions take padding_mode 'zeros' only, got {padding_mode!r}")
        if isinstance(padding, str):
            raise refused(f"transposed convolutions take padding as numbers, got {padding!r}")
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, dtype
        )
        self.output_padding = amounts(output_padding, self.rank, "output_padding")

    def forward(self, input: Tensor, output_size: Any = None) -> Tensor:
        extra = self.output_padding if output_size is None else self._extra(input.shape, output_size)
        return _CONV_TRANSPOSE[self.rank](
            input, self.weight, self.bias, self.stride, self.padding, extra, self.groups, self.dilation
        )

    def _extra(self, shape: tuple[int, ...], output_size: Any) -> tuple[int, ...]:
        """The output padding that gives ``output_size`` (its last axes count)."""
        wanted = tuple(output_size)[-self.rank :]
        geometry = zip(shape[-self.rank :], self.kernel_size, self.stride, self.padding, self.dilation, strict=True)
        least = tuple((n - 1) * s - 2 * p + d * (k - 1) + 1 for n, k, s, p, d in geometry)
        if len(wanted) != self.rank or any(
            not 0 <= w - n < s for w, n, s in zip(wanted, least, self.stride, strict=True)
        ):
            most = [n + s - 1 for n, s in zip(least, self.stride, strict=True)]
            raise refused(f"output_size {list(output_size)} is not between {list(least)} and {most}")
        return tuple(w - n for w, n in zip(wanted, least, strict=True))

    def extra_repr(self) -> str:
        extra = f", output_padding={self.output_padding}" if any(self.output_padding) else ""
        return super().extra_repr() + extra


class ConvTranspose1d(_ConvTranspose):
    """The adjoint of :class:`Conv1d` by its input; ``weight`` [in, out / groups, K].

    ``forward(input, output_size=None)`` takes the output size to tell apart those that share an input size.
    """

    rank = 1


class ConvTranspose2d(_ConvTranspose):
    """The adjoint of :class:`Conv2d` by its input; ``weight`` [in, out / groups, *K], see :class:`ConvTranspose1d`."""

    rank = 2


class ConvTranspose3d(_ConvTranspose):
    """The adjoint of :class:`Conv3d` by its input; ``weight`` [in, out / groups, *K], see :class:`ConvTranspose1d`."""

    rank = 3
