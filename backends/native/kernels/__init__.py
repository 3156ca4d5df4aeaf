"""Generators of native kernels; importing the package enters them all."""

from irconv.backends.native.kernels import (
    contract,
    elementwise,
    mean_variance,
    movement,
    pool,
    random,
    reduce,
    reduce_position,
    unpool,
    weight_gradient,
)

__all__ = [
    "contract",
    "elementwise",
    "mean_variance",
    "movement",
    "pool",
    "random",
    "reduce",
    "reduce_position",
    "unpool",
    "weight_gradient",
]
