"""Fused elementwise chains, with or without a reduction at their end, and mean with variance."""

from __future__ import annotations

from irconv.backends.arrays.base import Array, ArrayKernel, FusedRequest, Scratch, fused
from irconv.backends.arrays.blocks import Stage, Step, cut, program, shared_pairs
from irconv.backends.arrays.chain import Chain, chain_of
from irconv.backends.arrays.reduce import Fold, fold_by_block
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
        inner.run(*arrays[:count], *(arrays[i] for i in picked), *arrays[rest:])

    pairs = shared_pairs(chain.stages, outputs, chain.shapes, shape, chain.dtypes)
    in_place = tuple((out, kernel.inputs.index(chain.inputs[i])) for out, i in pairs)
    return ArrayKernel(run, tuple(scratch.types), in_place)


@fused("elementwise_reduce")
def _elementwise_reduce(request: FusedRequest) -> ArrayKernel:
    """A chain whose last value is folded block by block and never stored."""
    xp, graph, kernel, parallel = request.xp, request.graph, request.kernel, request.parallel
    last = graph[kernel.nodes[-1]]
    source = graph[last.operands[0]].type
    chain = chain_of(xp, graph, kernel.nodes[:-1])
    blocks = cut(source.shape, source.dtype.bytes, parallel, fixed=True)
    fold = fold_by_block(xp, last.op.name, last.attributes.axes, source.shape, blocks, last.type, parallel)
    scratch = Scratch()
    table = scratch.add(fold.table.dtype, *fold.table.shape)
    result = len(chain.dtypes)
    stages = _folded(request, chain, fold, source, result)
    dtypes = [*chain.dtypes, fold.table.dtype]
    inner = program(blocks, stages, [result], chain.shapes, dtypes, parallel, scratch, stores=[fold.indices])
    picked = [1 + kernel.inputs.index(i) for i in chain.inputs]
    rest = 1 + len(kernel.inputs)

    def run(*arrays: Array) -> None:
        if arrays[0].size:
            buffers = arrays[rest:]
            inner.run(buffers[table], *(arrays[i] for i in picked), *buffers)
            fold.finish(arrays[0], buffers[table])

    return ArrayKernel(run, tuple(scratch.types))


def _folded(request: FusedRequest, chain: Chain, fold: Fold, source: TensorType, result: int) -> list[Stage]:
    """The stages with the reduction after them; a product of two values at the end is summed as it is made."""
    *before, last = chain.stages
    node = request.graph[request.kernel.nodes[-2]]
    factors = tuple(request.graph[i] for i in node.operands)
    contiguous = request.contiguous
    whole = all(
        f.type == source and (chain.numbers[f.id] >= len(chain.inputs) or contiguous is None or f.id in contiguous)
        for f in factors
    )
    if fold.paired is None or node.op.name not in ("multiply", "square") or not whole:
        return [*chain.stages, Stage(fold.step, (last.target,), result)]
    first, second = last.sources[0], last.sources[-1]
    return [*before, Stage(fold.paired, (first, second), result)]


@fused("mean_variance")
def _mean_variance(request: FusedRequest) -> ArrayKernel:
    """Two passes over x: its sums, then those of the squared deviations, each block in cache; exact at a large mean."""
    xp, graph, kernel, parallel = request.xp, request.graph, request.kernel, request.parallel
    # a reshape may stand between the mean and the deviation from it
    mean, centred, variance = (graph[kernel.nodes[at]] for at in (0, -3, -1))
    x_type = graph[mean.operands[0]].type
    work, axes = x_type.dtype.accumulator, mean.attributes.axes
    middle_shape = tuple(1 if axis in axes else n for axis, n in enumerate(x_type.shape))
    blocks = cut(x_type.shape, work.bytes, parallel, fixed=True)
    sums = fold_by_block(xp, "mean", axes, x_type.shape, blocks, TensorType(work, middle_shape), parallel)
    scratch = Scratch()
    middle = scratch.add(work, *middle_shape)
    spread = scratch.add(work, *middle_shape)
    table = scratch.add(work, *sums.table.shape)
    kept = centred.id in kernel.outputs
    first = program(
        blocks,
        [Stage(sums.step, (0,), 1)],
        [1],
        [x_type.shape],
        [x_type.dtype, work],
        parallel,
        scratch,
        stores=[sums.indices],
    )
    # 0: x, 1: its mean, 2: the deviation, 3: its square, 4: the table, 5: the deviation as it is kept
    stages = [Stage(Step(xp.subtract), (0, 1), 2), Stage(Step(xp.square), (2,), 3), Stage(sums.step, (3,), 4)]
    if sums.paired is not None:
        stages[1:] = [Stage(sums.paired, (2, 2), 4)]
    outputs, stores = ([4, 2], [sums.indices, blocks.indices]) if kept else ([4], [sums.indices])
    if kept and work is not x_type.dtype:
        stages.insert(1, Stage(Step(lambda x, out: xp.copyto(out, x, casting="same_kind")), (2,), 5))
        outputs[1] = 5
    dtypes = [x_type.dtype, work, work, work, work, x_type.dtype]
    second = program(blocks, stages, outputs, [x_type.shape, middle_shape], dtypes, parallel, scratch, stores=stores)
    place = {i: position for position, i in enumerate(kernel.outputs)}
    x_at = len(kernel.outputs)

    def run(*arrays: Array) -> None:
        x, buffers = arrays[x_at], arrays[x_at + 1 :]
        if not x.size:
            return
        first.run(buffers[table], x, *buffers)
        sums.finish(buffers[middle], buffers[table])
        results = (buffers[table], arrays[place[centred.id]]) if kept else (buffers[table],)
        second.run(*results, x, buffers[middle], *buffers)
        sums.finish(buffers[spread], buffers[table])
        for node, value in ((mean, buffers[middle]), (variance, buffers[spread])):
            if node.id in place:
                target = arrays[place[node.id]]
                xp.copyto(target, value.reshape(target.shape), casting="same_kind")

    return ArrayKernel(run, tuple(scratch.types))
