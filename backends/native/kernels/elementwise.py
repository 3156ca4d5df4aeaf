"""Elementwise kernels: any number of results of one shape, operands broadcast, strides of all kinds.

Each element is read and written once, in the storage order of the first result.  Vectors run along the innermost axis; where an
operand is constant along it, its number is spread once for the whole row.  Extents and strides come at run time: layers of
all sizes, and all batches, share one unit.
"""

from __future__ import annotations

from collections.abc import Sequence

from irconv.backends.codegen.body import FIRST, LAST, Body
from irconv.backends.codegen.c import print_c
from irconv.backends.codegen.expressions import RULES, can_evaluate, element_bytes, evaluate, values_read
from irconv.backends.codegen.form import Expression, Pointer
from irconv.backends.native.base import NativeKernel, NativeRequest, Phase, native, native_kernel
from irconv.backends.native.kernels.element_loops import ElementLoops, Fetch, Sizes, Value
from irconv.backends.native.kernels.element_space import Extent, plan_space
from irconv.kernel import Kernel

FUNCTION = "elementwise"
MOVEMENT = ("copy", "stop_gradient")
"""Ops that movement.py has."""


@native("elementwise", *(name for name in RULES if name not in MOVEMENT))
def _elementwise(request: NativeRequest) -> NativeKernel | None:
    """None (the array kernel) where an op has no code: signed integers to a power that is not known.

    Results have one shape; values that do not leave the kernel may be smaller, they are computed where they are needed.
    """
    graph, kernel = request.graph, request.kernel
    lanes = _lanes(request)
    if lanes is None:
        return None
    shape = graph[kernel.outputs[0]].type.shape
    if any(graph[i].type.shape != shape for i in kernel.outputs):
        return None
    reads = values_read(graph, kernel.nodes)
    buffers = operand_ids(request)
    places = {i: f"in{at}" for at, i in reversed(list(enumerate(buffers)))}
    ids = [*kernel.outputs, *reads]
    extents = [
        Extent(graph[i].type.shape, request.strides[i], at < len(kernel.outputs)) for at, i in enumerate(ids)
    ]
    widest = max(graph[i].type.dtype.bytes for i in kernel.outputs)
    space = plan_space(shape, extents, widest, len(kernel.outputs))
    outputs = [
        Value(i, Pointer(f"out{at}", graph[i].type.dtype), space.terms[at]) for at, i in enumerate(kernel.outputs)
    ]
    inputs = [
        Value(i, Pointer(places[i], graph[i].type.dtype), term, is_number=extent.is_number(shape))
        for i, term, extent in zip(reads, space.terms[len(outputs) :], extents[len(outputs) :], strict=True)
    ]
    pairs = _in_place(request, buffers, set(reads))
    shared = {name for output, slot in pairs for name in (f"out{output}", f"in{slot}")}
    body, sizes = Body(), Sizes()

    def compute(body: Body, known: dict[int, Expression], fetch: Fetch) -> None:
        evaluate(body, graph, kernel.nodes, known, fetch, lanes)

    mask_bytes = element_bytes(graph, kernel.nodes) or 1
    ElementLoops(body, sizes, space, outputs, inputs, lanes, mask_bytes, compute, FIRST, LAST).write()
    declared = [(v.pointer.name, v.pointer.dtype, True) for v in outputs]
    declared += [(f"in{at}", graph[i].type.dtype, False) for at, i in enumerate(buffers)]
    function = body.function(FUNCTION, declared, sizes.names, _aliases(shared, buffers))
    return native_kernel(print_c([function]), (Phase(FUNCTION, space.tasks),), tuple(sizes.values), in_place=pairs)


def operand_ids(request: NativeRequest) -> tuple[int, ...]:
    """Ids of the buffers after the results: the op's operands (one may come twice), or a fused kernel's inputs."""
    kernel: Kernel = request.kernel
    return kernel.inputs if len(kernel.nodes) > 1 else request.graph[kernel.nodes[0]].operands


def _lanes(request: NativeRequest) -> int | None:
    """Lanes to compute on: vectors if they can, else 1; None if there is no code either way."""
    graph, nodes = request.graph, request.kernel.nodes
    size = element_bytes(graph, nodes)
    if size is not None:
        lanes = request.machine.lanes(size or 1)
        if lanes > 1 and can_evaluate(graph, nodes, lanes):
            return lanes
    return 1 if can_evaluate(graph, nodes, 1) else None


def _in_place(request: NativeRequest, buffers: Sequence[int], read: set[int]) -> tuple[tuple[int, int], ...]:
    """Pairs (result, operand) of one type with the same strides: an element is read before it is written, and never again."""
    graph, kernel = request.graph, request.kernel
    return tuple(
        (output, slot)
        for output, i in enumerate(kernel.outputs)
        for slot, source in enumerate(buffers)
        if source in read
        and buffers.count(source) == 1
        and graph[source].type.dtype is graph[i].type.dtype
        and graph[source].type.shape == graph[i].type.shape
        and request.strides[source] == request.strides[i]
    )


def _aliases(shared: set[str], buffers: Sequence[int]) -> set[str]:
    """Names of buffers that may be one memory: in-place pairs, and operands that come twice."""
    twice = {f"in{at}" for at, i in enumerate(buffers) if buffers.count(i) > 1}
    return shared | twice
