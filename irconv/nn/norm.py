"""Normalisation layers."""

from __future__ import annotations

from typing import Any

import numpy as np

import irconv.nn.functional as F
from irconv.nn.functional.common import batched, misshapen, refused, tensor_of
from irconv.nn.module import Buffer, Module, Parameter
from irconv.ops.shape import squeeze
from irconv.tensor import Tensor, as_tensor
from irconv.types import F32, as_dtype


class _Affine(Module):
    """Layers with ``weight`` of ones and ``bias`` of zeros, or without them."""

    weight: Parameter | None
    bias: Parameter | None

    def _make_affine(self, shape: tuple[int, ...], weight: bool, bias: bool, dtype: Any) -> None:
        self.weight = Parameter(np.ones(shape, as_dtype(dtype).numpy)) if weight else None
        self.bias = Parameter(np.zeros(shape, as_dtype(dtype).numpy)) if bias else None


class _RunningNorm(_Affine):
    """What batch and instance norm share: parameters, running statistics and how they are shown."""

    def __init__(
        self,
        num_features: int,
        eps: float,
        momentum: float | None,
        affine: bool,
        track_running_stats: bool,
        bias: bool,
        dtype: Any,
    ):
        if num_features < 1:
            raise refused(f"num_features must be at least 1, got {num_features}")
        if momentum is not None and not (isinstance(momentum, (int, float)) and 0 <= momentum <= 1):
            raise refused(f"momentum is a number from 0 to 1 or None, got {momentum!r}")
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.affine, self.track_running_stats = affine, track_running_stats
        self._make_affine((num_features,), affine, affine and bias, dtype)
        tracked = track_running_stats
        self.running_mean = Buffer(np.zeros(num_features, as_dtype(dtype).numpy)) if tracked else None
        self.running_var = Buffer(np.ones(num_features, as_dtype(dtype).numpy)) if tracked else None
        self.num_batches_tracked = Buffer(np.zeros((), np.int64)) if tracked else None

    def reset_running_stats(self) -> None:
        """Start the running statistics again."""
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            self.running_mean.variable.assign(np.zeros(self.num_features))
            self.running_var.variable.assign(np.ones(self.num_features))
            self.num_batches_tracked.variable.assign(0)

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"track_running_stats={self.track_running_stats}"
        )


class _BatchNorm(_RunningNorm):
    """(x - mean) / sqrt(variance + eps) * weight + bias, per channel.

    In training with the batch's statistics, towards which the running ones move: by ``momentum``, or as the average of all
    batches if it is None.  In evaluation with the running ones.
    """

    ranks: tuple[int, ...] = ()

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        *,
        bias: bool = True,
        dtype: Any = F32,
    ):
        super().__init__(num_features, eps, momentum, affine, track_running_stats, bias, dtype)

    def forward(self, input: Tensor) -> Tensor:
        x = as_tensor(input)
        if x.ndim not in self.ranks:
            wanted = " or ".join(map(str, self.ranks))
            raise misshapen(f"{type(self).__name__} takes an input of {wanted} axes, got shape {list(x.shape)}")
        training = self.training
        momentum: Any = self.momentum
        count = self.num_batches_tracked + 1 if training and self.num_batches_tracked is not None else None
        if count is not None and momentum is None and self.running_mean is not None:
            momentum = 1.0 / count.astype(self.running_mean.dtype)
        y = F.batch_norm(
            x,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            training or self.running_mean is None,
            momentum,
            self.eps,
        )
        if count is not None and self.num_batches_tracked is not None:
            self.num_batches_tracked.assign(count)  # last: a batch that was refused does not count
        return y


class BatchNorm1d(_BatchNorm):
    """Batch normalisation of [N, C] or [N, C, L]; parameters weight and bias [C], buffers running_mean and running_var [C]."""

    ranks = (2, 3)


class BatchNorm2d(_BatchNorm):
    """Batch normalisation of [N, C, H, W], see :class:`BatchNorm1d`."""

    ranks = (4,)


class BatchNorm3d(_BatchNorm):
    """Batch normalisation of [N, C, D, H, W], see :class:`BatchNorm1d`."""

    ranks = (5,)


class _InstanceNorm(_RunningNorm):
    rank = 0

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        *,
        bias: bool = True,
        dtype: Any = F32,
    ):
        super().__init__(num_features, eps, momentum, affine, track_running_stats, bias, dtype)

    def forward(self, input: Tensor) -> Tensor:
        x, added = batched(as_tensor(input), self.rank, type(self).__name__)
        if x.shape[1] != self.num_features:
            raise misshapen(
                f"{type(self).__name__}({self.num_features}) got {x.shape[1]} channels in shape {list(x.shape)}"
            )
        y = F.instance_norm(
            x,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.training or not self.track_running_stats,
            0.1 if self.momentum is None else self.momentum,
            self.eps,
        )
        return tensor_of(squeeze(y, 0)) if added else y


class InstanceNorm1d(_InstanceNorm):
    """Normalisation of each channel of each sample of [N, C, L] or [C, L]."""

    rank = 1


class InstanceNorm2d(_InstanceNorm):
    """Normalisation of each channel of each sample of [N, C, H, W] or [C, H, W]."""

    rank = 2


class InstanceNorm3d(_InstanceNorm):
    """Normalisation of each channel of each sample of [N, C, D, H, W] or [C, D, H, W]."""

    rank = 3


class LayerNorm(_Affine):
    """Normalisation over the last axes, of sizes ``normalized_shape``; weight and bias of that shape."""

    def __init__(
        self,
        normalized_shape: Any,
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        *,
        dtype: Any = F32,
    ):
        self.normalized_shape = (
            tuple(normalized_shape) if hasattr(normalized_shape, "__iter__") else (normalized_shape,)
        )
        self.eps, self.elementwise_affine = eps, elementwise_affine
        self._make_affine(self.normalized_shape, elementwise_affine, elementwise_affine and bias, dtype)

    def forward(self, input: Tensor) -> Tensor:
        return F.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"


class GroupNorm(_Affine):
    """Normalisation of each of ``num_groups`` groups of channels of each sample; weight and bias [C]."""

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        *,
        bias: bool = True,
        dtype: Any = F32,
    ):
        if num_groups < 1 or num_channels % num_groups:
            raise refused(f"num_groups={num_groups} does not divide num_channels={num_channels}")
        self.num_groups, self.num_channels, self.eps, self.affine = num_groups, num_channels, eps, affine
        self._make_affine((num_channels,), affine, affine and bias, dtype)

    def forward(self, input: Tensor) -> Tensor:
        return F.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}"


class LocalResponseNorm(Module):
    """x / (k + alpha mean(x^2))^beta over ``size`` neighbouring channels."""

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0):
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def forward(self, input: Tensor) -> Tensor:
        return F.local_response_norm(input, self.size, self.alpha, self.beta, self.k)

    def extra_repr(self) -> str:
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"
