"""Fused elementwise chains, with or without a reduction at their end, and mean with variance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from irconv.backends.arrays.base import Array, ArrayKernel, FusedRequest, Scratch, fused
from irconv.backends.arrays.blocks import cut, program, shared_pairs
from irconv.backends.arrays.chain import chain_of
from irconv.types import TensorType


@fused("elementwise")
def _elementwise(request: FusedRequest) -> ArrayKernel:
    """All stages block by block: values that nobody outside reads never leave the cache."""
    xp, graph, kernel = request.xp, request.graph, request.kernel
    chain = chain_of(xp, graph, kernel.nodes)
    shape = graph[kernel.nodes[0]].type.shape
    outputs = [chain.numbers[i] for i in kernel.outputs]
    widest = max(graph[i].type.dtype.bytes for i in kernel.nodes)
    blocks = cut(shape, widest, request.parallel)
    scratch = Scratch()
    inner = program(blocks, chain.stages, outputs, chain.shapes, chain.dtypes, request.parallel, scratch)
    count = len(kernel.outputs)
    # the kernel may have inputs that no stage reads
    picked = [count + kernel.inputs.index(i) for i in chain.inputs]
    rest = count + len(kernel.inputs)

    def run(*arrays: Array) -> None:
        inner(*arrays[:count], *(arrays[i] for i in picked), *arrays[rest:])

    pairs = shared_pairs(chain.stages, outputs, chain.shapes, shape, chain.dtypes)
    in_place = tuple((out, kernel.inputs.index(chain.inputs[i])) for out, i in pairs)
    return ArrayKernel(run, tuple(scratch.types), in_place)


@fused("elementwise_reduce")
def _elementwise_reduce(request: FusedRequest) -> ArrayKernel:
    from irconv.backends.arrays.base import KERNELS
    xp, graph, kernel = request.xp, request.graph, request.kernel
    last = graph[kernel.nodes[-1]]
    source = graph[last.operands[0]]
    chain = chain_of(xp, graph, kernel.nodes[:-1])
    blocks = cut(source.type.shape, source.type.dtype.bytes, request.parallel)
    scratch = Scratch()
    full = scratch.add(source.type.dtype, *source.type.shape)
    own = Scratch()
    inner = program(blocks, chain.stages, [chain.numbers[source.id]], chain.shapes, chain.dtypes, request.parallel, own)
    fold = KERNELS[last.op.name](request.alone(last))
    picked = [1 + kernel.inputs.index(i) for i in chain.inputs]
    rest = 1 + len(kernel.inputs)
    types = (*scratch.types, *own.types, *fold.scratch)

    def run(*arrays: Array) -> None:
        value = arrays[rest]
        inner(value, *(arrays[i] for i in picked), *arrays[rest + 1 : rest + 1 + len(own.types)])
        fold.run(arrays[0], value, *arrays[rest + 1 + len(own.types):])

    return ArrayKernel(run, types)


@fused("mean_variance")
def _mean_variance(request: FusedRequest) -> ArrayKernel:
    xp, graph, kernel = request.xp, request.graph, request.kernel
    mean_id, centred_id, squared_id, variance_id = kernel.nodes
    mean, variance = graph[mean_id], graph[variance_id]
    x_type = graph[mean.operands[0]].type
    axes = mean.attributes.axes
    count = math.prod(x_type.shape[axis] for axis in axes)
    work = x_type.dtype.accumulator
    scratch = Scratch()
    wide_mean = scratch.add(work, *(1 if i in axes else n for i, n in enumerate(x_type.shape)))
    deviation = scratch.add(work, *x_type.shape)
    wide_variance = scratch.add(work, *variance.type.shape)
    place = {i: position for position, i in enumerate(kernel.outputs)}
    rest = len(kernel.outputs) + 1

    def run(*arrays: Array) -> None:
        x, temporary = arrays[len(kernel.outputs)], arrays[rest:]
        middle, centred, spread = temporary[wide_mean], temporary[deviation], temporary[wide_variance]
        xp.sum(x, axis=axes, dtype=work.numpy, out=middle, keepdims=True)
        xp.divide(middle, count, middle)
        xp.subtract(x, middle, centred)
        if centred_id in place:
            xp.copyto(arrays[place[centred_id]], centred, casting="same_kind")
        xp.square(centred, centred)
        xp.sum(centred, axis=axes, out=spread, keepdims=variance.attributes.keepdims)
        xp.divide(spread, count, spread)
        if mean_id in place:
            xp.copyto(arrays[place[mean_id]], middle.reshape(mean.type.shape), casting="same_kind")
        if variance_id in place:
            xp.copyto(arrays[place[variance_id]], spread, casting="same_kind")

    return ArrayKernel(run, tuple(scratch.types))
