"""Hypothesis strategies for small windows: every parameter on every axis, with sizes that leave at least one window."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st

from tests.ops.window_oracles import counts_of


@dataclass(frozen=True)
class Window:
    """A batch, channels per group, groups, spatial sizes and the window that slides over them."""

    batch: int
    per_group: int
    groups: int
    size: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    ceil_mode: bool

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.batch, self.groups * self.per_group, *self.size)

    @property
    def pool(self) -> tuple:
        return self.kernel, self.stride, self.padding, self.dilation, self.ceil_mode

    @property
    def counts(self) -> tuple[int, ...]:
        return counts_of(self.size, *self.pool)


@st.composite
def windows(draw: st.DrawFn, ceil: bool = False) -> Window:
    """One to three spatial axes; three only with few elements."""
    rank = draw(st.integers(1, 3))
    largest = 6 if rank < 3 else 3

    def axes(values: st.SearchStrategy) -> tuple:
        return tuple(draw(st.tuples(*[values] * rank)))

    window = Window(
        batch=draw(st.integers(0, 2)),
        per_group=draw(st.integers(1, 2)),
        groups=draw(st.integers(1, 2)),
        size=axes(st.integers(1, largest)),
        kernel=axes(st.integers(1, 3 if rank < 3 else 2)),
        stride=axes(st.integers(1, 4)),
        padding=axes(st.tuples(st.integers(-2, 3), st.integers(-2, 3))),
        dilation=axes(st.integers(1, 3)),
        ceil_mode=ceil and draw(st.booleans()),
    )
    assume(all(n > 0 for n in window.counts))
    return window


def random(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Standard normal float64 numbers."""
    return np.random.default_rng(seed).standard_normal(shape)
