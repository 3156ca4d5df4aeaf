"""Fused kernels that no generator has code for, as the kernels of their ops one after the other."""

from __future__ import annotations

from dataclasses import replace

from irconv.backends.arrays.lower import operand_ids
from irconv.backends.native.base import NATIVE, NativeKernel, NativeRequest
from irconv.backends.native.composition import Part, composed
from irconv.backends.native.converted import with_copies
from irconv.kernel import Kernel
from irconv.strides import storage_strides


def step_by_step(request: NativeRequest) -> NativeKernel | None:
    """One kernel of the ops' own, values between them in row-major temporaries; None where there is no code for one of them."""
    graph, kernel = request.graph, request.kernel
    border = (*kernel.outputs, *operand_ids(graph, kernel))
    places = {i: at for at, i in reversed(list(enumerate(border)))}
    between = [i for i in kernel.nodes if i not in places]
    places |= {i: len(border) + at for at, i in enumerate(between)}
    strides = {i: storage_strides(graph[i].type.logical) if i in between else s for i, s in request.strides.items()}
    parts = []
    for node in (graph[i] for i in kernel.nodes):
        single = Kernel(kernel.name, node.op.name, (node.id,), tuple(dict.fromkeys(node.operands)), (node.id,))
        asked = replace(request, kernel=single, strides=strides, alone=True)
        generator = NATIVE.get(node.op.name)
        made = None if generator is None else generator(asked) or with_copies(generator, asked)
        if made is None:
            return None
        parts.append(Part(made, tuple(places[i] for i in (node.id, *node.operands))))
    return composed(parts, len(border), [graph[i].type.logical for i in between], len(kernel.outputs))
