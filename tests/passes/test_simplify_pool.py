"""The rule of simplify for the way back through a max pool: the text it leaves, the same bits, and what it refuses."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import irconv
import irconv.nn.functional as F
from irconv.graph import Graph, Node
from irconv.ops.elementwise import clip, greater, greater_equal, less, less_equal, multiply, relu, where
from irconv.ops.pool import max_pool, min_pool
from irconv.ops.pool_taps import argmax_pool, argmin_pool, pool_attributes, pool_counts, window_scatter
from irconv.passes.simplify import Simplify
from tests.passes.building import build, golden, outputs, run, text

WINDOWS = [
    ((6, 8), {"kernel": 2}),
    ((7, 9), {"kernel": 2}),
    ((7, 9), {"kernel": 3, "stride": 2, "padding": 1}),
    ((7, 9), {"kernel": 3, "stride": 1, "padding": 1}),
    ((7, 9), {"kernel": 3, "stride": 2, "padding": 1, "ceil_mode": True}),
    ((9, 9), {"kernel": 2, "stride": 1, "dilation": 3, "padding": 2}),
    ((9, 11), {"kernel": 2, "stride": 2, "padding": ((-1, 0), (0, -2))}),
    ((5, 6), {"kernel": 3, "stride": 3, "padding": 1, "ceil_mode": True}),
    ((6, 6), {"kernel": 2, "stride": 2, "padding": 2}),
]


def scattered(size, window, d, taps):
    """The gradient of a pool whose windows' winners are known."""
    stride, padding, dilation, ceil = (window.get(*each) for each in _DEFAULTS)
    return window_scatter(d, taps, size, window["kernel"], stride, padding, dilation, ceil)


_DEFAULTS = (("stride", None), ("padding", 0), ("dilation", 1), ("ceil_mode", False))


def simplified(graph: Graph, leaves: dict[str, np.ndarray] | None = None) -> Graph:
    """The graph after the pass; :func:`run` compares every bit of both."""
    return run(Simplify(), graph, leaves)[0]


def nodes(graph: Graph) -> list[Node]:
    return [graph[i] for i in graph.order()]


def counts_of(size, window) -> tuple[int, ...]:
    full = {"stride": None, "padding": 0, "dilation": 1, "ceil_mode": False} | window
    return pool_counts(pool_attributes(size, **full), size)


def shape(*dims: int) -> str:
    return f"f32[{','.join(map(str, dims))}]"


def odd_values(*dims: int) -> np.ndarray:
    """Many ties, zeros of either sign, NaN and infinities."""
    generator = np.random.default_rng(7)
    return generator.choice(np.array([-2, -1, -0.0, 0.0, 1, 2, 6, 7, np.nan, -np.inf, np.inf], np.float32), dims)


def test_gradient_of_relu_before_a_pool():
    def function(x, d):
        r = relu(x)
        p, taps = max_pool(r, 2), argmax_pool(r, 2)
        return p, where(greater(r, 0.0), window_scatter(d, taps, (4, 6), 2), 0.0)

    expected = """
        %relu = relu(%x) : f32[1,2,4,6]
        %max_pool = max_pool(%relu) kernel=[2,2] stride=[2,2] padding=[[0,0],[0,0]] dilation=[1,1] ceil_mode=false : f32[1,2,2,3]
        %argmax_pool = argmax_pool(%relu) kernel=[2,2] stride=[2,2] padding=[[0,0],[0,0]] dilation=[1,1] ceil_mode=false : u8[1,2,2,3]
        %constant = constant() value=0.0 : f32[]
        %constant_1 = constant() value=0.0 : f32[]
        %where.greater = greater(%max_pool, %constant) : bool[1,2,2,3]
        %where.where = where(%where.greater, %d, %constant_1) : f32[1,2,2,3]
        %where = window_scatter(%where.where, %argmax_pool) kernel=[2,2] stride=[2,2] padding=[[0,0],[0,0]] dilation=[1,1] ceil_mode=false size=[4,6] : f32[1,2,4,6]
        return y0 = %max_pool, y1 = %where
    """
    graph = build(function, x="f32[1,2,4,6]", d="f32[1,2,2,3]")
    assert text(simplified(graph)) == golden(expected)


@pytest.mark.parametrize(("size", "window"), WINDOWS)
@pytest.mark.parametrize("largest", [True, False])
def test_no_bit_changes(size, window, largest):
    """Overlapping windows, padding and what crops it, ties, zeros of either sign, NaN in values and gradients."""
    counts = counts_of(size, window)
    comparisons = (greater, less_equal) if largest else (less, greater_equal)

    def function(x, d):
        pooled, taps = (max_pool, argmax_pool) if largest else (min_pool, argmin_pool)
        p, t = pooled(x, **window), taps(x, **window)
        kept = where(comparisons[0](x, 0.0), scattered(size, window, d, t), 0.0)
        left = where(comparisons[1](x, 1.0), 0.0, scattered(size, window, multiply(d, 3.0), t))
        return p, kept, left

    graph = build(function, x=shape(2, 3, *size), d=shape(2, 3, *counts))
    with np.errstate(invalid="ignore"):
        after = simplified(graph, {"x": odd_values(2, 3, *size), "d": odd_values(2, 3, *counts)})
    masks = [node for node in nodes(after) if node.op.name == "where"]
    assert [node.type.shape for node in masks] == [(2, 3, *counts)] * 2


def test_against_loops():
    """Each window's d arrives at its first largest element, where that is positive."""
    size, window = (7, 9), {"kernel": 3, "stride": 2, "padding": 1}
    counts = counts_of(size, window)
    x = np.random.default_rng(1).integers(-3, 4, (2, 2, *size)).astype(np.float32)
    d = np.random.default_rng(2).integers(-9, 9, (2, 2, *counts)).astype(np.float32)
    wanted = np.zeros_like(x)
    for n, c, i, j in itertools.product(range(2), range(2), *map(range, counts)):
        places = [(y, z) for y in range(2 * i - 1, 2 * i + 2) for z in range(2 * j - 1, 2 * j + 2)]
        inside = [(y, z) for y, z in places if 0 <= y < size[0] and 0 <= z < size[1]]
        y, z = max(inside, key=lambda place: max(x[n, c][place], 0.0))
        wanted[n, c, y, z] += d[n, c, i, j] if x[n, c, y, z] > 0 else 0.0

    def function(x, d):
        r = relu(x)
        p = max_pool(r, **window)
        return p, where(greater(r, 0.0), scattered(size, window, d, argmax_pool(r, **window)), 0.0)

    after = simplified(build(function, x=shape(*x.shape), d=shape(*d.shape)))
    assert [node.type.shape for node in nodes(after) if node.op.name == "where"] == [d.shape]
    np.testing.assert_array_equal(outputs(after, {"x": x, "d": d})["y1"], wanted)


@pytest.mark.parametrize("activation", [lambda v: v.relu(), F.relu6, lambda v: F.hardtanh(v, -0.5, 0.5)])
def test_derivatives_are_those_of_central_differences(activation):
    """In float64, with the pool's windows overlapping; the backward pass no longer reads what was pooled, but for its winners."""
    generator = np.random.default_rng(3)
    x, w = (3 * generator.standard_normal(shape) for shape in ((1, 2, 6, 7), (3, 2, 3, 3)))

    def loss(x, w):
        y = F.max_pool2d(activation(F.conv2d(x, w)), 2, 1)
        return (y * y * 0.5).sum()

    joint = irconv.differentiate(irconv.trace(loss, x, w))
    Simplify(differentiated=True).run(joint)
    wheres = [node.type.shape for node in nodes(joint) if node.op.name == "where" and node.provenance.origin is not None]
    assert wheres and set(wheres) == {(1, 3, 3, 4)}
    found = irconv.compile(joint, backend="native")(x, w)
    gradient = np.asarray(next(v for k, v in found.items() if k.endswith("w")))
    value = irconv.compile(irconv.trace(loss, x, w), backend="numpy")
    step = 1e-6
    for place in itertools.product(range(3), range(2), (0, 2), (1,)):
        moved = [w.copy(), w.copy()]
        moved[0][place] += step
        moved[1][place] -= step
        slope = (float(value(x, moved[0])) - float(value(x, moved[1]))) / (2 * step)
        np.testing.assert_allclose(gradient[place], slope, rtol=1e-5, atol=1e-6)


def refused(function, **types: str) -> bool:
    after = simplified(build(function, **types))
    return not any(each.op.name == "window_scatter" and after[each.operands[0]].op.name == "where" for each in nodes(after))


X, D = "f32[1,2,4,6]", "f32[1,2,2,3]"


def test_what_is_refused():
    def case(pool=lambda r: max_pool(r, 2), scatter=lambda d, t: window_scatter(d, t, (4, 6), 2), mask=None, zero=0.0, more=False):
        def function(x, d):
            r = relu(x)
            s = scatter(d, argmax_pool(r, 2))
            masked = where((mask or (lambda x, r: greater(r, 0.0)))(x, r), s, zero)
            return (pool(r), masked, s) if more else (pool(r), masked)

        return refused(function, x=X, d=D)

    assert not case()
    assert case(pool=lambda r: max_pool(r, 2, 1))  # other windows
    assert case(pool=lambda r: min_pool(r, 2))
    assert case(mask=lambda x, r: greater(x, 0.0))  # not what was pooled
    assert case(mask=lambda x, r: greater(r, x))
    assert case(zero=-0.0)
    assert case(zero=1.0)
    assert case(more=True)  # the scatter is wanted by itself

    def other_taps(x, d):
        r = relu(x)
        return max_pool(r, 2), where(greater(r, 0.0), window_scatter(d, argmin_pool(r, 2), (4, 6), 2), 0.0)

    assert refused(other_taps, x=X, d=D)


@pytest.mark.parametrize(
    ("low", "high", "comparison", "number", "is_same"),
    [
        (0.0, 6.0, greater_equal, 6.0, True),
        (0.0, 6.0, less_equal, 0.0, True),
        (None, 6.0, greater_equal, 6.0, True),
        (0.0, 6.0, greater_equal, 0.0, False),
        (0.0, 6.0, greater_equal, 5.0, False),
        (0.0, 6.0, greater, 6.0, False),
        (1.0, 1.0, less_equal, 1.0, False),
    ],
)
def test_what_a_clip_says_of_its_operand(low, high, comparison, number, is_same):
    def function(x, d):
        r = clip(x, low, high)
        return max_pool(r, 2), where(comparison(x, number), 0.0, window_scatter(d, argmax_pool(r, 2), (4, 6), 2))

    assert refused(function, x=X, d=D) is not is_same
    with np.errstate(invalid="ignore"):
        simplified(build(function, x=X, d=D), {"x": odd_values(1, 2, 4, 6), "d": odd_values(1, 2, 2, 3)})
