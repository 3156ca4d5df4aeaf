"""Transposed convolutions that give sums of their result as well, against NumPy in float64."""

from __future__ import annotations

import numpy as np
import pytest

from irconv.ops.conv import conv_transpose
from irconv.ops.elementwise import add, greater, less, logical_and, multiply, subtract, where
from irconv.ops.reduce import reduce_sum
from tests.backends.native.reducing import CHANNELS_LAST, Case, channels_last

KIND = "conv_transpose_sums"


def folded(g, y, mean, scale, shift):
    """The sums of batch norm's backward behind a ReLU6, as the backward pass builds them."""
    axes = (0, *range(2, len(g.shape)))
    n = add(multiply(subtract(y, mean), scale), shift)
    d = where(logical_and(greater(n, 0.0), less(n, 6.0)), g, 0.0)
    return [reduce_sum(d, axes), reduce_sum(multiply(d, subtract(y, mean)), axes)]


def gradient(**attributes):
    """A builder of a transposed convolution with those sums."""

    def build(x, w, *rest):
        g = conv_transpose(x, w, **attributes)
        return [g, *folded(g, *rest)]

    return build


def added(**attributes):
    """The same with the gradient of another branch added ahead, and plain sums."""

    def build(x, w, other, y):
        g = add(conv_transpose(x, w, **attributes), other)
        axes = (0, *range(2, len(g.shape)))
        return [g, reduce_sum(g, axes), reduce_sum(multiply(g, y), axes)]

    return build


LAYERS = {
    # name: images, weights, shape of the result, attributes
    "1x1": ((3, 40, 9, 7), (40, 24, 1, 1), (3, 24, 9, 7), {}),
    "1x1, ragged": ((3, 40, 9, 7), (40, 17, 1, 1), (3, 17, 9, 7), {}),
    "1x1 to many": ((2, 64, 7, 7), (64, 400, 1, 1), (2, 400, 7, 7), {}),
    "3x3": ((2, 24, 9, 8), (24, 33, 3, 3), (2, 33, 9, 8), {"padding": 1}),
    "weights beyond a cache": ((2, 512, 6, 6), (512, 512, 1, 1), (2, 512, 6, 6), {}),
    "winograd": ((3, 64, 14, 13), (64, 48, 3, 3), (3, 48, 14, 13), {"padding": 1}),
    "winograd by phases": ((8, 256, 14, 14), (256, 256, 3, 3), (8, 256, 14, 14), {"padding": 1}),
    "winograd by phases, few tiles": ((1, 256, 4, 4), (256, 256, 3, 3), (1, 256, 4, 4), {"padding": 1}),
    "groups": ((2, 24, 8, 8), (24, 12, 3, 3), (2, 36, 8, 8), {"padding": 1, "groups": 3}),
    "depthwise": ((2, 40, 12, 11), (40, 1, 3, 3), (2, 40, 12, 11), {"padding": 1, "groups": 40}),
    "depthwise, strided": (
        (2, 96, 15, 14),
        (96, 1, 3, 3),
        (2, 96, 30, 28),
        {"padding": 1, "stride": 2, "output_padding": 1, "groups": 96},
    ),
    "a line": ((3, 20, 50), (20, 17, 3), (3, 17, 50), {"padding": 1}),
    "a volume": ((2, 5, 4, 6, 5), (5, 19, 3, 3, 3), (2, 19, 4, 6, 5), {"padding": 1}),
}


def numbers(shape, seed=0, dtype="f4"):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def operands(name, dtype="f4", batch=None):
    """Image, weight, the value that the mask follows from, and numbers per channel."""
    images, weights, result, attributes = LAYERS[name]
    images, result = ((batch or images[0], *images[1:])), ((batch or result[0], *result[1:]))
    x, y = channels_last(numbers(images, 1, dtype)), channels_last(numbers(result, 2, dtype))
    small = [numbers((1, result[1], *[1] * (len(result) - 2)), seed, dtype) for seed in (3, 4, 5)]
    return [x, numbers(weights, 6, dtype), y, *small], attributes


def made(name, dtype="f4", machine="avx512", batch=None):
    arrays, attributes = operands(name, dtype, batch)
    return Case(gradient(**attributes), arrays, KIND, CHANNELS_LAST, machine)


def check(case, eps=6e-8):
    """The sums are those of the gradient that is stored, within the roundings of numbers of this size."""
    g, *found = case.run()
    exact = g.astype("f8")
    y, mean = (a.astype("f8") for a in case.arrays[2:4])
    normal = ((case.arrays[2] - case.arrays[3]) * case.arrays[4] + case.arrays[5]).astype("f8")
    near = np.minimum(np.abs(normal), np.abs(normal - 6)) < 1e-6  # the mask there is a matter of rounding
    d = np.where((normal > 0) & (normal < 6), exact, 0)
    axes = (0, *range(2, g.ndim))
    for value, terms in zip(found, (d, d * (y - mean)), strict=True):
        doubtful = np.where(near, np.abs(exact * np.maximum(1, np.abs(y - mean))), 0).sum(axes)
        assert np.all(np.abs(value - terms.sum(axes)) <= 32 * eps * np.abs(terms).sum(axes) + doubtful)
    return g


def plainly(name, machine="avx512"):
    """The gradient by a kernel of its own."""
    arrays, attributes = operands(name)
    return Case(lambda x, w: [conv_transpose(x, w, **attributes)], arrays[:2], None, CHANNELS_LAST, machine).run()[0]


@pytest.mark.parametrize("name", LAYERS)
def test_every_way_to_convolve(name) -> None:
    g = check(made(name))
    np.testing.assert_array_equal(g, plainly(name))


@pytest.mark.parametrize("machine", ["avx2", "sse2", "generic"])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("name", ["1x1, ragged", "winograd", "depthwise, strided"])
def test_machines_and_types(name, dtype, machine) -> None:
    check(made(name, dtype, machine), 6e-8 if dtype == "f4" else 1.2e-16)


@pytest.mark.parametrize("name", ["1x1, ragged", "winograd", "depthwise"])
def test_with_work_on_the_result_ahead(name) -> None:
    (x, w, other, *_), attributes = operands(name)
    y = channels_last(numbers(other.shape, 9))
    g, total, product = Case(added(**attributes), [x, w, other, y], KIND, CHANNELS_LAST).run()
    np.testing.assert_array_equal(g, plainly(name) + other)
    exact = g.astype("f8")
    np.testing.assert_allclose(total, exact.sum((0, 2, 3)), atol=4e-6 * np.abs(exact).sum((0, 2, 3)).max())
    np.testing.assert_allclose(product, (exact * y).sum((0, 2, 3)), atol=4e-6 * np.abs(exact * y).sum((0, 2, 3)).max())


@pytest.mark.parametrize("name", LAYERS)
def test_tasks_in_any_order_and_number_give_the_same_bits(name) -> None:
    case = made(name)
    first, *others = [case.run(how) for how in ("threads", "backwards", "one")]
    for other in others:
        for a, b in zip(first, other, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", LAYERS)
def test_source_does_not_depend_on_the_batch(name) -> None:
    assert len({made(name, batch=batch).made.source for batch in (1, 2, 9)}) == 1


def test_what_has_no_code() -> None:
    """Rows that tasks of the direct algorithm do not compute together, and values stored in another order."""
    x, w, y, *small = operands("3x3")[0]
    with pytest.raises(AssertionError, match="no code"):
        wide = channels_last(numbers((2, 33, 19, 17)))
        Case(gradient(stride=2), [x, w, wide, *small], KIND, CHANNELS_LAST)
    with pytest.raises(AssertionError, match="no code"):
        Case(gradient(padding=1), [x, w, np.ascontiguousarray(y), *small], KIND, CHANNELS_LAST)
