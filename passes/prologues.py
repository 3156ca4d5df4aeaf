"""Elementwise work ahead of convolutions, matrix products and pools that their kernels can do while they read their input.

A normalisation that cannot be folded into weights because an activation lies between (pre-activation residual blocks, DenseNet),
an image that is scaled, a mask: ``conv(relu(x * scale + shift))``.  As a kernel of its own it writes a value that is read once.

What it costs to do it on the way: kernels whose windows overlap compute an element several times (Winograd's tiles 2.25 times),
and read what it is made of as often.  So ops are light ones, and where elements are computed several times a single operand of
full size is read.

Left as it is:

- convolutions with larger windows that read their input where it lies: to copy it takes as long as the work by itself;
- products with a large matrix, for each part of which the input would be computed again;
- depthwise convolutions, unless of images that lie channels last, of which a task computes a row once and keeps it;
- transposed convolutions with a stride: the kernel reads pixels in an order of its own for each remainder;
- a value with other readers, which has to be stored for them.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from math import prod

from irconv import cost
from irconv.graph import Graph, Node
from irconv.kernel import Kernel
from irconv.passes.patterns import (
    CONTRACTIONS,
    Group,
    Search,
    epilogues,
    is_elementwise,
    leaves_forward,
    with_producers,
)
from irconv.types import BOOL, F32, F64, channels_last

LIGHT = cost.LIGHT | {"divide"}
"""Ops that are computed once for each element read, among them one that takes a little longer."""

MOST_OPS = 8
"""So many of them."""

WEIGHT_BYTES = 512 * 1024
"""Of a matrix that stays in half of a second-level cache.  Larger ones are multiplied part by part, each by its own tasks:
with 4096 x 1000 numbers and 64 rows, to compute the input for each took 1.8 times as long (2-core AVX-512 virtual machine)."""

POOLS = ("max_pool", "min_pool", "avg_pool")
MOST_WINDOWS = 2.5
"""Windows that an element belongs to: 2.25 of 3 x 3 elements with a stride of 2."""

FEWEST_COLUMNS = 16
"""Of a convolution of single pixels that is worth more than the work: with two, 32 channels took twice as long to compute on the
way as from memory."""

ROWS_BYTES = 1 << 20
"""Of the rows that a window of a depthwise convolution spans: they stay in half of a second-level cache."""

FEW_CHANNELS = 4
"""So many channels, or fewer, are copied before a convolution reads them."""


def prologues(uses: Search) -> Iterator[Group]:
    """A contraction with the elementwise work that only it reads, and its epilogue."""
    graph = uses.graph
    wanted = [
        i for i in uses.order if graph[i].op.name in CONTRACTIONS and i not in uses.taken and why_not(uses, graph[i]) is None
    ]
    if not wanted:
        return
    behind, claimed = _epilogues(uses)
    varying = _varying(uses)
    for node_id in wanted:
        ahead = _ahead(uses, graph[node_id], claimed, varying)
        if ahead:
            rest = behind.get(node_id, (node_id,))
            nodes = sorted({*ahead, *rest}, key=uses.position.__getitem__)
            yield Group(f"{graph[node_id].op.name}_prologue", tuple(nodes))


def pool_prologues(uses: Search) -> Iterator[Group]:
    """A pool, or max_pool with argmax_pool, with the elementwise work that nobody else reads: normalisation and activation."""
    graph = uses.graph
    wanted = [i for i in uses.order if graph[i].op.name in POOLS and i not in uses.taken and _takes_work(uses, graph[i])]
    if not wanted:
        return
    _, claimed = _epilogues(uses)
    for node_id in wanted:
        pool = graph[node_id]
        x = graph[pool.operands[0]]
        if x.id in uses.taken or x.id in claimed:
            continue
        nodes = with_producers(uses, {x.id}, x.type.shape, claimed)
        if len(nodes) <= MOST_OPS and all(graph[i].op.name in LIGHT for i in nodes) and _is_by_channel(uses, nodes, x):
            yield Group("pool_prologue", (*nodes, *sorted(uses.readers[x.id], key=uses.position.__getitem__)))


def _takes_work(uses: Search, pool: Node) -> bool:
    """Whether a pool may compute what it reads: nobody else does but for its winning taps, and few of its windows share it."""
    x, a = uses.graph[pool.operands[0]], pool.attributes
    others = [uses.graph[i] for i in uses.readers[x.id] if i != pool.id]
    indices = f"arg{pool.op.name}"
    if not is_elementwise(x) or x.id in uses.kept or x.type.layout is None or x.type.dtype not in (F32, F64):
        return False
    if len(others) > 1 or any(other.op.name != indices or other.attributes != a for other in others):
        return False
    return not leaves_forward(x, pool) and prod(a.kernel) <= MOST_WINDOWS * prod(a.stride)


def _is_by_channel(uses: Search, nodes: tuple[int, ...], x: Node) -> bool:
    """Whether the work reads one value of the size of ``x``, and for the rest what differs along the channels at the most."""
    graph = uses.graph
    reads = {i for n in nodes for i in graph[n].operands if i not in nodes}
    if any(graph[i].type.dtype is not x.type.dtype for i in (*reads, *(i for i in nodes if graph[i].type.dtype is not BOOL))):
        return False
    large = {i for i in reads if any(n != 1 for axis, n in _axes(graph[i], x) if axis != 1)}
    return len(large) == 1 and all(graph[i].type.shape == x.type.shape for i in large)


def _axes(value: Node, x: Node) -> list[tuple[int, int]]:
    """The axes of x that a value has, and its extents along them."""
    added = len(x.type.shape) - len(value.type.shape)
    return [(added + axis, n) for axis, n in enumerate(value.type.shape)]


class WorkAhead:
    """The elementwise work that kernels of contractions begin with, looked for by a rule for kernels of another kind."""

    def __init__(self, uses: Search):
        self.uses = uses

    @cached_property
    def _known(self) -> tuple[set[int], set[int]]:
        return _epilogues(self.uses)[1], _varying(self.uses)

    def ahead(self, node: Node) -> tuple[int, ...]:
        """The ops that only this contraction reads and that its kernel makes for next to nothing; none if there are none."""
        x = self.uses.graph[node.operands[0]]
        if not takes_prologue(self.uses.graph, x, node) or why_not(self.uses, node) is not None:
            return ()
        return _ahead(self.uses, node, *self._known)


def takes_prologue(graph: Graph, value: Node, reader: Node) -> bool:
    """Whether the kernel of ``reader`` can compute its operand ``value`` for next to nothing: each element about once.

    Then that takes less time than to read it, even where others read it as well and have to make it again.
    """
    if reader.op.name != "conv" or reader.operands[0] != value.id or reader.operands[1] == value.id:
        return False
    w = graph[reader.operands[1]]
    if reader.type.dtype not in (F32, F64) or value.type.layout is None:
        return False
    if _is_depthwise(value, w, reader):
        return True
    if w.type.shape[0] < FEWEST_COLUMNS:
        return False
    plain = reader.attributes.groups == 1 and not _overlaps(w, reader) and not any(map(any, reader.attributes.padding))
    return plain and _why_no_pointwise(w, reader) is None


def _why_no_pointwise(w: Node, node: Node) -> str | None:
    """What keeps work out of the kernel of a product, or of a convolution with one tap."""
    if _weight_bytes(w, node) > WEIGHT_BYTES:
        return "its weight does not stay in a cache: the input would be computed again for each part of the weight"
    return None


def _is_depthwise(x: Node, w: Node, node: Node) -> bool:
    """Whether a node is a convolution of images, channel by channel, whose kernel computes the rows it reads once."""
    channels = x.type.shape[1]
    by_channel = node.op.name == "conv" and node.attributes.groups == channels == node.type.shape[1] and channels > 1
    if not by_channel or not x.type.layout == node.type.layout == channels_last(4):
        return False
    rows = (w.type.shape[2] - 1) * node.attributes.dilation[0] + 1
    return rows * channels * x.type.shape[3] * x.type.dtype.bytes <= ROWS_BYTES


def _epilogues(uses: Search) -> tuple[dict[int, tuple[int, ...]], set[int]]:
    """The epilogue that each contraction will get, and all nodes that belong to one."""
    behind: dict[int, tuple[int, ...]] = {}
    claimed: set[int] = set()
    for group in epilogues(uses):
        if claimed.isdisjoint(group.nodes) and uses.taken.isdisjoint(group.nodes):
            behind[group.nodes[0]] = group.nodes
            claimed.update(group.nodes)
    return behind, claimed


def _ahead(uses: Search, node: Node, claimed: set[int], varying: set[int]) -> tuple[int, ...]:
    """The ops that make the input of a contraction; none if there are none that its kernel should take."""
    graph = uses.graph
    x = graph[node.operands[0]]
    if x.id in uses.taken or x.id in claimed:
        return ()
    nodes = with_producers(uses, {x.id}, x.type.shape, claimed)
    if len(nodes) > MOST_OPS or any(graph[i].op.name not in LIGHT for i in nodes):
        return ()
    reads = {i for n in nodes for i in graph[n].operands if i not in nodes}
    # a parameter may have the input's shape where the batch is 1
    large = sum(graph[i].type.shape == x.type.shape and i in varying for i in reads)
    w = graph[node.operands[1]]
    once = not _overlaps(w, node) or (node.op.name == "conv" and _is_depthwise(x, w, node))
    return nodes if large <= (2 if once else 1) else ()


def _varying(uses: Search) -> set[int]:
    """Values that differ from call to call: all but parameters, and what elementwise ops and views make of those alone."""
    graph = uses.graph
    varying: set[int] = set()
    for node_id in uses.order:
        node = graph[node_id]
        if node.is_leaf:
            stays = node_id in graph.states or node.op.name == "constant"
        else:
            stays = (is_elementwise(node) or node.op.name in ("reshape", "transpose")) and varying.isdisjoint(node.operands)
        if not stays:
            varying.add(node_id)
    return varying


def why_apart(uses: Search, value: Node, node: Node, kernel: Kernel) -> str | None:
    """Why elementwise work that makes the input of a contraction is not in its kernel; None if the value is something else."""
    if node.op.name not in CONTRACTIONS or value.id != node.operands[0] or not is_elementwise(value):
        return None
    computes = kernel.kind == "conv_statistics" and takes_prologue(uses.graph, value, node)
    if kernel.kind not in (node.op.name, f"{node.op.name}_epilogue") and not computes:
        return f"kernels of kind {kernel.kind} read their input from memory"
    work = "the work is not light enough to be done where it is read, or reads several values of full size"
    return why_not(uses, node) or work


def why_not(uses: Search, node: Node) -> str | None:
    """What keeps elementwise work ahead of a contraction out of its kernel, whatever the work is; None if nothing does."""
    graph = uses.graph
    x, w = graph.operands(node)
    if not is_elementwise(x):
        return f"%{x.name} is no elementwise work"
    if uses.only_reader(x.id) is None or x.id == w.id:
        return f"%{x.name} is also read elsewhere, so it has to be stored"
    if leaves_forward(x, node):
        return "it leads from the forward into the backward pass: its operands would be kept for long"
    if node.type.dtype not in (F32, F64):
        return f"there is code for it with f32 and f64, not with {node.type.dtype.name}"
    if not _overlaps(w, node) and (reason := _why_no_pointwise(w, node)) is not None:
        return reason
    return _why_no_matmul(x, node) if node.op.name == "matmul" else _why_no_conv(x, w, node)


def _weight_bytes(w: Node, node: Node) -> int:
    """Bytes of the matrix that each pixel or row is multiplied by."""
    rows = w.type.shape[-2:] if node.op.name == "matmul" else (w.type.size // node.attributes.groups,)
    return prod(rows) * w.type.dtype.bytes


def _why_no_matmul(x: Node, node: Node) -> str | None:
    if x.type.shape[:-1] != node.type.shape[:-1] or x.type.layout is not None:
        return "rows of the left matrix are not read one after the other"
    return None


def _why_no_conv(x: Node, w: Node, node: Node) -> str | None:
    a = node.attributes
    if _is_depthwise(x, w, node):
        return None
    if a.groups > 1 and a.groups == x.type.shape[1]:
        return "a depthwise convolution reads each element several times for little work"
    if node.op.name == "conv_transpose" and any(s != 1 for s in a.stride):
        return "a transposed convolution with a stride reads its input in several orders"
    if _overlaps(w, node) and not _is_laid_out_anew(x, w, node):
        return "the input would have to be copied for it: its windows overlap, and it is read where it lies"
    return None


def _is_laid_out_anew(x: Node, w: Node, node: Node) -> bool:
    """Whether kernels read an input once, to copy it (few channels, row-major) or to transform it (Winograd's algorithm)."""
    a = node.attributes
    if x.type.layout is None or x.type.shape[1] <= FEW_CHANNELS:
        return True
    plain = a.groups == 1 and {*a.stride, *a.dilation} == {1}
    return plain and w.type.shape[2:] == (3, 3) and node.type.dtype is F32


def _overlaps(w: Node, node: Node) -> bool:
    """Whether an element of the input is read for several places of the result."""
    return node.op.name != "matmul" and prod(w.type.shape[2:]) > 1
