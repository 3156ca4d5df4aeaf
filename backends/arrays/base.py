"""What an array kernel is, and the two tables in which every one of them is entered.

The kernels in this package are written once over an array module ``xp``: NumPy, or CuPy on a GPU.  They use only functions
and keywords that both have.  What pays on a CPU alone (blocks that stay in cache, a thread pool) is asked for by
:attr:`Request.parallel`, which is None on a GPU.

Rules that all kernels keep:

- ``run`` writes every element of ``out`` and allocates nothing that grows with the data: temporaries are ``scratch``.
- ``out`` is C-contiguous; operands may have any strides (transposed, reversed, broadcast).
- float16 is accumulated in float32; integer results are exact.
- Python loops go over kernel taps, axes and blocks, never over elements, windows or channels.
- A kernel object holds no state between calls, so that several threads may run it at once, each with its own scratch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

from irconv.types import DType, TensorType

Array = Any
"""A NumPy or CuPy array."""


class Parallel(Protocol):
    """How to split work on a CPU.

    threads:     how many run at once.
    shares:      in how many pieces, at least, to cut a contraction whose pieces round differently from the whole: it does not
                 depend on the number of threads.
    block_bytes: how many bytes of operands stay in a core's cache.
    """

    threads: int
    shares: int
    block_bytes: int

    def run(self, task: Callable[[int, int], None], count: int) -> None:
        """Call ``task(index, worker)`` for each index below ``count``; worker < threads tells concurrent calls apart."""

    def settings(self) -> AbstractContextManager[None]:
        """What is to hold while kernels run, entered once for many of them."""


@dataclass(frozen=True)
class Request:
    """What a kernel is asked to compute: the op's attributes and types, and where it will run.

    xp:         the array module.
    contiguous: whether the first operand will be C-contiguous (a reshape of it is then a view).
    parallel:   how to split work on a CPU; None on a GPU, where one launch over everything is best.
    strict:     keep to algorithms with plain rounding (no Winograd).
    """

    xp: Any
    attributes: Any
    operands: tuple[TensorType, ...]
    result: TensorType
    contiguous: bool = True
    parallel: Parallel | None = None
    strict: bool = False


@dataclass(frozen=True)
class FusedRequest:
    """What a fused kernel is asked to compute: ``kernel`` is an irconv.kernel.Kernel of ``graph``.

    contiguous: the ids of inputs that will not be C-contiguous are left out of it; None: all are contiguous.
    """

    xp: Any
    graph: Any
    kernel: Any
    contiguous: frozenset[int] | None = None
    parallel: Parallel | None = None
    strict: bool = False

    def alone(self, node: Any) -> Request:
        """The request for one node of the kernel by itself."""
        operands = tuple(self.graph[i].type for i in node.operands)
        plain = self.contiguous is None or not node.operands or node.operands[0] in self.contiguous
        return Request(self.xp, node.attributes, operands, node.type, plain, self.parallel, self.strict)


@dataclass(frozen=True)
class ArrayKernel:
    """Code that fills its outputs.

    run:      ``run(out, *operands, *scratch)``; a fused kernel: ``run(*outputs, *inputs, *scratch)``.
    scratch:  types of the uninitialised C-contiguous temporaries that ``run`` needs.
    in_place: pairs (output position, operand position) that may be one buffer, provided both have the same type and
              exactly the same, contiguous, extent.  Several may be used together if no position occurs twice.
    """

    run: Callable[..., None]
    scratch: tuple[TensorType, ...] = ()
    in_place: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class ViewKernel:
    """No code: ``view(operand)`` is another view of the operand's buffer and never copies."""

    view: Callable[[Array], Array]


KERNELS: dict[str, Callable[[Request], ArrayKernel | ViewKernel]] = {}
"""A factory for each op by name, leaves excepted.  Filled by the families of this package."""

FUSED: dict[str, Callable[[FusedRequest], ArrayKernel]] = {}
"""A factory for each kind of fused kernel by name."""


def kernel(*names: str) -> Callable[[Callable[[Request], Any]], Callable[[Request], Any]]:
    """Enter the decorated factory under these op names."""

    def enter(factory: Callable[[Request], Any]) -> Callable[[Request], Any]:
        for name in names:
            KERNELS[name] = factory
        return factory

    return enter


def fused(*kinds: str) -> Callable[[Callable[[FusedRequest], ArrayKernel]], Callable[[FusedRequest], ArrayKernel]]:
    """Enter the decorated factory under these kinds of fused kernels."""

    def enter(factory: Callable[[FusedRequest], ArrayKernel]) -> Callable[[FusedRequest], ArrayKernel]:
        for kind in kinds:
            FUSED[kind] = factory
        return factory

    return enter


def scratch(dtype: DType, *shape: int) -> TensorType:
    """The type of a temporary."""
    return TensorType(dtype, tuple(shape))


@dataclass(frozen=True)
class Scratch:
    """Collects temporaries while a kernel is put together: ``slot = scratch.add(F32, 3, 4)``, later ``arrays[slot]``."""

    types: list[TensorType] = field(default_factory=list)

    def add(self, dtype: DType, *shape: int) -> int:
        """Ask for one more temporary; returns its position."""
        self.types.append(TensorType(dtype, tuple(shape)))
        return len(self.types) - 1


class Serial:
    """A :class:`Parallel` of one thread: blocks in cache, run one after the other."""

    threads = 1
    shares = 1

    def __init__(self, block_bytes: int):
        self.block_bytes = block_bytes

    def run(self, task: Callable[[int, int], None], count: int) -> None:
        for index in range(count):
            task(index, 0)

    def settings(self) -> AbstractContextManager[None]:
        return nullcontext()


class Shared:
    """Another :class:`Parallel`, with its own number of shares."""

    def __init__(self, parallel: Parallel, shares: int):
        self.threads, self.block_bytes, self.shares = parallel.threads, parallel.block_bytes, shares
        self.run, self.settings = parallel.run, parallel.settings


def even_step(length: int, most: int, shares: int) -> int:
    """A step of at most ``most`` that cuts ``length`` into a multiple of ``shares`` spans: no thread waits for a last one."""
    rounds = max(1, -(-length // (most * shares)))
    return max(1, min(most, -(-length // (rounds * shares))))


def spans(length: int, step: int) -> Sequence[tuple[int, int]]:
    """``(start, stop)`` pairs that cover ``range(length)`` in pieces of at most ``step``, as even as can be."""
    if length <= 0:
        return []
    count = -(-length // max(1, step))
    return [(length * i // count, length * (i + 1) // count) for i in range(count)]
