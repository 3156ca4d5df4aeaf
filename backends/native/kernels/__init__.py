"""Generators of native kernels; importing the package enters them all."""

from irconv.backends.native.kernels import (
    columns,
    contract,
    elementwise,
    indexing,
    mean_variance,
    movement,
    padding,
    pool,
    random,
    reduce,
    reduce_position,
    resize,
    row_softmax,
    scan,
    unpool,
    weight_gradient,
)

__all__ = [
    "columns",
    "contract",
    "elementwise",
    "indexing",
    "mean_variance",
    "movement",
    "padding",
    "pool",
    "random",
    "reduce",
    "reduce_position",
    "resize",
    "row_softmax",
    "scan",
    "unpool",
    "weight_gradient",
]
