"""The primitives, one file per family.  Importing this package registers all of them.

Families import one way: leaf, elementwise, shape, layout, concat, pad, index, scatter, scan, sort, reduce, index_nd, contract,
einsum, conv, pool, resize, random.
"""

from irconv.ops import (
    concat,
    contract,
    conv,
    custom,
    einsum,
    elementwise,
    index,
    index_nd,
    layout,
    leaf,
    pad,
    pool,
    random,
    reduce,
    resize,
    scan,
    scatter,
    shape,
    sort,
)

__all__ = [
    "concat",
    "contract",
    "conv",
    "custom",
    "einsum",
    "elementwise",
    "index",
    "index_nd",
    "layout",
    "leaf",
    "pad",
    "pool",
    "random",
    "reduce",
    "resize",
    "scan",
    "scatter",
    "shape",
    "sort",
]
