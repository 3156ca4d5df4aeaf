"""What the kernel of a depthwise convolution's backward pass is about: which node does what, sizes, and the tiles of a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from irconv.backends.codegen.body import Body
from irconv.backends.codegen.expressions import can_evaluate, values_read
from irconv.backends.codegen.form import Expression, Literal, Pointer, Type, call, literal
from irconv.backends.codegen.machine import Machine
from irconv.backends.native.base import NativeRequest
from irconv.backends.native.kernels.reduction_space import full_strides
from irconv.graph import Graph
from irconv.kernel import made_by
from irconv.strides import Strides
from irconv.types import F32, F64, DType

TASK_PRODUCTS = 2_000_000
"""Multiplications of a task, about (100 us): rows at its ends are made for two tasks, so it has a good many rows."""


@dataclass(frozen=True)
class Roles:
    """What the nodes of a kernel do, by id.

    d, x, w:  the gradient of the convolution's result, its input, its weight;  ``product``: the conv_transpose.
    of_d, of_x: elementwise work that makes d and x; none where they are read as they are.
    behind:   elementwise work on the product that makes ``result``, which is stored;  ``work``: what is done on it for sums.
    summed, sums: values that are summed, and their sums;  ``gradient``: of the weight.
    """

    d: int
    x: int
    w: int
    product: int
    result: int
    gradient: int
    of_d: tuple[int, ...]
    of_x: tuple[int, ...]
    behind: tuple[int, ...]
    work: tuple[int, ...]
    summed: tuple[int, ...]
    sums: tuple[int, ...]


def roles_of(request: NativeRequest) -> Roles | None:
    """The roles of a kernel's nodes; None where they are not those of one depthwise convolution."""
    graph, nodes, outputs = request.graph, request.kernel.nodes, request.kernel.outputs
    by_op = {graph[i].op.name: graph[i] for i in nodes}
    product, columns = by_op["conv_transpose"], by_op["im2col"]
    (d, w), x = product.operands, columns.operands[0]
    sums = tuple(i for i in outputs if graph[i].op.name == "sum")
    images = [i for i in outputs if graph[i].type.shape == product.type.shape]
    gradients = [i for i in outputs if i not in sums and i not in images]
    if len(images) != 1 or len(gradients) != 1:
        return None
    of_d, of_x = made_by(graph, nodes, d), made_by(graph, nodes, x)
    ahead = {*of_d, *of_x, product.id}
    behind = tuple(i for i in made_by(graph, nodes, images[0]) if i not in ahead)
    rest = ahead.union(behind, sums, made_by(graph, nodes, gradients[0]))
    work = tuple(i for i in nodes if i not in rest)
    summed = tuple(graph[i].operands[0] for i in sums)
    return Roles(d, x, w, product.id, images[0], gradients[0], of_d, of_x, behind, work, summed, sums)


@dataclass(frozen=True)
class Work:
    """Elementwise work on images stored channels last: what it reads from outside.

    images:  buffers of images, with strides.
    numbers: buffers of numbers, with the distance from one channel to the next (0: a single one).
    """

    nodes: tuple[int, ...]
    images: dict[int, tuple[Pointer, Strides]]
    numbers: dict[int, tuple[Pointer, int]]


def work_of(
    request: NativeRequest,
    nodes: tuple[int, ...],
    like: int,
    pointers: dict[int, Pointer],
    lanes: int,
    known: int | None = None,
    wanted: Sequence[int] = (),
) -> Work | None:
    """Work on images like ``like``; None where there is no code for it.  known: a value that need not be read.

    wanted: values that are asked for, whether the work makes them or they are read from outside.
    """
    graph, type_ = request.graph, request.graph[like].type
    if not can_evaluate(graph, nodes, lanes):
        return None
    images: dict[int, tuple[Pointer, Strides]] = {}
    numbers: dict[int, tuple[Pointer, int]] = {}
    for i in dict.fromkeys((*values_read(graph, nodes), *(i for i in wanted if i not in nodes))):
        if i == known:
            continue
        own, strides = graph[i].type, request.strides[i]
        if own.dtype is not type_.dtype:
            return None
        if own.shape == type_.shape:
            if strides[1] != 1:
                return None
            images[i] = pointers[i], strides
            continue
        along = full_strides(own.shape, strides, type_.shape)
        if along[1] not in (0, 1) or any(s for axis, s in enumerate(along) if axis != 1):
            return None
        numbers[i] = pointers[i], along[1]
    return Work(nodes, images, numbers)


@dataclass(frozen=True)
class Parts:
    """The elementwise work: ahead of d, ahead of x, behind g."""

    of_d: Work
    of_x: Work
    behind: Work


def parts_of(request: NativeRequest, roles: Roles, pointers: dict[int, Pointer], lanes: int) -> Parts | None:
    """What each part of the work reads; None where one cannot be done."""
    read = [i for i in (roles.d, roles.x, roles.result) if i in pointers]
    if any(request.strides[i][1] != 1 for i in read):
        return None
    of_d = work_of(request, roles.of_d, roles.d, pointers, lanes)
    of_x = work_of(request, roles.of_x, roles.x, pointers, lanes)
    behind = work_of(request, (*roles.behind, *roles.work), roles.x, pointers, lanes, roles.product, roles.summed)
    return None if of_d is None or of_x is None or behind is None else Parts(of_d, of_x, behind)


@dataclass(frozen=True)
class Geometry:
    """Sizes: ``size`` of x and of its gradient, ``counts`` of d; windows of ``kernel`` elements, ``before``: padding ahead."""

    dtype: DType
    batch: int
    channels: int
    size: tuple[int, int]
    counts: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    before: tuple[int, int]

    @property
    def taps(self) -> int:
        return self.kernel[0] * self.kernel[1]

    @property
    def held(self) -> int:
        """Rows of d that a row of x has to do with, at most."""
        return (self.kernel[0] - 1) // self.stride[0] + 1

    @property
    def row(self) -> int:
        """Elements of a row of d."""
        return self.counts[1] * self.channels

    @property
    def band(self) -> int:
        """Rows of x that a task goes over."""
        products = 2 * self.size[1] * self.channels * self.taps // (self.stride[0] * self.stride[1])
        bands = max(1, self.size[0] * products // TASK_PRODUCTS)
        return -(-self.size[0] // bands)

    @property
    def bands(self) -> int:
        """Tasks for an image."""
        return -(-self.size[0] // self.band)


def geometry_of(graph: Graph, roles: Roles) -> Geometry | None:
    """The sizes; None where the two gradients are not those of one convolution, channel by channel, of images."""
    product, d, x, w = (graph[i] for i in (roles.product, roles.d, roles.x, roles.w))
    a, channels, dtype = product.attributes, x.type.shape[1], product.type.dtype
    if x.type.rank != 4 or a.groups != channels or x.type.shape != product.type.shape or d.type.shape[1] != channels:
        return None
    if dtype not in (F32, F64) or any(value.type.dtype is not dtype for value in (d, x, w)) or set(a.dilation) != {1}:
        return None
    batch, _, *size = x.type.shape
    counts, kernel = d.type.shape[2:], w.type.shape[2:]
    return Geometry(
        dtype,
        batch,
        channels,
        (size[0], size[1]),
        (counts[0], counts[1]),
        (kernel[0], kernel[1]),
        (a.stride[0], a.stride[1]),
        (a.padding[0], a.padding[1]),
    )


@dataclass(frozen=True)
class Layout:
    """How sums lie side by side, and what the generated functions share.

    A task's sums: of each tap, then of each value that is summed, each ``stored`` numbers; a last vector of channels that repeats
    some of the one before has sums of its own.
    """

    geometry: Geometry
    roles: Roles
    pointers: Mapping[int, Pointer]
    strides: Mapping[int, Strides]
    lanes: int

    @property
    def vectors(self) -> int:
        """Vectors of channels."""
        return -(-self.geometry.channels // self.lanes)

    @property
    def stored(self) -> int:
        return self.vectors * self.lanes

    @property
    def is_ragged(self) -> bool:
        """Whether the last vector repeats channels."""
        return self.stored > self.geometry.channels

    @property
    def part(self) -> int:
        """Sums of a task."""
        return (self.geometry.taps + len(self.roles.sums)) * self.stored

    @property
    def zero(self) -> Literal:
        return literal(0, Type(self.geometry.dtype, self.lanes))

    def channel(self, body: Body, vector: Expression) -> Expression:
        """The first channel of a vector."""
        channel = vector * self.lanes
        return body.let("channel", call("smaller", channel, self.geometry.channels - self.lanes) if self.is_ragged else channel)


@dataclass(frozen=True)
class Tile:
    """``pixels`` neighbours of a row of x from ``start`` on, which may begin ``turns`` times, tile after tile.

    uses: for each pixel of d, counted from ``start`` divided by the stride: pixels of x, from ``start``, and taps that join them.
    """

    start: int
    pixels: int
    turns: int
    uses: tuple[tuple[int, tuple[tuple[int, int], ...]], ...]


def tiles_of(g: Geometry, machine: Machine) -> list[Tile]:
    """The tiles of a row, those alike in one loop."""
    width, stride = g.size[1], g.stride[1]
    most = 14 if machine.registers >= 32 else 7
    most = max(2, min(most, machine.registers - 2 * g.kernel[1] - 2))
    pixels = -(-width // -(-width // most))
    pixels = -(-pixels // stride) * stride
    found: list[Tile] = []
    for start in range(0, width, pixels):
        tile = Tile(start, min(pixels, width - start), 1, _uses(g, start, min(pixels, width - start)))
        if found and (found[-1].pixels, found[-1].uses) == (tile.pixels, tile.uses):
            found[-1] = Tile(found[-1].start, pixels, found[-1].turns + 1, tile.uses)
        else:
            found.append(tile)
    return found


def _uses(g: Geometry, start: int, pixels: int) -> tuple[tuple[int, tuple[tuple[int, int], ...]], ...]:
    """For each pixel of d: pixels of x and taps for which ``pixel of x = pixel of d * stride + tap - before``."""
    found: dict[int, list[tuple[int, int]]] = {}
    for pixel in range(pixels):
        for tap in range(g.kernel[1]):
            place, rest = divmod(start + pixel + g.before[1] - tap, g.stride[1])
            if rest == 0 and 0 <= place < g.counts[1]:
                found.setdefault(place - start // g.stride[1], []).append((pixel, tap))
    return tuple((place, tuple(uses)) for place, uses in sorted(found.items()))
