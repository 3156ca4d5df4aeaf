"""How each op is written in ONNX, one file per family.  Importing this package enters all of them."""

from irconv.frontends.onnx.export_ops import contract, elementwise, index, pool, random, reduce, resize, rounding, shape
from irconv.frontends.onnx.export_ops.writer import DOMAIN, LOWERINGS, Writer, element_type

__all__ = [
    "DOMAIN",
    "LOWERINGS",
    "Writer",
    "contract",
    "element_type",
    "elementwise",
    "index",
    "pool",
    "random",
    "reduce",
    "resize",
    "rounding",
    "shape",
]
