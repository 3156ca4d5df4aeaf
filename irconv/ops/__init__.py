"""The primitives, one file per family.  Importing this package registers all of them.

Families import one way: leaf, elementwise, shape, concat, pad, index, reduce, contract, conv, pool, resize, random.
"""

from irconv.ops import concat, contract, conv, custom, elementwise, index, leaf, pad, pool, random, reduce, resize, shape

__all__ = [
    "concat",
    "contract",
    "conv",
    "custom",
    "elementwise",
    "index",
    "leaf",
    "pad",
    "pool",
    "random",
    "reduce",
    "resize",
    "shape",
]
