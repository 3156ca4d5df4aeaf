"""Contractions with elementwise epilogues: the epilogue runs on each piece of the result while it is in cache."""

from __future__ import annotations

from irconv.backends.arrays.base import Array, ArrayKernel, FusedRequest, Scratch, fused
from irconv.backends.arrays.blocks import along, program
from irconv.backends.arrays.chain import chain_of
from irconv.backends.arrays.contract import matmul_work
from irconv.backends.arrays.conv import conv_request_work
from irconv.backends.arrays.conv_transpose import transposed_work
from irconv.backends.arrays.work import run_pieces

WORKS = {"conv": conv_request_work, "conv_transpose": transposed_work, "matmul": matmul_work}


@fused("conv_epilogue", "conv_transpose_epilogue", "matmul_epilogue")
def _epilogue(request: FusedRequest) -> ArrayKernel:
    """A contraction whose result is gone on with.

    With one element type throughout, the product is written where the result goes and replaced there; otherwise (a comparison, a
    cast) it is kept in a temporary.
    """
    xp, graph, kernel, parallel = request.xp, request.graph, request.kernel, request.parallel
    first, last = graph[kernel.nodes[0]], graph[kernel.outputs[0]]
    scratch = Scratch()
    work = WORKS[first.op.name](request.alone(first), scratch)
    chain = chain_of(xp, graph, kernel.nodes[1:], first=[first.id])
    shared = first.type == last.type
    product = -1 if shared else scratch.add(first.type.dtype, *first.type.shape)
    blocks = along(last.type.shape, work.regions)
    outputs = [chain.numbers[last.id]]
    after = program(blocks, chain.stages, outputs, chain.shapes, chain.dtypes, parallel, scratch, continued=shared)
    x_at, w_at = (1 + kernel.inputs.index(i) for i in first.operands)
    picked = [1 + kernel.inputs.index(i) for i in chain.inputs[1:]]
    rest = 1 + len(kernel.inputs)

    def run(*arrays: Array) -> None:
        out, x, w, buffers = arrays[0], arrays[x_at], arrays[w_at], arrays[rest:]
        if not out.size:
            return
        value = out if shared else buffers[product]
        weight = work.before(x, w, buffers)
        read = (out, value, *(arrays[i] for i in picked), *buffers)

        def task(i: int, worker: int) -> None:
            work.piece(i, worker, value, x, weight, buffers)
            after.task(read, i, worker)

        run_pieces(parallel, task, len(work.regions))

    return ArrayKernel(run, tuple(scratch.types))
