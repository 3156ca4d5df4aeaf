"""Handlers of ONNX operators, one file per family.  Importing this package registers all of them."""

from irconv.frontends.onnx.operators import (
    activation,
    control,
    conv,
    elementwise,
    indexing,
    linear,
    loss,
    misc,
    norm,
    pool,
    recurrent,
    reduce,
    resize,
    sequences,
    shape,
)

__all__ = [
    "activation",
    "control",
    "conv",
    "elementwise",
    "indexing",
    "linear",
    "loss",
    "misc",
    "norm",
    "pool",
    "recurrent",
    "reduce",
    "resize",
    "sequences",
    "shape",
]
