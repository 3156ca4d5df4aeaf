"""Generators of native kernels; importing the package enters them all."""

from irconv.backends.native.kernels import (
    columns,
    contract,
    elementwise,
    mean_variance,
    movement,
    pool,
    random,
    reduce,
    reduce_position,
    row_softmax,
    unpool,
    weight_gradient,
)

__all__ = [
    "columns",
    "contract",
    "elementwise",
    "mean_variance",
    "movement",
    "pool",
    "random",
    "reduce",
    "reduce_position",
    "row_softmax",
    "unpool",
    "weight_gradient",
]
