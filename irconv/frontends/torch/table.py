"""PyTorch's functions by name.

``TENSOR`` holds ``torch.NAME``, ``Tensor.NAME`` and ``operator.NAME``; ``ATEN`` those operators that take their parameters in
another order than the function of ``torch.nn.functional`` of the same name.  All other functions of ``torch.nn.functional`` are
those of :mod:`irconv.nn.functional`, which has them under the same names.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

import irconv.nn.functional as F
from irconv.creation import full as new
from irconv.frontends.torch.functions import (
    Function,
    addmm,
    arange,
    aten_slice,
    attribute,
    axes_of,
    binary,
    cast,
    chunk,
    clamp,
    div,
    expand,
    extremum,
    filled,
    filled_like,
    flat,
    float_function,
    full,
    gather,
    getitem,
    joined,
    logical,
    lp_pool,
    masked_fill,
    movedim,
    narrow,
    norm,
    permute,
    pixel_channels,
    reduction,
    repeat,
    repeat_interleave,
    rms_norm,
    roll,
    same,
    scalar,
    scaled,
    select,
    setitem,
    shrink,
    size,
    sizes_of,
    sorting,
    split,
    spread,
    squeeze,
    take,
    to,
    topk,
    unbind,
    unflatten,
    view,
)
from irconv.nn.functional.common import tensor_of
from irconv.ops import concat, elementwise, shape, sort
from irconv.ops.einsum import einsum
from irconv.ops.reduce import argmax, argmin, reduce_max, reduce_min, reduce_prod
from irconv.ops.scan import cumprod, cumsum
from irconv.tensor import common, floating, where

TENSOR: dict[str, Function] = {
    **dict.fromkeys(("add", "iadd"), scaled(operator.add)),
    **dict.fromkeys(("sub", "subtract", "isub"), scaled(operator.sub)),
    "rsub": scaled(lambda x, y: y - x),
    **dict.fromkeys(("mul", "multiply", "imul"), binary(operator.mul)),
    **dict.fromkeys(("div", "divide", "truediv", "true_divide", "itruediv"), div),
    **dict.fromkeys(("floordiv", "floor_divide", "ifloordiv"), binary(operator.floordiv)),
    **dict.fromkeys(("mod", "remainder"), binary(operator.mod)),
    **dict.fromkeys(("pow", "ipow"), lambda input, exponent: input**exponent),
    **dict.fromkeys(("matmul", "mm", "bmm", "imatmul"), lambda input, mat2: input @ mat2),
    "addmm": addmm,
    "addcmul": lambda input, a, b, *, value=1: input + a * b * value,
    "lerp": lambda input, end, weight: input + (end - input) * weight,
    "einsum": lambda equation, *operands: einsum(
        equation, *(operands[0] if len(operands) == 1 and isinstance(operands[0], list | tuple) else operands)
    ),
    **dict.fromkeys(("neg", "negative"), operator.neg),
    **dict.fromkeys(("abs", "absolute"), abs),
    "maximum": np.maximum,
    "minimum": np.minimum,
    **dict.fromkeys(("clamp", "clip"), clamp),
    "clamp_min": lambda input, min: clamp(input, min),
    "clamp_max": lambda input, max: clamp(input, None, max),
    "square": lambda input: input * input,
    "reciprocal": lambda input: 1.0 / floating(input),
    "sign": lambda input: tensor_of(elementwise.sign(input)),
    **{
        name: float_function(getattr(elementwise, name))
        for name in ("exp", "expm1", "log", "log1p", "sqrt", "rsqrt", "erf")
    },
    **{
        name: float_function(getattr(elementwise, name))
        for name in ("sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh")
    },
    **{
        name: float_function(getattr(elementwise, name))
        for name in ("sinh", "cosh", "floor", "ceil", "tanh", "sigmoid")
    },
    "round": float_function(elementwise.round_),
    "eq": operator.eq,
    "ne": operator.ne,
    **{name: getattr(operator, name) for name in ("lt", "le", "gt", "ge")},
    **dict.fromkeys(("and_", "__and__", "bitwise_and"), operator.and_),
    **dict.fromkeys(("or_", "__or__", "bitwise_or"), operator.or_),
    **dict.fromkeys(("invert", "bitwise_not"), operator.invert),
    "logical_and": logical(elementwise.logical_and),
    "logical_or": logical(elementwise.logical_or),
    "logical_xor": logical(elementwise.logical_xor),
    "logical_not": logical(elementwise.logical_not),
    "where": lambda condition, input, other: where(condition, input, other),
    "masked_fill": masked_fill,
    "sum": reduction("sum"),
    "mean": reduction("mean"),
    "var": spread(False),
    "std": spread(True),
    "prod": lambda input, dim=None, keepdim=False: tensor_of(reduce_prod(input, dim, keepdim)),
    "max": extremum(reduce_max, argmax, np.maximum),
    "min": extremum(reduce_min, argmin, np.minimum),
    "amax": lambda input, dim=(), keepdim=False: input.max(axes_of(dim), keepdim),
    "amin": lambda input, dim=(), keepdim=False: input.min(axes_of(dim), keepdim),
    "argmax": lambda input, dim=None, keepdim=False: input.argmax(dim, keepdim),
    "argmin": lambda input, dim=None, keepdim=False: input.argmin(dim, keepdim),
    **dict.fromkeys(("norm", "linalg_vector_norm"), norm),
    "_assert_tensor_metadata": lambda *args, **kwargs: None,
    "cumsum": lambda input, dim: tensor_of(cumsum(input, dim)),
    "cumprod": lambda input, dim: tensor_of(cumprod(input, dim)),
    "topk": topk,
    "sort": sorting,
    "argsort": lambda input, dim=-1, descending=False: sort.argsort(input, dim, descending),
    "size": size,
    "dim": lambda input: input.ndim,
    "numel": lambda input: input.size,
    **dict.fromkeys(("view", "reshape"), view),
    "view_as": lambda input, other: input.reshape(other.shape),
    "reshape_as": lambda input, other: input.reshape(other.shape),
    "permute": permute,
    **dict.fromkeys(("transpose", "swapaxes", "swapdims"), lambda input, dim0, dim1: input.swapaxes(dim0, dim1)),
    "t": lambda input: input.transpose(),
    "movedim": movedim,
    "flatten": flat,
    "unflatten": unflatten,
    "ravel": lambda input: input.reshape(-1),
    "squeeze": squeeze,
    "unsqueeze": lambda input, dim: shape.expand_dims(input, dim),
    "expand": expand,
    "expand_as": lambda input, other: shape.broadcast(input, other.shape),
    "broadcast_to": lambda input, size: shape.broadcast(input, tuple(size)),
    **dict.fromkeys(("repeat", "tile"), repeat),
    "repeat_interleave": repeat_interleave,
    **dict.fromkeys(("cat", "concat", "concatenate"), lambda tensors, dim=0: joined(tensors, dim)),
    "stack": lambda tensors, dim=0: concat.stack(common(*tensors), dim),
    "chunk": chunk,
    **dict.fromkeys(("split", "split_with_sizes"), split),
    "unbind": unbind,
    "narrow": narrow,
    "slice": aten_slice,
    "select": select,
    "index_select": lambda input, dim, index: take(input, index, dim),
    "gather": lambda input, dim, index: gather(input, index, dim),
    "flip": lambda input, *dims: shape.flip(input, sizes_of(dims)),
    "roll": roll,
    "getitem": getitem,
    "setitem": setitem,
    "getattr": attribute,
    **dict.fromkeys(
        ("contiguous", "detach", "detach_", "cpu", "cuda", "requires_grad_", "lift_fresh_copy", "alias"), same
    ),
    "copy": lambda input, src, non_blocking=False: src.astype(input.dtype),
    "clone": lambda input, **ignored: tensor_of(elementwise.copy(input)),
    **dict.fromkeys(("to", "type", "type_as", "_to_copy"), to),
    **{name: cast(dtype) for name, dtype in (("float", "f32"), ("double", "f64"), ("half", "f16"))},
    **{name: cast(dtype) for name, dtype in (("long", "i64"), ("int", "i32"), ("bool", "bool"))},
    "zeros": filled(0),
    "ones": filled(1),
    "zeros_like": filled_like(0),
    "ones_like": filled_like(1),
    "new_zeros": lambda input, *size, dtype=None, **ignored: new(sizes_of(size), 0, dtype or input.dtype),
    "new_ones": lambda input, *size, dtype=None, **ignored: new(sizes_of(size), 1, dtype or input.dtype),
    "full": full,
    "full_like": lambda input, fill_value, dtype=None, **ignored: new(input.shape, fill_value, dtype or input.dtype),
    "arange": arange,
    **dict.fromkeys(("tensor", "scalar_tensor"), scalar),
    "softshrink": shrink(True),
    "hardshrink": shrink(False),
    "tanhshrink": lambda input: input - input.tanh(),
    "channel_shuffle": pixel_channels,
    "rms_norm": rms_norm,
    **{f"lp_pool{rank}d": lp_pool(rank) for rank in (1, 2, 3)},
}


def _resized(mode: str, aligns: bool) -> Function:
    """The ``upsample_...`` operators: by size or by scale factors."""

    def apply(input: Any, output_size: Any, *rest: Any) -> Any:
        align = bool(rest[0]) if aligns else None
        factors = rest[1 if aligns else 0] if len(rest) == 1 + aligns else None
        scale = factors if output_size is None else None
        return F.interpolate(input, output_size, scale, mode, align)

    return apply


def _padded(mode: str) -> Function:
    return lambda input, padding: F.pad(input, padding, mode)


def _default_stride(function: Function) -> Function:
    """A pool whose stride is an empty list where it was left out."""

    def apply(input: Any, kernel_size: Any, stride: Any = (), *rest: Any, **named: Any) -> Any:
        return function(input, kernel_size, stride or None, *rest, **named)

    return apply


ATEN: dict[str, Function] = {
    "batch_norm": lambda input, weight, bias, mean, var, training, momentum, eps, cudnn=True: F.batch_norm(
        input, mean, var, weight, bias, training, momentum, eps
    ),
    "instance_norm": lambda input, weight, bias, mean, var, use_input_stats, momentum, eps, cudnn=True: F.instance_norm(
        input, mean, var, weight, bias, use_input_stats, momentum, eps
    ),
    "layer_norm": lambda input, normalized_shape, weight=None, bias=None, eps=1e-5, cudnn=True: F.layer_norm(
        input, normalized_shape, weight, bias, eps
    ),
    "group_norm": lambda input, num_groups, weight=None, bias=None, eps=1e-5, cudnn=True: F.group_norm(
        input, num_groups, weight, bias, eps
    ),
    "softmax": lambda input, dim, dtype=None: F.softmax(input, dim, dtype=dtype),
    "log_softmax": lambda input, dim, dtype=None: F.log_softmax(input, dim, dtype=dtype),
    "elu": lambda input, alpha=1, scale=1, input_scale=1: F.elu(input * input_scale, alpha) * scale,
    "feature_dropout": F.dropout2d,
    "constant_pad_nd": lambda input, pad, value=0: F.pad(input, pad, "constant", value),
    **{f"reflection_pad{rank}d": _padded("reflect") for rank in (1, 2, 3)},
    **{f"replication_pad{rank}d": _padded("replicate") for rank in (1, 2, 3)},
    **{f"max_pool{rank}d": _default_stride(getattr(F, f"max_pool{rank}d")) for rank in (1, 2, 3)},
    **{f"avg_pool{rank}d": _default_stride(getattr(F, f"avg_pool{rank}d")) for rank in (1, 2, 3)},
    **{f"upsample_nearest{rank}d": _resized("nearest", False) for rank in (1, 2, 3)},
    "upsample_linear1d": _resized("linear", True),
    "upsample_bilinear2d": _resized("bilinear", True),
    "upsample_bicubic2d": _resized("bicubic", True),
    "upsample_trilinear3d": _resized("trilinear", True),
    "im2col": F.unfold,
    "col2im": F.fold,
}
