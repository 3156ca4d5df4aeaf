"""Any kernel of several nodes, node by node: for kinds of fused kernels that have no array code of their own."""

from __future__ import annotations

from collections.abc import Callable

from irconv.backends.arrays.base import KERNELS, Array, ArrayKernel, FusedRequest, Scratch, ViewKernel
from irconv.errors import BackendError


def one_by_one(request: FusedRequest) -> ArrayKernel:
    """Runs the array kernel of each node; values that nobody outside reads are temporaries.

    Raises BackendError for an op that has no array kernel.
    """
    graph, kernel = request.graph, request.kernel
    scratch = Scratch()
    places = {i: at for at, i in enumerate((*kernel.outputs, *kernel.inputs))}
    first = len(places)
    steps = []
    for i in kernel.nodes:
        node = graph[i]
        factory = KERNELS.get(node.op.name)
        if factory is None:
            raise BackendError(f"there is no array kernel for {node.op.name}", location=node.provenance.location)
        made = factory(request.alone(node))
        if i not in places:
            places[i] = first + scratch.add(node.type.dtype, *node.type.shape)
        sources = tuple(places[operand] for operand in node.operands)
        if isinstance(made, ViewKernel):
            steps.append(_copied(request, made, places[i], sources[0]))
        else:
            buffers = tuple(first + scratch.add(t.dtype, *t.shape) for t in made.scratch)
            steps.append(_called(made, (places[i], *sources, *buffers)))

    def run(*arrays: Array) -> None:
        for step in steps:
            step(arrays)

    return ArrayKernel(run, tuple(scratch.types))


Step = Callable[[tuple[Array, ...]], None]


def _called(made: ArrayKernel, arguments: tuple[int, ...]) -> Step:
    return lambda arrays: made.run(*(arrays[at] for at in arguments))


def _copied(request: FusedRequest, made: ViewKernel, target: int, source: int) -> Step:
    return lambda arrays: request.xp.copyto(arrays[target], made.view(arrays[source]))
