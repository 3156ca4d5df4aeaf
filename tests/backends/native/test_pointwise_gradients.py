"""Both gradients of a pointwise convolution in one kernel, against NumPy in float64."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest

import irconv
import irconv.nn.functional as F
from irconv import nn, optim, random
from irconv.ops.contract import im2col, matmul
from irconv.ops.conv import conv_transpose
from irconv.ops.elementwise import add, clip, greater, multiply, subtract, where
from irconv.ops.reduce import reduce_sum
from irconv.ops.shape import reshape, transpose
from irconv.passes import pointwise_gradients
from tests.backends.native import reducing
from tests.backends.native.pooling import strides_of
from tests.backends.native.reducing import CHANNELS_LAST, Case, channels_last
from tests.backends.native.sanitized import build_sanitized, run_program, save_arrays
from tests.backends.native.test_sanitizers import _sanitizers  # noqa: F401  a fixture that skips where there are none

KIND = "pointwise_gradients"


@dataclass(frozen=True)
class Layer:
    """A convolution of images [batch, depth, *size] to ``rows`` channels, and what its kernel has.

    makes_d, makes_x: d is made of two images, as batch norm's backward makes it; x is a normalised image, cut off at 0 and 6.
    dx:  the gradient of x is wanted, with what another branch adds;  ``sums``: with its sums, masked by another image.
    """

    batch: int
    depth: int
    size: tuple[int, ...]
    rows: int
    makes_d: bool = True
    makes_x: bool = True
    dx: bool = True
    sums: bool = True
    dtype: str = "f4"


LAYERS = {
    "all of it": Layer(3, 24, (9, 7), 96),
    "ragged": Layer(2, 17, (9, 8), 35),
    "fewer outputs than inputs": Layer(2, 90, (7, 7), 20),
    "fewer, ragged": Layer(3, 75, (6, 5), 9),
    "several blocks": Layer(1, 20, (15, 13), 208),
    "one pixel short of a strip": Layer(1, 16, (8, 10), 24),
    "two pixels": Layer(1, 19, (1, 2), 33),
    "made d alone": Layer(2, 24, (9, 7), 40, makes_x=False),
    "made x alone": Layer(2, 24, (9, 7), 40, makes_d=False),
    "nothing made": Layer(2, 40, (9, 7), 24, makes_d=False, makes_x=False),
    "without sums": Layer(2, 24, (9, 7), 40, sums=False),
    "the weight's gradient alone": Layer(2, 24, (9, 7), 40, dx=False, sums=False),
    "the weight's gradient alone, made x": Layer(2, 50, (9, 7), 11, makes_d=False, dx=False, sums=False),
    "a line": Layer(3, 20, (77,), 40),
    "a volume": Layer(2, 18, (3, 5, 4), 40),
    "float64": Layer(2, 21, (9, 7), 37, dtype="f8"),
}


def operands(s: Layer) -> list[np.ndarray]:
    """Images g and y that d is made of, z that x is made of, numbers per channel of both, the weight, another branch's."""
    rng = np.random.default_rng(s.depth + s.rows)
    images = [channels_last(rng.standard_normal((s.batch, c, *s.size)).astype(s.dtype)) for c in (s.rows, s.rows, s.depth)]
    ones = [1] * len(s.size)
    numbers = [rng.standard_normal((1, c, *ones)).astype(s.dtype) for c in (*[s.rows] * 3, *[s.depth] * 3)]
    weight = rng.standard_normal((s.rows, s.depth, *ones)).astype(s.dtype)
    other = channels_last(rng.standard_normal((s.batch, s.depth, *s.size)).astype(s.dtype))
    return [*images, *numbers, weight, other]


def build(s: Layer):
    """The graph over :func:`operands`: dx and its sums, then dW."""
    rank = len(s.size)
    axes, ones = (0, *range(2, rank + 2)), (1,) * rank

    def gradients(g, y, z, mean, scale, shift, mean_x, scale_x, shift_x, w, other):
        d, x = g, z
        if s.makes_d:
            d = add(add(multiply(where(greater(y, 0.0), g, 0.0), scale), multiply(subtract(y, mean), shift)), mean)
        if s.makes_x:
            x = clip(add(multiply(subtract(z, mean_x), scale_x), shift_x), 0.0, 6.0)
        turned = transpose(d, (1, 0, *range(2, rank + 2)))
        left = reshape(turned, (1, s.rows, s.batch * math.prod(s.size)))
        columns = im2col(x, ones, ones, ((0, 0),) * rank, ones, 1)
        dw = reshape(matmul(left, columns), (s.rows, s.depth, *ones))
        if not s.dx:
            return [dw]
        dx = add(conv_transpose(d, w), other)
        if not s.sums:
            return [dx, dw]
        masked = where(greater(z, 0.0), dx, 0.0)
        return [dx, reduce_sum(masked, axes), reduce_sum(multiply(masked, subtract(z, mean_x)), axes), dw]

    return gradients


def wanted(s: Layer, arrays: list[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Each result in float64, and the sum of what is added up for it without signs."""
    g, y, z, mean, scale, shift, mean_x, scale_x, shift_x, w, other = (a.astype("f8") for a in arrays)
    d = np.where(y > 0, g, 0) * scale + (y - mean) * shift + mean if s.makes_d else g
    x = np.clip((z - mean_x) * scale_x + shift_x, 0, 6) if s.makes_x else z
    w = w.reshape(s.rows, s.depth)
    axes = (0, *range(2, g.ndim))

    def gradients(d, x, w, other):
        dx = np.einsum("nr...,rc->nc...", d, w) + other
        flat = [a.reshape(*a.shape[:2], math.prod(s.size)) for a in (d, x)]
        dw = np.einsum("nrp,ncp->rc", *flat)
        return dx, dw.reshape(s.rows, s.depth, *[1] * len(s.size))

    (dx, dw), (dx_size, dw_size) = gradients(d, x, w, other), gradients(*map(np.abs, (d, x, w, other)))
    found = [(dx, dx_size)] if s.dx else []
    if s.sums:
        masked, size = np.where(z > 0, dx, 0), np.where(z > 0, dx_size, 0)
        found += [(masked.sum(axes), size.sum(axes)), ((masked * (z - mean_x)).sum(axes), (size * np.abs(z - mean_x)).sum(axes))]
    return [*found, (dw, dw_size)]




def made(s: Layer, machine: str = "avx512") -> Case:
    return Case(build(s), operands(s), KIND, CHANNELS_LAST, machine)


def check(s: Layer, machine: str = "avx512") -> None:
    case = made(s, machine)
    eps = np.finfo(s.dtype).eps
    for actual, (exact, size) in zip(case.run(), wanted(s, case.arrays), strict=True):
        assert actual.shape == exact.shape
        assert np.all(np.abs(actual - exact) <= 16 * eps * (size + 1))


@pytest.mark.parametrize("name", LAYERS)
def test_gradients(name) -> None:
    check(LAYERS[name])


@pytest.mark.parametrize("machine", ["avx2", "sse2", "generic"])
@pytest.mark.parametrize("name", ["ragged", "fewer, ragged", "two pixels", "float64", "the weight's gradient alone, made x"])
def test_machines(name, machine) -> None:
    check(LAYERS[name], machine)


@pytest.mark.parametrize("name", LAYERS)
def test_tasks_in_any_order_and_number_give_the_same_bits(name) -> None:
    case = made(replace(LAYERS[name], batch=5))
    first, *others = [case.run(how) for how in ("threads", "backwards", "one")]
    for other in others:
        for a, b in zip(first, other, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", LAYERS)
def test_source_does_not_depend_on_the_batch(name) -> None:
    assert len({made(replace(LAYERS[name], batch=batch)).made.source for batch in (1, 2, 9)}) == 1


@pytest.mark.parametrize("batch", [0, 40])
@pytest.mark.parametrize("name", ["all of it", "fewer, ragged", "the weight's gradient alone"])
def test_batches_of_none_and_of_many(name, batch, monkeypatch) -> None:
    # NumPy gives an empty array no strides that could be told apart
    monkeypatch.setattr(reducing, "element_strides", lambda a: strides_of(a.shape, CHANNELS_LAST))
    check(replace(LAYERS[name], batch=batch))


def test_many_strips_are_shared_out_among_tasks() -> None:
    case = made(replace(LAYERS["all of it"], batch=200))
    (main,) = [phase for phase in case.made.phases if phase.function == KIND]
    assert main.tasks > 4
    strips = case.made.sizes[1]
    assert strips > main.tasks


def test_what_has_no_code() -> None:
    """Images with their pixels side by side, and values that differ from image to image."""
    s = LAYERS["all of it"]
    with pytest.raises(AssertionError, match="no code"):
        Case(build(s), [np.ascontiguousarray(a) for a in operands(s)], KIND, CHANNELS_LAST)
    arrays = operands(s)
    arrays[4] = np.ones((s.batch, s.rows, 1, 1), s.dtype)
    with pytest.raises(AssertionError, match="no code"):
        Case(build(s), arrays, KIND, CHANNELS_LAST)


def odd() -> nn.Module:
    """Pointwise layers, normalised, whose numbers of channels fill no vectors; images of 19 x 17 end within a strip."""
    layers = [nn.Conv2d(3, 17, 3, padding=1, bias=False), nn.BatchNorm2d(17), nn.ReLU6()]
    layers += [nn.Conv2d(17, 67, 1, bias=False), nn.BatchNorm2d(67), nn.ReLU()]
    layers += [nn.Conv2d(67, 9, 1, bias=False), nn.BatchNorm2d(9), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(9 * 19 * 17, 5))


@pytest.mark.parametrize("machine", ["avx512", "avx2", "generic"])
def test_training_stays_inside_its_arrays(machine, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(pointwise_gradients, "IMAGE_BYTES", 1)
    random.manual_seed(1)
    model = odd()
    x = np.random.default_rng(0).standard_normal((3, 3, 19, 17)).astype(np.float32)
    target = np.array([0, 4, 3])
    step = irconv.compile_step(model, F.cross_entropy, optim.SGD(model.parameters(), lr=0.01), x, target, backend="numpy")
    _, program = build_sanitized(step, machine, tmp_path)
    sources = [file.read_text() for file in tmp_path.rglob("*.c")]
    assert sum("_pointwise_gradients(" in source and "_input_gradient(" in source for source in sources) >= 2
    done = run_program(program, "-n", "2", *save_arrays((x, target), tmp_path))
    assert done.returncode == 0, (done.stdout, done.stderr[:6000])
    losses = [float(line.split()[-1]) for line in done.stdout.splitlines()[:2]]
    np.testing.assert_allclose(losses, [float(step(x, target)) for _ in range(2)], rtol=1e-4)
