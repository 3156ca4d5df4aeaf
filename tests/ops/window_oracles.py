"""Convolution and pooling written as plain loops over the definition: slow, independent of the package, easy to check.

All take x [N, C, *S] and a window (kernel, stride, padding pairs, dilation); gradients are those of the sum of ``d`` times
the result.
"""

from __future__ import annotations

import itertools
import math

import numpy as np


def count_windows(n, k, s, before, after, d, ceil_mode=False):
    """Windows along one axis, by walking: each must end inside the padded input.

    In ceil mode one more hangs over the end if the one before it does not reach the end; and then the last one goes if it
    starts beyond the input, in the padding after it.
    """
    end, count, start = n + before + after, 0, 0
    while start + d * (k - 1) < end:
        count, start = count + 1, start + s
    if ceil_mode:
        if start - s + d * (k - 1) < end - 1:
            count, start = count + 1, start + s
        if start - s >= min(n + before, end):
            count -= 1
    return count


def counts_of(size, kernel, stride, padding, dilation, ceil_mode=False):
    return tuple(
        count_windows(n, k, s, b, a, d, ceil_mode)
        for n, k, s, (b, a), d in zip(size, kernel, stride, padding, dilation, strict=True)
    )


def window_elements(window, size, kernel, stride, padding, dilation):
    """For one window (its index along each axis): per tap in row-major order, the position it reads and what is there.

    'input' where the position is an element (and not cropped by negative padding), 'padding' inside the padded input,
    'beyond' outside it.
    """
    for tap in itertools.product(*map(range, kernel)):
        where, place = [], "input"
        for o, t, n, s, (before, after), d in zip(window, tap, size, stride, padding, dilation, strict=True):
            position = o * s + t * d - before
            where.append(position)
            if not -before <= position < n + after:
                place = "beyond"
            elif not 0 <= position < n and place == "input":
                place = "padding"
        yield tuple(where), place


def conv(x, w, stride, padding, dilation, groups):
    """out[n, o, p] = sum over c, t of x[n, g c' + c, p s + t d - before] w[o, c, t]."""
    size, kernel = x.shape[2:], w.shape[2:]
    counts = counts_of(size, kernel, stride, padding, dilation)
    out = np.zeros((x.shape[0], w.shape[0], *counts))
    for n, o, c, p, t, place in _terms(x.shape, w.shape, counts, stride, padding, dilation, groups):
        out[(n, o, *p)] += x[(n, c, *place)] * w[(o, c % w.shape[1], *t)]
    return out


def conv_gradients(d, x, w, stride, padding, dilation, groups):
    by_x, by_w = np.zeros(x.shape), np.zeros(w.shape)
    for n, o, c, p, t, place in _terms(x.shape, w.shape, d.shape[2:], stride, padding, dilation, groups):
        by_x[(n, c, *place)] += d[(n, o, *p)] * w[(o, c % w.shape[1], *t)]
        by_w[(o, c % w.shape[1], *t)] += d[(n, o, *p)] * x[(n, c, *place)]
    return by_x, by_w


def _terms(x_shape, w_shape, counts, stride, padding, dilation, groups):
    """Every product of a convolution: sample, output and input channel, window, tap, position read."""
    batch, channels, *size = x_shape
    out, per_group, *kernel = w_shape
    taps = list(itertools.product(*map(range, kernel)))
    for p in itertools.product(*map(range, counts)):
        elements = window_elements(p, size, kernel, stride, padding, dilation)
        for t, (where, place) in zip(taps, elements, strict=True):
            if place == "input":
                for n, o, i in itertools.product(range(batch), range(out), range(per_group)):
                    yield n, o, o // (out // groups) * (channels // groups) + i, p, t, where


def conv_transpose(x, w, stride, before, dilation, groups, output_size):
    """Every x[n, c, p] times every w[c, o, t], added at p s + t d - before."""
    out = np.zeros((x.shape[0], groups * w.shape[1], *output_size))
    for n, c, o, p, t, j in _transposed_terms(x.shape, w.shape, stride, before, dilation, groups, output_size):
        out[(n, o, *j)] += x[(n, c, *p)] * w[(c, o % w.shape[1], *t)]
    return out


def conv_transpose_gradients(d, x, w, stride, before, dilation, groups, output_size):
    by_x, by_w = np.zeros(x.shape), np.zeros(w.shape)
    for n, c, o, p, t, j in _transposed_terms(x.shape, w.shape, stride, before, dilation, groups, output_size):
        by_x[(n, c, *p)] += d[(n, o, *j)] * w[(c, o % w.shape[1], *t)]
        by_w[(c, o % w.shape[1], *t)] += d[(n, o, *j)] * x[(n, c, *p)]
    return by_x, by_w


def _transposed_terms(x_shape, w_shape, stride, before, dilation, groups, output_size):
    batch, channels, *size = x_shape
    per_group, *kernel = w_shape[1:]
    for p, t in itertools.product(itertools.product(*map(range, size)), itertools.product(*map(range, kernel))):
        j = tuple(q * s + u * d - b for q, u, s, d, b in zip(p, t, stride, dilation, before, strict=True))
        if all(0 <= at < n for at, n in zip(j, output_size, strict=True)):
            for n, c, i in itertools.product(range(batch), range(channels), range(per_group)):
                yield n, c, c // (channels // groups) * per_group + i, p, t, j


def im2col(x, kernel, stride, padding, dilation, groups):
    """One row per window of each sample, one column per channel of the group and tap."""
    batch, channels, *size = x.shape
    per_group = channels // groups
    counts = counts_of(size, kernel, stride, padding, dilation)
    columns = np.zeros((groups, batch * math.prod(counts), per_group * math.prod(kernel)))
    for group, n in itertools.product(range(groups), range(batch)):
        for row, window in enumerate(itertools.product(*map(range, counts))):
            elements = list(window_elements(window, size, kernel, stride, padding, dilation))
            for c, (t, (where, place)) in itertools.product(range(per_group), enumerate(elements)):
                if place == "input":
                    value = x[(n, group * per_group + c, *where)]
                    columns[group, n * math.prod(counts) + row, c * len(elements) + t] = value
    return columns


def col2im(columns, batch, channels, size, kernel, stride, padding, dilation, groups):
    """The adjoint of im2col by its definition: the transpose of the linear map, applied one input element at a time."""
    result = np.zeros((batch, channels, *size))
    for place in np.ndindex(*result.shape):
        unit = np.zeros(result.shape)
        unit[place] = 1
        result[place] = (im2col(unit, kernel, stride, padding, dilation, groups) * columns).sum()
    return result


def pools(x, kernel, stride, padding, dilation, ceil_mode):
    """For every sample, channel and window: its index, and its elements with their places."""
    size = x.shape[2:]
    counts = counts_of(size, kernel, stride, padding, dilation, ceil_mode)
    for n, c in itertools.product(range(x.shape[0]), range(x.shape[1])):
        for window in itertools.product(*map(range, counts)):
            yield (n, c, *window), list(window_elements(window, size, kernel, stride, padding, dilation))


def pooled_shape(x, kernel, stride, padding, dilation, ceil_mode):
    return (*x.shape[:2], *counts_of(x.shape[2:], kernel, stride, padding, dilation, ceil_mode))


def extremum_pool(x, better, lowest, *window):
    """Values and winning taps: the first element that none beats, the first NaN before all."""
    values = np.full(pooled_shape(x, *window), lowest, x.dtype)
    taps = np.zeros(values.shape, int)
    for at, elements in pools(x, *window):
        best = None
        for tap, (where, place) in enumerate(elements):
            if place != "input":
                continue
            value = x[(*at[:2], *where)]
            if best is None or (best == best and (value != value or better(value, best))):
                best, taps[at] = value, tap
        if best is not None:
            values[at] = best
    return values, taps


def scatter_taps(d, taps, like, *window):
    """Zeros like ``like`` with every d added at the tap of its window that ``taps`` names."""
    result = np.zeros(like.shape)
    for at, elements in pools(like, *window):
        if taps[at] < len(elements) and elements[taps[at]][1] == "input":
            result[(*at[:2], *elements[taps[at]][0])] += d[at]
    return result


def gather_taps(x, taps, *window):
    result = np.zeros(pooled_shape(x, *window), x.dtype)
    for at, elements in pools(x, *window):
        if taps[at] < len(elements) and elements[taps[at]][1] == "input":
            result[at] = x[(*at[:2], *elements[taps[at]][0])]
    return result


def _divisor(elements, count_include_pad, divisor_override):
    counted = ("input", "padding") if count_include_pad else ("input",)
    return divisor_override or max(1, sum(place in counted for _, place in elements))


def avg_pool(x, *window, count_include_pad=True, divisor_override=None):
    result = np.zeros(pooled_shape(x, *window))
    for at, elements in pools(x, *window):
        total = sum(x[(*at[:2], *where)] for where, place in elements if place == "input")
        result[at] = total / _divisor(elements, count_include_pad, divisor_override)
    return result


def avg_pool_gradient(d, like, *window, count_include_pad=True, divisor_override=None):
    result = np.zeros(like.shape)
    for at, elements in pools(like, *window):
        for where, place in elements:
            if place == "input":
                result[(*at[:2], *where)] += d[at] / _divisor(elements, count_include_pad, divisor_override)
    return result
