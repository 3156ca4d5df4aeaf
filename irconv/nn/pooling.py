"""Pooling layers."""

from __future__ import annotations

from typing import Any

import irconv.nn.functional as F
from irconv.nn.functional.common import tensor_of
from irconv.nn.module import Module
from irconv.ops.reduce import reduce_max, reduce_mean
from irconv.tensor import Tensor, as_tensor

_MAX = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_MIN = {1: F.min_pool1d, 2: F.min_pool2d, 3: F.min_pool3d}
_UNPOOL = {1: F.max_unpool1d, 2: F.max_unpool2d, 3: F.max_unpool3d}
_ADAPTIVE_AVG = {1: F.adaptive_avg_pool1d, 2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}
_ADAPTIVE_MAX = {1: F.adaptive_max_pool1d, 2: F.adaptive_max_pool2d, 3: F.adaptive_max_pool3d}
_ADAPTIVE_MIN = {1: F.adaptive_min_pool1d, 2: F.adaptive_min_pool2d, 3: F.adaptive_min_pool3d}


class _ExtremumPool(Module):
    rank = 0
    functions = _MAX

    def __init__(
        self,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ):
        self.kernel_size, self.stride = kernel_size, kernel_size if stride is None else stride
        self.padding, self.dilation, self.return_indices, self.ceil_mode = padding, dilation, return_indices, ceil_mode

    def forward(self, input: Tensor) -> Any:
        return self.functions[self.rank](
            input, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode, self.return_indices
        )

    def extra_repr(self) -> str:
        return (
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, dilation={self.dilation}, "
            f"ceil_mode={self.ceil_mode}"
        )


class MaxPool1d(_ExtremumPool):
    """The largest element of each window; stride None: the kernel."""

    rank = 1


class MaxPool2d(_ExtremumPool):
    """The largest element of each window over two axes; stride None: the kernel."""

    rank = 2


class MaxPool3d(_ExtremumPool):
    """The largest element of each window over three axes; stride None: the kernel."""

    rank = 3


class MinPool1d(_ExtremumPool):
    """The smallest element of each window; stride None: the kernel."""

    rank = 1
    functions = _MIN


class MinPool2d(_ExtremumPool):
    """The smallest element of each window over two axes; stride None: the kernel."""

    rank = 2
    functions = _MIN


class MinPool3d(_ExtremumPool):
    """The smallest element of each window over three axes; stride None: the kernel."""

    rank = 3
    functions = _MIN


class _AvgPool(Module):
    def __init__(
        self,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ):
        self.kernel_size, self.stride = kernel_size, kernel_size if stride is None else stride
        self.padding, self.ceil_mode = padding, ceil_mode
        self.count_include_pad, self.divisor_override = count_include_pad, divisor_override

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"

    def settings(self) -> tuple[Any, Any, Any, bool, bool]:
        """What every average pool passes on."""
        return self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad


class AvgPool1d(_AvgPool):
    """The mean of each window; stride None: the kernel."""

    def __init__(
        self,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ):
        super().__init__(kernel_size, stride, padding, ceil_mode, count_include_pad)

    def forward(self, input: Tensor) -> Tensor:
        return F.avg_pool1d(input, *self.settings())


class AvgPool2d(_AvgPool):
    """The mean of each window over two axes; stride None: the kernel."""

    def forward(self, input: Tensor) -> Tensor:
        return F.avg_pool2d(input, *self.settings(), divisor_override=self.divisor_override)


class AvgPool3d(_AvgPool):
    """The mean of each window over three axes; stride None: the kernel."""

    def forward(self, input: Tensor) -> Tensor:
        return F.avg_pool3d(input, *self.settings(), divisor_override=self.divisor_override)


class _MaxUnpool(Module):
    rank = 0

    def __init__(self, kernel_size: Any, stride: Any = None, padding: Any = 0):
        self.kernel_size, self.stride, self.padding = kernel_size, kernel_size if stride is None else stride, padding

    def forward(self, input: Tensor, indices: Tensor, output_size: Any = None) -> Tensor:
        return _UNPOOL[self.rank](input, indices, self.kernel_size, self.stride, self.padding, output_size)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class MaxUnpool1d(_MaxUnpool):
    """Maxima put back where ``MaxPool1d(..., return_indices=True)`` found them, zeros elsewhere."""

    rank = 1


class MaxUnpool2d(_MaxUnpool):
    """Maxima put back where ``MaxPool2d(..., return_indices=True)`` found them, zeros elsewhere."""

    rank = 2


class MaxUnpool3d(_MaxUnpool):
    """Maxima put back where ``MaxPool3d(..., return_indices=True)`` found them, zeros elsewhere."""

    rank = 3


class _AdaptiveAvgPool(Module):
    rank = 0

    def __init__(self, output_size: Any):
        self.output_size = output_size

    def forward(self, input: Tensor) -> Tensor:
        return _ADAPTIVE_AVG[self.rank](input, self.output_size)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class AdaptiveAvgPool1d(_AdaptiveAvgPool):
    """The mean of each of ``output_size`` windows."""

    rank = 1


class AdaptiveAvgPool2d(_AdaptiveAvgPool):
    """The mean of each of ``output_size`` windows over two axes; None keeps an axis."""

    rank = 2


class AdaptiveAvgPool3d(_AdaptiveAvgPool):
    """The mean of each of ``output_size`` windows over three axes; None keeps an axis."""

    rank = 3


class _AdaptiveExtremumPool(Module):
    rank = 0
    functions = _ADAPTIVE_MAX

    def __init__(self, output_size: Any, return_indices: bool = False):
        self.output_size, self.return_indices = output_size, return_indices

    def forward(self, input: Tensor) -> Any:
        return self.functions[self.rank](input, self.output_size, self.return_indices)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class AdaptiveMaxPool1d(_AdaptiveExtremumPool):
    """The largest element of each of ``output_size`` windows."""

    rank = 1


class AdaptiveMaxPool2d(_AdaptiveExtremumPool):
    """The largest element of each of ``output_size`` windows over two axes; None keeps an axis."""

    rank = 2


class AdaptiveMaxPool3d(_AdaptiveExtremumPool):
    """The largest element of each of ``output_size`` windows over three axes; None keeps an axis."""

    rank = 3


class AdaptiveMinPool1d(_AdaptiveExtremumPool):
    """The smallest element of each of ``output_size`` windows."""

    rank = 1
    functions = _ADAPTIVE_MIN


class AdaptiveMinPool2d(_AdaptiveExtremumPool):
    """The smallest element of each of ``output_size`` windows over two axes; None keeps an axis."""

    rank = 2
    functions = _ADAPTIVE_MIN


class AdaptiveMinPool3d(_AdaptiveExtremumPool):
    """The smallest element of each of ``output_size`` windows over three axes; None keeps an axis."""

    rank = 3
    functions = _ADAPTIVE_MIN


class GlobalAvgPool(Module):
    """The mean over all spatial axes of [N, C, ...]: [N, C], or [N, C, 1, ...] with ``keepdims``."""

    def __init__(self, keepdims: bool = False):
        self.keepdims = keepdims

    def forward(self, input: Tensor) -> Tensor:
        x = as_tensor(input)
        return tensor_of(reduce_mean(x, tuple(range(2, x.ndim)), self.keepdims))

    def extra_repr(self) -> str:
        return f"keepdims={self.keepdims}"


class GlobalMaxPool(Module):
    """The largest element over all spatial axes of [N, C, ...]: [N, C], or [N, C, 1, ...] with ``keepdims``."""

    def __init__(self, keepdims: bool = False):
        self.keepdims = keepdims

    def forward(self, input: Tensor) -> Tensor:
        x = as_tensor(input)
        return tensor_of(reduce_max(x, tuple(range(2, x.ndim)), self.keepdims))

    def extra_repr(self) -> str:
        return f"keepdims={self.keepdims}"
