"""Several reductions of one shape at once, with the elementwise work ahead of them, block by block."""

from __future__ import annotations

from typing import Any

from irconv.backends.arrays.base import Array, ArrayKernel, FusedRequest, Scratch, fused
from irconv.backends.arrays.blocks import Stage, cut, program
from irconv.backends.arrays.chain import Chain, chain_of
from irconv.backends.arrays.reduce import FOLDS, Fold, fold_by_block


@fused("reductions")
def _reductions(request: FusedRequest) -> ArrayKernel:
    """Each block is computed, stored where somebody wants it, and folded while it is in cache."""
    xp, graph, kernel, parallel = request.xp, request.graph, request.kernel, request.parallel
    folding = [graph[i] for i in kernel.nodes if graph[i].op.name in FOLDS]
    nodes = [i for i in kernel.nodes if graph[i].op.name not in FOLDS]
    chain = chain_of(xp, graph, nodes, [n.operands[0] for n in folding if n.operands[0] not in nodes])
    shape = graph[folding[0].operands[0]].type.shape
    widest = max(graph[i].type.dtype.bytes for i in (*nodes, *(n.operands[0] for n in folding)))
    blocks = cut(shape, widest, parallel, fixed=True)
    folds = [fold_by_block(xp, n.op.name, n.attributes.axes, shape, blocks, n.type, parallel) for n in folding]
    scratch = Scratch()
    tables = [scratch.add(fold.table.dtype, *fold.table.shape) for fold in folds]
    stored = [i for i in kernel.outputs if i in nodes]
    stages, targets = _stages(request, chain, folding, folds, stored)
    inner = program(
        blocks,
        stages,
        [*(chain.numbers[i] for i in stored), *targets],
        chain.shapes,
        [*chain.dtypes, *(fold.table.dtype for fold in folds)],
        parallel,
        scratch,
        stores=[*(blocks.indices for _ in stored), *(fold.indices for fold in folds)],
    )
    place = {i: at for at, i in enumerate(kernel.outputs)}
    picked = [len(place) + kernel.inputs.index(i) for i in chain.inputs]
    rest = len(place) + len(kernel.inputs)
    finishing = [(place[n.id], fold, table) for n, fold, table in zip(folding, folds, tables, strict=True) if n.id in place]

    def run(*arrays: Array) -> None:
        if not any(out.size for out in arrays[: len(place)]):
            return
        buffers = arrays[rest:]
        results = (*(arrays[place[i]] for i in stored), *(buffers[table] for table in tables))
        inner.run(*results, *(arrays[i] for i in picked), *buffers)
        for at, fold, table in finishing:
            fold.finish(arrays[at], buffers[table])

    return ArrayKernel(run, tuple(scratch.types))


def _stages(
    request: FusedRequest, chain: Chain, folding: list[Any], folds: list[Fold], stored: list[int]
) -> tuple[list[Stage], list[int]]:
    """The elementwise stages, then one for each reduction, and the numbers of what those make.

    A product that one reduction alone reads is summed as it is made.
    """
    graph, kernel = request.graph, request.kernel
    stages = list(chain.stages)
    targets = [len(chain.dtypes) + at for at in range(len(folds))]
    for node, fold, target in zip(folding, folds, targets, strict=True):
        source = graph[node.operands[0]]
        number = chain.numbers[source.id]
        readers = sum(source.id in graph[i].operands for i in kernel.nodes)
        if fold.paired is not None and readers == 1 and source.id not in stored and _is_whole_product(request, chain, source):
            made = next(stage for stage in stages if stage.target == number)
            stages.remove(made)
            stages.append(Stage(fold.paired, (made.sources[0], made.sources[-1]), target))
        else:
            stages.append(Stage(fold.step, (number,), target))
    return stages, targets


def _is_whole_product(request: FusedRequest, chain: Chain, node: Any) -> bool:
    """Whether a member is the product of two contiguous values of its own type."""
    graph, contiguous = request.graph, request.contiguous
    if node.id not in request.kernel.nodes or node.op.name not in ("multiply", "square"):
        return False
    return all(
        graph[i].type == node.type and (chain.numbers[i] >= len(chain.inputs) or contiguous is None or i in contiguous)
        for i in node.operands
    )
