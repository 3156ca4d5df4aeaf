"""Samples of convolution and its transpose."""

from __future__ import annotations

from irconv.ops.conv import ConvAttributes, ConvTransposeAttributes
from tests.samples import Sample, numbers

# about, x [N, C, *S], w [O, C / groups, *K], stride, padding, dilation, groups
CONV = [
    ("1-D", (2, 1, 5), (2, 1, 3), (1,), ((0, 0),), (1,), 1),
    ("2-D", (2, 2, 4, 3), (3, 2, 2, 2), (1, 1), ((0, 0), (0, 0)), (1, 1), 1),
    ("1x1", (2, 3, 3, 2), (2, 3, 1, 1), (1, 1), ((0, 0), (0, 0)), (1, 1), 1),
    ("1x1, stride", (1, 3, 3, 4), (2, 3, 1, 1), (2, 3), ((0, 0), (0, 0)), (1, 1), 1),
    ("kernel as large as the input", (2, 2, 3, 2), (3, 2, 3, 2), (1, 1), ((0, 0), (0, 0)), (1, 1), 1),
    ("padding", (1, 2, 3, 3), (2, 2, 3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 1),
    ("padding larger than the input", (1, 1, 2, 1), (1, 1, 2, 3), (1, 1), ((3, 2), (4, 3)), (1, 1), 1),
    ("stride larger than the kernel", (1, 1, 7, 8), (2, 1, 2, 1), (3, 4), ((0, 0), (0, 0)), (1, 1), 1),
    ("stride and padding", (2, 2, 5, 4), (2, 2, 3, 3), (2, 2), ((1, 1), (1, 1)), (1, 1), 1),
    ("tail of two", (1, 2, 6), (2, 2, 2), (4,), ((0, 0),), (1,), 1),
    ("odd padding on one side", (1, 1, 4, 5), (1, 1, 2, 2), (1, 2), ((0, 1), (1, 0)), (1, 1), 1),
    ("negative padding", (1, 2, 6, 5), (1, 2, 2, 2), (1, 2), ((-2, -1), (1, -1)), (1, 1), 1),
    ("dilation", (1, 2, 5, 6), (2, 2, 2, 3), (1, 1), ((0, 0), (0, 0)), (3, 2), 1),
    ("dilation and stride", (1, 1, 9), (2, 1, 3), (2,), ((0, 0),), (2,), 1),
    ("dilation and padding", (1, 1, 4, 4), (1, 1, 3, 2), (1, 1), ((2, 2), (1, 1)), (2, 2), 1),
    ("groups", (2, 4, 3, 3), (6, 2, 2, 2), (1, 1), ((0, 0), (0, 0)), (1, 1), 2),
    ("groups and stride", (1, 4, 5), (2, 2, 2), (2,), ((0, 0),), (1,), 2),
    ("depthwise, multiplier 2, padding", (1, 3, 3, 3), (6, 1, 3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 3),
    ("groups and dilation", (1, 4, 5), (4, 2, 2), (1,), ((0, 0),), (3,), 2),
    ("everything", (2, 4, 6, 5), (4, 2, 2, 3), (2, 3), ((2, 1), (1, 3)), (2, 1), 2),
    ("3-D", (1, 2, 3, 2, 4), (2, 2, 2, 1, 2), (1, 1, 2), ((0, 0), (0, 1), (1, 0)), (1, 1, 2), 1),
    ("4-D", (1, 1, 2, 2, 3, 2), (2, 1, 1, 2, 2, 1), (1, 1, 1, 2), ((0, 0),) * 4, (1, 1, 1, 1), 1),
    ("size-1 axes", (1, 2, 1, 4), (2, 2, 1, 2), (7, 1), ((0, 0), (0, 0)), (5, 1), 1),
    ("batch 0", (0, 2, 4), (3, 2, 2), (1,), ((1, 0),), (1,), 1),
]

# about, x [N, C, *S], w [C, O / groups, *K], stride, padding before, dilation, groups, output size
CONV_TRANSPOSE = [
    ("1-D", (2, 1, 3), (1, 2, 3), (1,), (0,), (1,), 1, (5,)),
    ("2-D", (2, 2, 2, 3), (2, 3, 2, 2), (1, 1), (0, 0), (1, 1), 1, (3, 4)),
    ("1x1", (2, 3, 2, 2), (3, 2, 1, 1), (1, 1), (0, 0), (1, 1), 1, (2, 2)),
    ("stride", (1, 2, 2, 3), (2, 1, 2, 2), (2, 2), (0, 0), (1, 1), 1, (4, 6)),
    ("stride larger than the kernel", (1, 1, 3, 2), (1, 2, 2, 1), (3, 4), (0, 0), (1, 1), 1, (8, 5)),
    ("padding", (1, 2, 3, 3), (2, 2, 3, 3), (1, 1), (1, 1), (1, 1), 1, (3, 3)),
    ("padding and stride, output padding", (1, 2, 3, 2), (2, 2, 3, 3), (2, 3), (1, 1), (1, 1), 1, (6, 5)),
    ("cells beyond the padding hold values", (1, 1, 3), (1, 1, 4), (3,), (2,), (1,), 1, (8,)),
    ("cells beyond the last tap are zero", (1, 1, 2), (1, 1, 2), (3,), (0,), (1,), 1, (8,)),
    ("negative padding: zeros before", (1, 2, 2), (2, 1, 2), (2,), (-2,), (1,), 1, (7,)),
    ("dilation", (1, 2, 2, 2), (2, 2, 2, 3), (1, 1), (0, 0), (3, 2), 1, (5, 6)),
    ("dilation and stride", (1, 1, 3), (1, 2, 3), (2,), (0,), (2,), 1, (9,)),
    ("dilation and padding", (1, 1, 3, 4), (1, 1, 3, 2), (1, 1), (2, 1), (2, 2), 1, (3, 4)),
    ("groups", (2, 4, 2, 2), (4, 3, 2, 2), (1, 1), (0, 0), (1, 1), 2, (3, 3)),
    ("groups and stride", (1, 4, 3), (4, 1, 2), (2,), (0,), (1,), 2, (6,)),
    ("depthwise, multiplier 2, padding", (1, 3, 3), (3, 2, 3), (1,), (1,), (1,), 3, (3,)),
    ("groups and dilation", (1, 4, 2), (4, 2, 2), (1,), (0,), (3,), 2, (5,)),
    ("everything", (2, 4, 3, 2), (4, 3, 2, 3), (2, 3), (1, 2), (2, 1), 2, (6, 4)),
    ("3-D", (1, 2, 2, 1, 2), (2, 1, 2, 2, 2), (1, 1, 2), (0, 0, 1), (1, 2, 1), 1, (3, 3, 3)),
    ("4-D", (1, 1, 1, 2, 1, 2), (1, 2, 1, 1, 2, 2), (1, 1, 1, 2), (0, 0, 0, 0), (1, 1, 1, 1), 1, (1, 2, 2, 4)),
    ("size-1 axes", (1, 2, 1, 3), (2, 1, 1, 2), (7, 1), (0, 0), (5, 1), 1, (1, 4)),
    ("batch 0", (0, 2, 3), (2, 3, 2), (1,), (1,), (1,), 1, (2,)),
]


def _conv(about, x, w, *window, cast="f8", gradient=True):
    operands = (numbers(*x).astype(cast), numbers(*w, seed=1).astype(cast))
    return Sample("conv", operands, ConvAttributes(*window), about, gradient=gradient)


def _conv_transpose(about, x, w, *window, cast="f8", gradient=True):
    operands = (numbers(*x).astype(cast), numbers(*w, seed=1).astype(cast))
    return Sample("conv_transpose", operands, ConvTransposeAttributes(*window), about, gradient=gradient)


def _strided(sample: Sample) -> Sample:
    """The same op on a reversed input and a weight with another storage order."""
    x, w = sample.operands
    return Sample(sample.op, (x[..., ::-1], w.T.copy().T), sample.attributes, "strided operands")


SAMPLES = [_conv(*row) for row in CONV] + [_conv_transpose(*row) for row in CONV_TRANSPOSE]
SAMPLES += [_conv(f"everything, {cast}", *CONV[19][1:], cast=cast, gradient=False) for cast in ("f4", "f2", "i4")]
SAMPLES += [
    _conv_transpose(f"everything, {cast}", *CONV_TRANSPOSE[17][1:], cast=cast, gradient=False)
    for cast in ("f4", "f2", "i4")
]
SAMPLES += [_strided(_conv(*CONV[8])), _strided(_conv_transpose(*CONV_TRANSPOSE[6]))]
