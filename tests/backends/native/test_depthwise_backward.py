"""Both gradients of depthwise convolutions in one kernel, against NumPy in float64 and whole training steps."""

from __future__ import annotations

import math

import numpy as np
import pytest

import irconv
import irconv.nn.functional as F
from irconv import nn, optim, random
from irconv.ops.contract import im2col, matmul
from irconv.ops.conv import conv_transpose
from irconv.ops.elementwise import add, clip, greater, less, logical_and, multiply, subtract, where
from irconv.ops.reduce import reduce_sum
from irconv.ops.shape import reshape, transpose
from irconv.passes import depthwise_backward
from tests.backends.handwritten import compiler_or_skip
from tests.backends.native.reducing import CHANNELS_LAST, Case, channels_last

KIND = depthwise_backward.KIND
IMAGES = (0, 2, 3)


@pytest.fixture(autouse=True)
def _with_compiler():
    compiler_or_skip()


LAYERS = {
    # name: batch, channels, size of x, kernel, stride, padding
    "3x3": (2, 32, (9, 8), (3, 3), (1, 1), (1, 1)),
    "3x3, ragged": (3, 37, (7, 17), (3, 3), (1, 1), (1, 1)),
    "3x3, no padding": (2, 16, (5, 31), (3, 3), (1, 1), (0, 0)),
    "3x3, strided": (2, 48, (12, 15), (3, 3), (2, 2), (1, 1)),
    "3x3, strided, even": (1, 17, (14, 30), (3, 3), (2, 2), (1, 1)),
    "5x5": (2, 20, (9, 11), (5, 5), (1, 1), (2, 2)),
    "7x7, strided": (1, 19, (15, 13), (7, 7), (2, 2), (3, 3)),
    "a window of two shapes": (2, 16, (8, 29), (3, 5), (2, 1), (1, 2)),
    "a window larger than the image": (2, 16, (3, 2), (7, 7), (1, 1), (3, 3)),
    "single taps far apart": (2, 16, (7, 6), (1, 1), (2, 2), (0, 0)),
    "several bands": (2, 112, (80, 33), (3, 3), (1, 1), (1, 1)),
    "several bands, strided": (1, 160, (120, 61), (3, 3), (2, 2), (1, 1)),
}


def counts_of(name):
    _, _, size, kernel, stride, padding = LAYERS[name]
    return tuple((n + 2 * p - k) // s + 1 for n, k, s, p in zip(size, kernel, stride, padding, strict=True))


def layer(d, x, w, stride, padding):
    """Both gradients, as the backward pass builds them."""
    g = conv_transpose(d, w, stride, padding, groups=x.shape[1], output_size=x.shape[2:])
    channels = d.shape[1]
    rows = reshape(transpose(d, (1, 0, 2, 3)), (channels, 1, d.shape[0] * math.prod(d.shape[2:])))
    return g, reshape(matmul(rows, im2col(x, w.shape[2:], stride, padding, 1, channels)), w.shape)


def normal(y, mean, scale, shift):
    return add(multiply(subtract(y, mean), scale), shift)


def masked(g, n):
    return where(logical_and(greater(n, 0.0), less(n, 6.0)), g, 0.0)


def plain(name):
    def build(d, x, w):
        return [*layer(d, x, w, *LAYERS[name][4:])]

    return build


def added(name):
    """With the gradient of another branch added."""

    def build(d, x, w, other):
        g, dw = layer(d, x, w, *LAYERS[name][4:])
        return [add(g, other), dw]

    return build


def between_norms(name):
    """With batch norm and ReLU6 on both sides: d from a gradient and the convolution's result, x from what is before it."""

    def build(g2, y2, x0, w, scale2, shift2, mean, scale, shift):
        d = add(multiply(masked(g2, normal(y2, shift2, scale2, shift2)), scale2), multiply(subtract(y2, scale2), shift2))
        x = clip(normal(x0, mean, scale, shift), 0.0, 6.0)
        g, dw = layer(d, x, w, *LAYERS[name][4:])
        m = masked(g, normal(x0, mean, scale, shift))
        return [g, dw, reduce_sum(m, IMAGES), reduce_sum(multiply(m, subtract(x0, mean)), IMAGES)]

    return build


BUILDERS = {"plain": plain, "added": added, "between norms": between_norms}


def quarters(shape, seed, dtype):
    """Numbers a quarter away from multiples of a half: what is made of them is never at the corner of an activation."""
    return (np.random.default_rng(seed).integers(-6, 7, shape) / 2 + 0.25).astype(dtype)


def halves(shape, seed, dtype):
    return (np.random.default_rng(seed).integers(-3, 4, shape) / 2).astype(dtype)


def operands(name, how, dtype="f4", batch=None):
    given, channels, size, kernel, _, _ = LAYERS[name]
    image, result = (batch or given, channels, *size), (batch or given, channels, *counts_of(name))
    generator = np.random.default_rng(0)
    w = generator.standard_normal((channels, 1, *kernel)).astype(dtype)
    d = channels_last(generator.standard_normal(result).astype(dtype))
    if how != "between norms":
        x, other = (channels_last(generator.standard_normal(image).astype(dtype)) for _ in range(2))
        return [d, x, w, other][: 4 if how == "added" else 3]
    small = (1, channels, 1, 1)
    ones = [np.where(np.arange(channels) % 2, 1, -1).reshape(small).astype(dtype), halves(small, 3, dtype)]
    norms = [halves(small, 4, dtype), np.ones(small, dtype), halves(small, 5, dtype)]
    return [d, channels_last(quarters(result, 1, dtype)), channels_last(quarters(image, 2, dtype)), w, *ones, *norms]


def made(name, how, dtype="f4", machine="avx512", batch=None):
    return Case(BUILDERS[how](name), operands(name, how, dtype, batch), KIND, CHANNELS_LAST, machine)


def by_hand(d, x, w, stride, padding):
    """Both gradients tap by tap: d[p] and x[q] meet where q = p * stride + tap - padding."""
    wide = [(0, 0), (0, 0), *((p, s + k) for p, s, k in zip(padding, stride, w.shape[2:], strict=True))]
    padded = np.pad(x, wide)
    g, dw = np.zeros_like(padded), np.zeros_like(w)
    for i, j in np.ndindex(*w.shape[2:]):
        rows = slice(i, i + d.shape[2] * stride[0], stride[0])
        columns = slice(j, j + d.shape[3] * stride[1], stride[1])
        g[:, :, rows, columns] += d * w[:, 0, i, j][:, None, None]
        dw[:, 0, i, j] = (d * padded[:, :, rows, columns]).sum(IMAGES)
    inside = tuple(slice(p, p + n) for p, n in zip(padding, x.shape[2:], strict=True))
    return g[:, :, inside[0], inside[1]], dw


def expected(name, how, arrays):
    """Results in float64, and the sums of the absolute values of all that is added for each."""
    stride, padding = LAYERS[name][4:]
    wide = [a.astype("f8") for a in arrays]
    if how != "between norms":
        d, x, w, *other = wide
        results, sizes = by_hand(d, x, w, stride, padding), by_hand(abs(d), abs(x), abs(w), stride, padding)
        extra, size = (other[0], abs(other[0])) if other else (0, 0)
        return [results[0] + extra, results[1]], [sizes[0] + size, sizes[1]]
    g2, y2, x0, w, scale2, shift2, mean, scale, shift = wide
    n2, n = (y2 - shift2) * scale2 + shift2, (x0 - mean) * scale + shift
    d = np.where((n2 > 0) & (n2 < 6), g2, 0) * scale2 + (y2 - scale2) * shift2
    x = np.clip(n, 0, 6)
    (g, dw), (g_size, dw_size) = by_hand(d, x, w, stride, padding), by_hand(abs(d), x, abs(w), stride, padding)
    inside, centred = (n > 0) & (n < 6), x0 - mean
    sums = [(a * inside * c).sum(IMAGES) for a, c in ((g, 1), (g, centred))]
    sizes = [(g_size * inside * abs(c)).sum(IMAGES) for c in (np.ones(()), centred)]
    return [g, dw, *sums], [g_size, dw_size, *sizes]


def check(name, how, dtype="f4", machine="avx512"):
    case = made(name, how, dtype, machine)
    eps = np.finfo(dtype).eps
    for value, exact, size in zip(case.run(), *expected(name, how, case.arrays), strict=True):
        assert value.dtype == dtype
        assert np.all(np.abs(value - exact.reshape(value.shape)) <= 16 * eps * size.reshape(value.shape))


@pytest.mark.parametrize("how", BUILDERS)
@pytest.mark.parametrize("name", LAYERS)
def test_every_layer(name, how) -> None:
    check(name, how)


@pytest.mark.parametrize("machine", ["avx512", "avx2", "sse2", "generic"])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("name", ["3x3, ragged", "3x3, strided", "7x7, strided"])
def test_machines_and_types(name, dtype, machine) -> None:
    check(name, "between norms", dtype, machine)


@pytest.mark.parametrize("how", BUILDERS)
@pytest.mark.parametrize("name", ["3x3, ragged", "several bands", "several bands, strided"])
def test_tasks_in_any_order_and_number_give_the_same_bits(name, how) -> None:
    case = made(name, how)
    first, *others = [case.run(order) for order in ("threads", "backwards", "one")]
    for other in others:
        for a, b in zip(first, other, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("how", BUILDERS)
@pytest.mark.parametrize("name", ["3x3", "several bands, strided"])
def test_source_does_not_depend_on_the_batch(name, how) -> None:
    assert len({made(name, how, batch=batch).made.source for batch in (1, 2, 9)}) == 1


@pytest.mark.parametrize("name", ["3x3, ragged", "3x3, strided"])
def test_sums_of_the_result_itself_and_of_what_is_read(name) -> None:
    def build(d, x, w, other, y):
        g, dw = layer(d, x, w, *LAYERS[name][4:])
        g = add(g, other)
        return [g, dw, reduce_sum(g, IMAGES), reduce_sum(y, IMAGES)]

    arrays = operands(name, "added")
    y = channels_last(np.random.default_rng(9).standard_normal(arrays[1].shape).astype("f4"))
    g, _, total, plain_total = Case(build, [*arrays, y], KIND, CHANNELS_LAST).run()
    exact = expected(name, "added", arrays)[0][0]
    for value, terms in ((total, exact), (plain_total, y.astype("f8"))):
        np.testing.assert_allclose(value, terms.sum(IMAGES), rtol=0, atol=2e-6 * np.abs(terms).sum(IMAGES).max())
    np.testing.assert_allclose(g, exact, rtol=0, atol=2e-5)


def test_large_images_are_cut_into_bands() -> None:
    for name in ("several bands", "several bands, strided"):
        assert made(name, "plain").made.phases[1].tasks > LAYERS[name][0]


def test_what_has_no_code() -> None:
    d, x, w = operands("3x3", "plain")
    with pytest.raises(AssertionError, match="no code"):
        Case(plain("3x3"), [np.ascontiguousarray(d), x, w], KIND, CHANNELS_LAST)
    with pytest.raises(AssertionError, match="no code"):
        Case(plain("3x3"), [a.astype("f2") for a in (d, x, w)], KIND, CHANNELS_LAST)


class Residual(nn.Module):
    """An inverted residual between two convolutions, of channels that fill no vectors."""

    def __init__(self, channels: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 17, 3, stride=2, padding=1, bias=False)
        self.wide = nn.Sequential(nn.Conv2d(17, channels, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU6())
        depthwise = nn.Conv2d(channels, channels, kernel, stride, kernel // 2, groups=channels, bias=False)
        self.deep = nn.Sequential(depthwise, nn.BatchNorm2d(channels), nn.ReLU6())
        self.narrow = nn.Sequential(nn.Conv2d(channels, 17, 1, bias=False), nn.BatchNorm2d(17))
        self.head = nn.Linear(17, 5)

    def forward(self, x: irconv.Tensor) -> irconv.Tensor:
        y = self.first(x)
        z = self.narrow(self.deep(self.wide(y)))
        return self.head((y + z if y.shape == z.shape else z).mean((2, 3)))


def trained(backend, make, batches=(3,), steps=10, size=(21, 27)):
    """Losses, states and kinds of kernels of some steps in float64, each batch in turn."""
    random.manual_seed(1)
    model = make().to("float64")
    generator = np.random.default_rng(0)
    data = [(generator.standard_normal((n, 3, *size)), generator.integers(0, 5, n)) for n in batches]
    step = irconv.compile_step(model, F.cross_entropy, optim.SGD(model.parameters(), 0.05, momentum=0.9), backend=backend)
    losses = [float(step(*data[i % len(data)])) for i in range(steps)]
    return losses, model.state_dict(), [kernel.kind for kernel in step.compiled.kernels]


def compare(make, **how) -> None:
    """Ten steps like those of the NumPy backend, with the kernel under test."""
    losses, states, kinds = trained("native", make, **how)
    reference, expected_states, _ = trained("numpy", make, **how)
    assert KIND in kinds
    assert losses[0] != losses[-1]
    np.testing.assert_allclose(losses, reference, rtol=1e-9)
    for name, array in states.items():
        np.testing.assert_allclose(array, expected_states[name], rtol=1e-8, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("kernel, stride", [(3, 1), (3, 2), (5, 1), (7, 2)])
@pytest.mark.parametrize("channels", [37, 48])
def test_training_is_that_of_the_numpy_backend(channels, kernel, stride) -> None:
    compare(lambda: Residual(channels, kernel, stride))


def test_batches_not_seen_before() -> None:
    compare(lambda: Residual(37, 3, 2), batches=(3, 1, 8))


def test_a_depthwise_convolution_without_norms() -> None:
    """d is read by the gradient of the bias too, so it is stored; the mask of the activation is all that is done on g."""

    def make() -> nn.Module:
        layers = [nn.Conv2d(3, 19, 3, stride=2), nn.ReLU(), nn.Conv2d(19, 19, 7, padding=3, groups=19), nn.Conv2d(19, 5, 1)]
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())

    compare(make)
