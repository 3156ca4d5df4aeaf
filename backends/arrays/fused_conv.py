"""Contractions with elementwise epilogues, and the weight gradient of convolution."""

from __future__ import annotations

import math
from typing import Any

from irconv.backends.arrays.base import KERNELS, Array, ArrayKernel, FusedRequest, Scratch, fused
from irconv.backends.arrays.blocks import cut, program
from irconv.backends.arrays.chain import chain_of
from irconv.backends.arrays.taps import window_taps
from irconv.ops.window import window_counts


@fused("conv_epilogue", "conv_transpose_epilogue", "matmul_epilogue")
def _epilogue(request: FusedRequest) -> ArrayKernel:
    xp, graph, kernel = request.xp, request.graph, request.kernel
    first = graph[kernel.nodes[0]]
    base = KERNELS[first.op.name](request.alone(first))
    chain = chain_of(xp, graph, kernel.nodes[1:], first=[first.id])
    result = graph[kernel.outputs[0]].type
    blocks = cut(result.shape, first.type.dtype.bytes, request.parallel)
    scratch = Scratch()
    product = scratch.add(first.type.dtype, *first.type.shape)
    own = Scratch()
    after = program(blocks, chain.stages, [chain.numbers[kernel.outputs[0]]], chain.shapes, chain.dtypes, request.parallel, own)
    feeds = [1 + kernel.inputs.index(i) for i in first.operands]
    picked = [1 + kernel.inputs.index(i) for i in chain.inputs[1:]]
    rest = 1 + len(kernel.inputs)
    middle = rest + 1 + len(own.types)

    def run(*arrays: Array) -> None:
        base.run(arrays[rest], *(arrays[i] for i in feeds), *arrays[middle:])
        after(arrays[0], arrays[rest], *(arrays[i] for i in picked), *arrays[rest + 1 : middle])

    return ArrayKernel(run, (*scratch.types, *own.types, *base.scratch))


@fused("conv_weight_gradient")
def _weight_gradient(request: FusedRequest) -> ArrayKernel:
    xp, graph, kernel = request.xp, request.graph, request.kernel
    by_op = {graph[i].op.name: graph[i] for i in kernel.nodes}
    product, columns = by_op["matmul"], by_op["im2col"]
    a, x_type = columns.attributes, graph[columns.operands[0]].type
    batch, channels, size = x_type.shape[0], x_type.shape[1], x_type.shape[2:]
    counts = window_counts(size, a.kernel, a.stride, a.padding, a.dilation)
    taps = window_taps(size, counts, a.kernel, a.stride, a.padding, a.dilation)
    plain = all(tap.whole for tap in taps) and len(taps) == math.prod(a.kernel)
    area, tap_count, per_group = math.prod(counts), math.prod(a.kernel), channels // a.groups
    work = product.type.dtype.accumulator
    scratch = Scratch()
    left_type = graph[product.operands[0]].type
    members = set(kernel.nodes)
    views = []
    source = product.operands[0]
    while source in members:
        views.append(graph[source])
        source = graph[source].operands[0]
    views.reverse()
    scratch.add(work, *left_type.shape)
    scratch.add(work, channels, tap_count, *counts)
    scratch.add(work, *product.type.shape)
    scratch.add(work, *product.type.shape)
    d_at, x_at = (1 + kernel.inputs.index(i) for i in (source, columns.operands[0]))
    rest = 1 + len(kernel.inputs)

    def run(*arrays: Array) -> None:
        out, d, x = arrays[0], arrays[d_at], arrays[x_at]
        left, window, part, total = arrays[rest:]
        for view in views:
            d = d.transpose(view.attributes.axes) if view.op.name == "transpose" else d.reshape(view.type.shape)
        xp.copyto(left, d)
        total.fill(0)
        if not plain:
            window.fill(0)
        for n in range(batch):
            for tap in taps:
                xp.copyto(window[(slice(None), tap.index, *tap.windows)], x[(n, slice(None), *tap.positions)])
            matrix = window.reshape(a.groups, per_group * tap_count, area).swapaxes(1, 2)
            xp.matmul(left[:, :, n * area : (n + 1) * area], matrix, out=part)
            xp.add(total, part, total)
        xp.copyto(out.reshape(product.type.shape), total, casting="same_kind")

    return ArrayKernel(run, tuple(scratch.types))
