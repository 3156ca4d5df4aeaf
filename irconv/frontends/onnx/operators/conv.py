"""Convolution and its transpose."""

from __future__ import annotations

from typing import Any

from irconv.errors import ModelError
from irconv.frontends.onnx.operators.common import pairs, per_channel, spatial_rank, tensor_of
from irconv.frontends.onnx.registry import Call, operator
from irconv.ops import conv as core
from irconv.ops import elementwise as e
from irconv.ops.window import Padding, covered
from irconv.tensor import Tensor

AUTO_PAD = {"NOTSET": None, "VALID": "valid", "SAME_UPPER": "same_upper", "SAME_LOWER": "same_lower"}


def auto_padding(call: Call) -> str | None:
    """The attribute auto_pad as constructors name it; None where pads holds the amounts."""
    return AUTO_PAD[call.attributes.string("auto_pad", "NOTSET", choices=tuple(AUTO_PAD))]


def padding(call: Call, rank: int) -> Padding:
    """The attributes auto_pad and pads as constructors take padding."""
    mode = auto_padding(call)
    return mode if mode is not None else pairs(call.attributes.ints("pads", (0,) * (2 * rank)), rank)


def window(call: Call, rank: int) -> dict[str, Any]:
    """The attributes strides, dilations and group."""
    a = call.attributes
    return {
        "stride": a.ints("strides", (1,) * rank),
        "dilation": a.ints("dilations", (1,) * rank),
        "groups": a.int("group", 1),
    }


def _check_kernel(call: Call, w: Tensor) -> None:
    declared = call.attributes.ints("kernel_shape", None)
    if declared is not None and declared != w.shape[2:]:
        raise ModelError(f"kernel_shape is {list(declared)}, the weight has shape {list(w.shape)}")


def _with_bias(y: Tensor, bias: Tensor | None) -> Tensor:
    if bias is None:
        return y
    if bias.shape != (y.shape[1],):
        raise ModelError(f"the bias has shape {list(bias.shape)}, the result {y.shape[1]} channels")
    return tensor_of(e.add(y, per_channel(bias, y.ndim)))


@operator("Conv", weights=(1, 2))
def conv(call: Call, x: Tensor, w: Tensor, bias: Tensor | None = None) -> Tensor:
    """Cross-correlation, with a bias for each channel."""
    rank = spatial_rank(x)
    _check_kernel(call, w)
    return _with_bias(tensor_of(core.conv(x, w, padding=padding(call, rank), **window(call, rank))), bias)


@operator("ConvTranspose", weights=(1, 2))
def conv_transpose(call: Call, x: Tensor, w: Tensor, bias: Tensor | None = None) -> Tensor:
    """The adjoint of a convolution, with a bias for each channel.

    output_shape says the size of the result; the padding then follows from it, split as auto_pad says.
    """
    rank = spatial_rank(x)
    _check_kernel(call, w)
    a = call.attributes
    extra = a.ints("output_padding", (0,) * rank)
    size = a.ints("output_shape", None)
    settings = window(call, rank)
    full = covered(x.shape[2:], w.shape[2:], settings["stride"], settings["dilation"])
    if size is not None:
        size = size[-rank:]
        before = _cut_before(call, full, size, extra)
        return _with_bias(tensor_of(core.conv_transpose(x, w, padding=before, output_size=size, **settings)), bias)
    mode = auto_padding(call)
    if mode is not None:
        return _with_bias(tensor_of(core.conv_transpose(x, w, padding=mode, output_padding=extra, **settings)), bias)
    cut = pairs(a.ints("pads", (0,) * (2 * rank)), rank)
    size = tuple(f + more - sum(pair) for f, more, pair in zip(full, extra, cut, strict=True))
    return _with_bias(tensor_of(core.conv_transpose(x, w, padding=cut, output_size=size, **settings)), bias)


def _cut_before(call: Call, full: tuple[int, ...], size: tuple[int, ...], extra: tuple[int, ...]) -> list[tuple[int, int]]:
    """What is cut from the whole result to leave ``size``: half on each side, an odd one as auto_pad says."""
    if len(size) != len(full):
        raise ModelError(f"output_shape {list(size)} does not name {len(full)} spatial sizes")
    upper = call.attributes.string("auto_pad", "NOTSET") == "SAME_UPPER"
    cuts = []
    for f, n, more in zip(full, size, extra, strict=True):
        total = f + more - n
        before = total // 2 if upper else total - total // 2
        cuts.append((before, total - before))
    return cuts
