"""Kernels between copies: what a generator has no code for, as values that it has code for.

float16 values are read into float32 temporaries, computed with there, and rounded once where results are written: the references
do the same, and few processors have float16 arithmetic.  Values that a generator wants row-major and that are stored in another
order are copied, too.  The generator writes its kernel for the temporaries as if they were the kernel's own values; phases that
copy in and out are put around it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from irconv.backends.arrays.lower import operand_ids
from irconv.backends.codegen.body import Body
from irconv.backends.codegen.c import print_c
from irconv.backends.codegen.form import Expression, Pointer, convert, literal, load
from irconv.backends.native.base import Generator, NativeKernel, NativeRequest, Phase, first, native_kernel
from irconv.backends.native.composition import Part, composed
from irconv.backends.native.kernels.element_loops import Sizes
from irconv.backends.native.kernels.reduction_space import digits_of, least, offset_of
from irconv.graph import Graph, Node
from irconv.kernel import Kernel
from irconv.op import Fusion
from irconv.strides import Strides, storage_strides, view_strides
from irconv.types import F16, F32, DType, TensorType

TASK_ELEMENTS = 16 * 1024
"""Elements that a task copies, about."""


def with_copies(generator: Generator, request: NativeRequest) -> NativeKernel | None:
    """The generator's kernel in float32 where there is float16, or else for row-major values, between copies.

    None where there is nothing to copy, or no code for the copies either.
    """
    for plain in (False, True):
        inner = _Inner(request, plain)
        if inner.copies:
            made = generator(inner.request())
            if made is not None:
                return _around(request, inner, made)
    return None


@dataclass(frozen=True)
class Copy:
    """A value on the border of a kernel and its temporary.

    slot:    of the value among the kernel's buffers;  dtype: its element type.
    strides: of the value, by axes from slowest to fastest of the temporary.
    type:    of the temporary, which is C-contiguous.
    """

    slot: int
    dtype: DType
    strides: Strides
    type: TensorType

    @property
    def length(self) -> int:
        """Elements of a row: the fastest axis."""
        return self.type.shape[-1] if self.type.rank else 1

    @property
    def rows(self) -> int:
        return math.prod(self.type.shape[:-1])

    @property
    def rows_per_task(self) -> int:
        return max(1, TASK_ELEMENTS // max(1, self.length))


class _Inner:
    """A kernel's nodes in a graph of their own, with temporaries for values on the border.

    plain: all values are row-major there; else they are stored in the order that they have outside, and only float16 is copied.
    """

    def __init__(self, request: NativeRequest, plain: bool):
        self.outer, self.plain = request, plain
        self.graph, self.ids = Graph("kernel"), dict[int, int]()
        kernel = request.kernel
        self.buffers = (*kernel.outputs, *operand_ids(request.graph, kernel))
        self.copies: list[Copy] = []
        self.sources: list[int] = []  # for each of the buffers: the one that the generator's phases get
        self._add_nodes()
        self.strides = dict[int, Strides]()  # by ids of the graph within
        for slot, i in enumerate(self.buffers):
            self._border(slot, i)

    def _add_nodes(self) -> None:
        graph, kernel = self.outer.graph, self.outer.kernel
        members = set(kernel.nodes)
        read = dict.fromkeys((*kernel.inputs, *(o for i in kernel.nodes for o in graph[i].operands)))
        for node in (graph[i] for i in read if i not in members):
            self.ids[node.id] = self._leaf(node).id
        for node in (graph[i] for i in kernel.nodes):
            made = self.graph.add(node.op, node.attributes, [self.ids[o] for o in node.operands], name=node.name)
            if node.type.layout is not None and not self.plain:
                self.graph.set_layout(made.id, node.type.layout)
            self.ids[node.id] = made.id
        for i in kernel.outputs:
            self.graph.set_output(graph[i].name, self.ids[i])

    def _leaf(self, node: Node) -> Node:
        """A constant as one, for its number; anything else as an input."""
        dtype = F32 if node.type.dtype is F16 else node.type.dtype
        if node.op.name != "constant":
            return self.graph.add_input(node.name, TensorType(dtype, node.type.shape))
        value = node.attributes.value.astype(dtype.numpy)
        return self.graph.add(node.op, replace(node.attributes, value=value), name=node.name)

    def _border(self, slot: int, i: int) -> None:
        """Give a value strides within, and a temporary where it needs one."""
        own, strides = self.outer.graph[i].type, self.outer.strides[i]
        inner = self.graph[self.ids[i]].type
        layout = None if self.plain else own.layout
        stored = storage_strides(replace(own, layout=layout))
        if inner.dtype is own.dtype and (strides == stored or not self.plain):
            self.strides[self.ids[i]] = strides
            self.sources.append(slot)
            return
        self.strides[self.ids[i]] = stored
        self.sources.append(len(self.buffers) + len(self.copies))
        order = range(own.rank) if layout is None else layout.order
        type_ = TensorType(inner.dtype, tuple(own.shape[axis] for axis in order))
        self.copies.append(Copy(slot, own.dtype, tuple(strides[axis] for axis in order), type_))

    def request(self) -> NativeRequest:
        """What the generator is asked for."""
        kernel, ids = self.outer.kernel, self.ids
        for i in (*ids.values(),):
            if i not in self.strides:
                self.strides[i] = self._inside(self.graph[i])
        nodes, inputs, outputs = (tuple(ids[i] for i in group) for group in (kernel.nodes, kernel.inputs, kernel.outputs))
        inner = Kernel(kernel.name, kernel.kind, nodes, inputs, outputs)
        return replace(self.outer, graph=self.graph, kernel=inner, strides=self.strides, choose=first)

    def _inside(self, node: Node) -> Strides:
        """Strides of a value that does not leave the kernel, after those of its operands."""
        seen = None
        if node.op.fusion is Fusion.VIEW:
            (operand,) = self.graph.operands(node)
            seen = view_strides(node, operand.type.shape, self.strides[operand.id])
        return storage_strides(node.type) if seen is None else seen


# --- around the generator's kernel ---------------------------------------------------------------------------------------


def _around(request: NativeRequest, inner: _Inner, made: NativeKernel) -> NativeKernel | None:
    """The generator's phases between those that copy."""
    outputs, border = len(request.kernel.outputs), len(inner.buffers)
    copies = [(_copy(copy, copy.slot < outputs), copy.slot, border + at) for at, copy in enumerate(inner.copies)]
    before = [Part(kernel, (there, here)) for kernel, here, there in copies if here >= outputs]
    after = [Part(kernel, (here, there)) for kernel, here, there in copies if here < outputs]
    parts = [*before, Part(made, tuple(inner.sources)), *after]
    return composed(parts, border, [copy.type for copy in inner.copies], outputs)


def _copy(copy: Copy, out: bool) -> NativeKernel:
    """Rows of a value into its temporary, or, ``out``, back: the source does not depend on shapes."""
    sizes = Sizes()
    rows, per_task, length = (
        sizes.add(name, n) for name, n in (("rows", copy.rows), ("rows_per_task", copy.rows_per_task), ("length", copy.length))
    )
    extents = [sizes.add(f"extent{axis}", n) for axis, n in enumerate(copy.type.shape)]
    strides = [sizes.add(f"stride{axis}", n) for axis, n in enumerate(copy.strides)]
    target, source = (copy.dtype, copy.type.dtype) if out else (copy.type.dtype, copy.dtype)
    body = Body()
    with body.tasks() as task:
        start = body.let("start", task * per_task)
        with body.loop("row", start, least(body, "stop", start + per_task, rows)) as row:
            digits = digits_of(body, row, extents[:-1])
            offset = body.let("offset", offset_of(digits, strides[:-1]))
            step: Expression = strides[-1] if strides else literal(0)
            with body.loop("i", 0, length) as i:
                places = (offset + i * step, row * length + i)
                to, by = places if out else places[::-1]
                body.store(Pointer("out", target), to, convert(load(Pointer("x", source), by), target))
    function = body.function("copy", [("out", target, True), ("x", source, False)], sizes.names)
    return native_kernel(print_c([function]), (Phase("copy", -(-copy.rows // copy.rows_per_task)),), tuple(sizes.values))
